import Foundation
import Skipstone
import Testing

/// Many tasks and one native object: each gets its own answers, and none stops the app's other tasks.
@Suite struct RaceTests {
    /// Runs per race; `SKIPSTONE_RACES=100000` for a night.
    static let runs = ProcessInfo.processInfo.environment["SKIPSTONE_RACES"].flatMap { Int($0) } ?? 4000
    static let model = try! Model(contentsOf: Fixtures.mapped, config: Config(threads: 1))

    static func input(_ number: Int) -> Tensor {
        Tensor([Float](repeating: Float(number) * 0.5 - 1, count: 3072), shape: [1, 3, 32, 32])
    }

    /// The expected outputs of each task, from runs without concurrency.
    static func truth(_ tasks: Int) async throws -> [[Float]] {
        let session = try Session(model)
        var truth: [[Float]] = []
        for task in 0..<tasks {
            truth.append(try #require(try await session.run([input(task)])[0].values(as: Float.self)))
        }
        #expect(Set(truth).count == tasks, "outputs that are alike show nothing")
        return truth
    }

    /// Regression: outputs were copied after a suspension, when the next run had overwritten them.
    @Test(arguments: [4, 16]) func everyTaskGetsItsOwnOutputs(tasks: Int) async throws {
        let session = try Session(Self.model)
        let truth = try await Self.truth(tasks)
        let wrong = try await withThrowingTaskGroup(of: Int.self) { group in
            for task in 0..<tasks {
                group.addTask {
                    var wrong = 0
                    for _ in 0..<Self.runs / tasks {
                        let got = try await session.run([Self.input(task)])[0].values(as: Float.self)
                        wrong += got == truth[task] ? 0 : 1
                    }
                    return wrong
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(wrong == 0)
        #expect(session.latency.runs == Self.runs / tasks * tasks)
    }

    /// A cancelled task gets an error and stops no other; all other results are right.
    @Test(arguments: [4, 16]) func cancellingChangesNobodyElsesOutputs(tasks: Int) async throws {
        let session = try Session(Self.model)
        let truth = try await Self.truth(tasks)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<tasks {
                group.addTask {
                    for round in 0..<Self.runs / tasks {
                        let run = Task { try await session.run([Self.input(task)])[0].values(as: Float.self) }
                        let isCancelled = (round + task) % 3 == 0
                        if isCancelled { run.cancel() }
                        do {
                            let got = try await run.value
                            #expect(got == truth[task])
                        } catch is CancellationError {
                            #expect(isCancelled)
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// A session that is closed during its tasks' runs gives each of them right outputs, and then the error `closed`.
    @Test(arguments: [4, 16]) func closingChangesNoOutputs(tasks: Int) async throws {
        let truth = try await Self.truth(tasks)
        for _ in 0..<20 {
            let session = try Session(Self.model)
            try await withThrowingTaskGroup(of: Void.self) { group in
                let (begun, first) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
                for task in 0..<tasks {
                    group.addTask {
                        do {
                            while true {
                                let got = try await session.run([Self.input(task)])[0].values(as: Float.self)
                                #expect(got == truth[task])
                                first.yield()
                            }
                        } catch let error as SkipstoneError {
                            #expect([.closed, .cancelled].contains(error.kind), "\(error)")
                        }
                    }
                }
                for await _ in begun { break }
                session.close()
                try await group.waitForAll()
            }
        }
    }

    /// Regression: a cancellation was lost if it came when a turn had started, but not yet its native run.
    @Test func aCancellationStopsItsOwnRunFromTheStartOfItsTurn() async throws {
        let classifier = try Classifier(Self.model)
        let pixels = Cancelling()
        let given = Task { try await classifier.classify(Frame(pixels, format: .rgb, width: 32, height: 32)) }
        pixels.cancel { given.cancel() }
        await #expect(throws: CancellationError.self) { try await given.value }
        #expect(classifier.latency.runs == 0, "the run was not stopped")
        _ = try await classifier.classify(Fixtures.cat.frame)
        #expect(classifier.latency.runs == 1)
    }

    /// Regression: runs kept the threads that all tasks share, and as many of them as cores stopped the app.
    @Test func runsDoNotBlockTheThreadsOfOtherTasks() async throws {
        let gate = Gate()
        let frame = Frame(gate, format: .rgb, width: 32, height: 32)
        let runs = try (0..<ProcessInfo.processInfo.activeProcessorCount + 2).map { _ in
            let classifier = try Classifier(Self.model)
            return Task { try await classifier.classify(frame) }
        }
        await Task.detached(priority: .high) { gate.open(for: runs.count) }.value
        for run in runs { _ = try await run.value }
        #expect(gate.gaveUp == 0, "the task that opens the gate had no thread to run on")
    }
}

/// Pixels that cancel their own run when it reads them: before the native run, in its turn.
private final class Cancelling: ContiguousBytes, Sendable {
    private let pixels = [UInt8](repeating: 9, count: 32 * 32 * 3)
    private let isGiven = DispatchSemaphore(value: 0)
    private let lock = NSLock()
    private nonisolated(unsafe) var action: @Sendable () -> Void = {}

    func cancel(_ action: @escaping @Sendable () -> Void) {
        lock.withLock { self.action = action }
        isGiven.signal()
    }

    func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        isGiven.wait()
        lock.withLock { action }()
        return try pixels.withUnsafeBytes(body)
    }
}

/// Pixels that a run has to wait for, until another task releases them.
private final class Gate: ContiguousBytes, Sendable {
    private let pixels = [UInt8](repeating: 9, count: 32 * 32 * 3)
    private let isOpen = DispatchSemaphore(value: 0)
    private let lock = NSLock()
    private nonisolated(unsafe) var timeouts = 0

    /// Runs that waited for so long that no task can have been free to open the gate.
    var gaveUp: Int { lock.withLock { timeouts } }

    func open(for runs: Int) { for _ in 0..<runs { isOpen.signal() } }

    func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        if isOpen.wait(timeout: .now() + 20) == .timedOut { lock.withLock { timeouts += 1 } }
        return try pixels.withUnsafeBytes(body)
    }
}
