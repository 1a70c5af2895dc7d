import Foundation
import Skipstone

/// Measures a model as an app on this device would run it.
///
/// ```swift
/// let report = try await Benchmark(length: .time(.seconds(600))).run(url)
/// try report.json().write(to: file)
/// ```
///
/// Each measurement is one call of ``Session/run(_:deadline:)`` from Swift and back; the report also has the native
/// library's own time for the last of them, and the time of camera frames, from planes to answer. Latency after half
/// an hour differs from that of the first minute, so the report has moments, with the device's thermal state and the
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
    /// Camera frames, and runs of a second session that add up the time of every step.
    public var extra: Int
    /// Time between two moments; longer as soon as there are many.
    public var interval: Duration

    /// A benchmark of this length; by default with 10 warmup runs, 50 frames, a profile of 50 runs, and a moment every
    /// five seconds.
    public init(length: Length, warmup: Int = 10, extra: Int = 50, interval: Duration = .seconds(5)) {
        self.length = length
        self.warmup = warmup
        self.extra = extra
        self.interval = interval
    }

    /// Loads the package at `url` and runs it on noise.
    ///
    /// - Parameter onMoment: Called after every ``interval``.
    /// - Throws: `SkipstoneError`; `CancellationError` if the task was cancelled.
    public func run(
        _ url: URL, config: Config = Config(), onMoment: (@Sendable (Report.Moment) -> Void)? = nil
    ) async throws -> Report {
        let clock = ContinuousClock()
        var session: Session!
        let load = try await clock.measure { session = try await Session(contentsOf: url, config: config) }
        let inputs = session.model.info.inputs.map(noise)
        let first = try await clock.measure { _ = try await session.run(inputs) }
        for _ in 0..<warmup { _ = try await session.run(inputs) }

        var all = Statistics()
        var moments = Moments(every: interval)
        let began = clock.now
        var isDone = false
        while !isDone {
            let time = try await clock.measure { _ = try await session.run(inputs) }
            all.add(time)
            moments.add(time)
            let passed = began.duration(to: clock.now)
            isDone = reached(all.count, passed)
            if isDone || moments.isDue(passed) {
                let state = await DeviceState.now(session.memory)
                let moment = moments.end(passed, state)
                onMoment?(moment)
            }
        }
        let native = session.latency
        let prepared = try await frames(session, inputs)
        let steps = try await profile(session.model, inputs)
        return Report(
            session, load: load, first: first, runs: all, native: native, frames: prepared, moments: moments.all,
            steps: steps)
    }

    private func reached(_ runs: Int, _ passed: Duration) -> Bool {
        switch length {
        case .runs(let most): runs >= most
        case .time(let most): passed >= most
        }
    }

    /// Camera frames through the model's input; nil if it is not an image.
    private func frames(_ session: Session, _ inputs: [Tensor]) async throws -> Report.Frames? {
        guard extra > 0 else { return nil }
        let (width, height) = (Report.Frames.width, Report.Frames.height)
        let luma = [UInt8](repeating: 0, count: width * height)
        let frame = Frame(
            luma: luma, chroma: [UInt8](luma.prefix(width * height / 2)), width: width, height: height)
        let clock = ContinuousClock()
        var inputs = inputs
        var (prepare, whole) = (Statistics(), Statistics())
        for _ in 0..<extra {
            let preparing: Duration
            do {
                preparing = try await clock.measure { inputs[0] = try await session.prepare(frame) }
            } catch let error as SkipstoneError where error.kind == .model {
                return nil
            }
            prepare.add(preparing)
            let running = try await clock.measure { _ = try await session.run(inputs) }
            whole.add(preparing + running)
        }
        return Report.Frames(prepare: prepare, whole: whole)
    }

    /// In a separate session, so that the timed one does not read the clock in every step.
    private func profile(_ model: Model, _ inputs: [Tensor]) async throws -> [StepTime] {
        guard extra > 0 else { return [] }
        let session = try Session(model)
        _ = try await session.run(inputs)
        try await session.startProfile()
        for _ in 0..<extra { _ = try await session.run(inputs) }
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
