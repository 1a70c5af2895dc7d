import Foundation

/// Takes the runs of one native object in turn, on a thread that is none of the tasks' own.
///
/// Swift's tasks share as many threads as there are cores, and keep theirs until they suspend: a run
/// of a second on one of them takes it from the whole app for that second, and as many runs as cores
/// stop every task there is. Here the task suspends when it asks for a run; a serial queue runs one
/// after another on a thread of Dispatch's.
///
/// A body must copy whatever it wants to return: the next one may begin before its task goes on.
final class Runs: Sendable {
    private let queue: DispatchQueue
    private let stop: @Sendable () -> Void

    /// Runs of an object that errors and tools call `name`, the current one of which `stop` stops.
    init(_ name: String, stop: @escaping @Sendable () -> Void) {
        queue = DispatchQueue(label: "skipstone.\(name)")
        self.stop = stop
    }

    /// Runs `body` in its turn. A task that is cancelled stops its own run and nobody else's, or does not
    /// begin it; one that is cancelled too late to be stopped is told of it after its run.
    ///
    /// - Throws: `CancellationError` where the task was cancelled; what `body` throws.
    func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        let turn = Turn(stop: stop)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                queue.async { continuation.resume(with: turn.take(body)) }
            }
        } onCancel: {
            turn.cancel()
        }
    }
}

/// One run, from the call that asks for it to its end.
private final class Turn: Sendable {
    private let lock = NSLock()
    private let stop: @Sendable () -> Void
    /// Both are read and written under `lock`.
    private nonisolated(unsafe) var isRunning = false
    private nonisolated(unsafe) var isCancelled = false

    init(stop: @escaping @Sendable () -> Void) { self.stop = stop }

    func take<Value>(_ body: () throws -> Value) -> Result<Value, any Error> {
        lock.withLock { isRunning = !isCancelled }
        guard isRunning else { return .failure(CancellationError()) }
        let result = Result { try SkipstoneError.translating(body) }
        return lock.withLock {
            isRunning = false
            return isCancelled ? .failure(CancellationError()) : result
        }
    }

    /// Stops the run under the lock that its end waits for: whatever runs then is this one.
    func cancel() {
        lock.withLock {
            isCancelled = true
            if isRunning { stop() }
        }
    }
}

/// Does what blocks, such as reading a file, on a thread that is none of the tasks' own.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async { continuation.resume(with: Result(catching: body)) }
    }
}
