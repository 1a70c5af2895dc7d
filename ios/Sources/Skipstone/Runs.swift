import Foundation

/// Runs one native object's calls one after the other, on a thread that no task uses.
///
/// Swift's tasks share as many threads as there are cores, and keep theirs until they suspend: a run of a second on one
/// of them takes it from the whole app for that second, and as many runs as cores block every task. Here the task
/// suspends while a serial queue does its run on a Dispatch thread.
///
/// A body must copy what it returns: the next one may begin before its task resumes.
///
/// A cancellation may come at any time. Before its turn it keeps the turn from starting. From then on the native object
/// keeps it for the run, should that not have begun; what comes too late for it is withdrawn when the next turn starts.
final class Runs: Sendable {
    private let queue: DispatchQueue
    private let begin: @Sendable () -> Void
    private let stop: @Sendable () -> Void

    /// Runs of an object called `name` in errors and tools. `begin` withdraws a cancellation that no run has seen; `stop`
    /// stops the current run, or otherwise the next.
    init(_ name: String, begin: @escaping @Sendable () -> Void, stop: @escaping @Sendable () -> Void) {
        queue = DispatchQueue(label: "skipstone.\(name)")
        self.begin = begin
        self.stop = stop
    }

    /// Runs `body` after the calls before it. Cancelling a task stops only its own run, or keeps it from starting; if
    /// the cancellation comes too late to stop it, the error is thrown after the run.
    ///
    /// - Throws: `CancellationError` if the task was cancelled; what `body` throws.
    func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        let turn = Turn(begin: begin, stop: stop)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                queue.async { continuation.resume(with: turn.take(body)) }
            }
        } onCancel: {
            turn.cancel()
        }
    }
}

/// One run, from its call to its end.
private final class Turn: Sendable {
    private let lock = NSLock()
    private let begin: @Sendable () -> Void
    private let stop: @Sendable () -> Void
    /// Both are read and written under `lock`.
    private nonisolated(unsafe) var isRunning = false
    private nonisolated(unsafe) var isCancelled = false

    init(begin: @escaping @Sendable () -> Void, stop: @escaping @Sendable () -> Void) {
        self.begin = begin
        self.stop = stop
    }

    func take<Value>(_ body: () throws -> Value) -> Result<Value, any Error> {
        lock.withLock {
            isRunning = !isCancelled
            if isRunning { begin() }
        }
        guard isRunning else { return .failure(CancellationError()) }
        let result = Result { try SkipstoneError.translating(body) }
        return lock.withLock {
            isRunning = false
            return isCancelled ? .failure(CancellationError()) : result
        }
    }

    /// Stops the run under the lock that its end waits for, so that it cannot stop another run.
    func cancel() {
        lock.withLock {
            isCancelled = true
            if isRunning { stop() }
        }
    }
}

/// Runs blocking work, such as reading a file, on a thread that no task uses.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async { continuation.resume(with: Result(catching: body)) }
    }
}
