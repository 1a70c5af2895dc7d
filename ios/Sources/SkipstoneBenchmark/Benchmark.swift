import Foundation
import Skipstone

/// Measures a model as an app on this device would run it.
///
/// ```swift
/// let report = try await Benchmark(length: .time(.seconds(600))).run(url)
/// try report.json().write(to: file)
/// ```
///
/// Each measurement is one call of ``Session/run(_:deadline:)`` from Swift and back. Latency after half an hour differs
/// from that of the first minute, so the report has a line for every second, with the device's thermal state and the
/// app's memory.
public struct Benchmark: Sendable {
    /// When to stop.
    public enum Length: Hashable, Sendable {
        /// After this many runs.
        case runs(Int)
        /// After this time.
        case time(Duration)
    }

    /// When to stop.
    public var length: Length
    /// Runs before the first that counts.
    public var warmup: Int
    /// Runs of a second session that add up the time of every step.
    public var profiled: Int

    /// A benchmark of this length; by default with 10 warmup runs, and a profile of 50.
    public init(length: Length, warmup: Int = 10, profiled: Int = 50) {
        self.length = length
        self.warmup = warmup
        self.profiled = profiled
    }

    /// Loads the package at `url` and runs it on noise.
    ///
    /// - Parameter onSecond: Called after every second.
    /// - Throws: `SkipstoneError`; `CancellationError` if the task was cancelled.
    public func run(
        _ url: URL, config: Config = Config(), onSecond: (@Sendable (Report.Second) -> Void)? = nil
    ) async throws -> Report {
        let clock = ContinuousClock()
        var session: Session!
        let load = try await clock.measure { session = try await Session(contentsOf: url, config: config) }
        let model = session.model
        let inputs = model.info.inputs.map(noise)
        let first = try await clock.measure { _ = try await session.run(inputs) }
        for _ in 0..<warmup { _ = try await session.run(inputs) }
        let steps = try await profile(model, inputs)

        var all = Statistics()
        var second = Statistics()
        var seconds: [Report.Second] = []
        let began = clock.now
        while !reached(all.count, began.duration(to: clock.now)) {
            let time = try await clock.measure { _ = try await session.run(inputs) }
            all.add(time)
            second.add(time)
            let passed = began.duration(to: clock.now)
            if passed >= .seconds(seconds.count + 1) || reached(all.count, passed) {
                let entry = Report.Second(at: passed, second.latency, runs: second.count, session.memory)
                seconds.append(entry)
                onSecond?(entry)
                second = Statistics()
            }
        }
        return Report(
            model.info, load: load, first: first, latency: all.latency, runs: all.count, memory: session.memory,
            steps: steps, seconds: seconds)
    }

    private func reached(_ runs: Int, _ passed: Duration) -> Bool {
        switch length {
        case .runs(let most): runs >= most
        case .time(let most): passed >= most
        }
    }

    /// In a separate session, so that the timed one does not read the clock in every step.
    private func profile(_ model: Model, _ inputs: [Tensor]) async throws -> [StepTime] {
        guard profiled > 0 else { return [] }
        let session = try Session(model)
        _ = try await session.run(inputs)
        try await session.startProfile()
        for _ in 0..<profiled { _ = try await session.run(inputs) }
        return try await session.profile()
    }
}

/// Values between -1 and 1 for an input of floats, the same on every device; zeros for other types.
private func noise(for port: ModelInfo.Port) -> Tensor {
    guard port.element == .float32 else { return Tensor(zerosFor: port) }
    var state: UInt32 = 1
    let values = (0..<port.shape.reduce(1, *)).map { _ in
        state = state &* 1_664_525 &+ 1_013_904_223
        return Float(state >> 8) / Float(1 << 23) - 1
    }
    return Tensor(values, shape: port.shape)
}
