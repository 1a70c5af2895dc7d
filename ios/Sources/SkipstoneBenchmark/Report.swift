import Foundation
import Skipstone

/// The result of a ``Benchmark``. Its JSON shares keys with `skipstone bench --json`, and has those of the app for
/// Android: `bindings/report.txt` lists them.
public struct Report: Codable, Sendable {
    /// Latency in milliseconds.
    public struct Latency: Codable, Hashable, Sendable {
        /// The fastest.
        public let min: Double
        /// The median.
        public let p50: Double
        /// The 90th percentile.
        public let p90: Double
        /// The 99th percentile.
        public let p99: Double
        /// The slowest.
        public let max: Double
        /// The arithmetic mean.
        public let mean: Double
    }

    /// Memory in bytes: the model's, and the process's peak.
    public struct Memory: Codable, Hashable, Sendable {
        /// Weights as the package stores them.
        public let weightsBytes: Int
        /// Weights packed for the kernels.
        public let packedBytes: Int
        /// All tensors between inputs and outputs.
        public let arenaBytes: Int
        /// Peak memory of the process.
        @OrNull public private(set) var peakRssBytes: Int?
    }

    /// The time of one step.
    public struct Step: Codable, Hashable, Sendable {
        /// Name of the step.
        public let name: String
        /// Its operator.
        public let op: String
        /// The kernel that computes it.
        public let kernel: String
        /// Milliseconds of one run.
        public let ms: Double
        /// Its fraction of the run, 0 to 1.
        public let share: Double
    }

    /// A part of the measurement, and the device at its end.
    public struct Moment: Codable, Hashable, Sendable {
        /// Milliseconds from the start of the measurement to the end of this part.
        public let atMs: Double
        /// Runs in it.
        public let runs: Int
        /// The arithmetic mean of their times.
        public let meanMs: Double
        /// The slowest of them.
        public let maxMs: Double
        /// Memory of the app; on Apple's systems its footprint.
        @OrNull public private(set) var memoryBytes: Int?
        /// `nominal`, `fair`, `serious` or `critical`; nil if the system does not report it.
        @OrNull public private(set) var thermal: String?
        /// Charge of the battery, 0 to 1; nil if the system does not report it.
        @OrNull public private(set) var battery: Double?
        /// Frequency of every core. Apple's systems do not report it; the key is that of the app for Android.
        @OrNull public private(set) var mhz: [Int]?
    }

    /// Runs by their time.
    public struct Bin: Codable, Hashable, Sendable {
        /// The shortest time, in milliseconds; the bin is 1 % wide.
        public let fromMs: Double
        /// Runs in it.
        public let runs: Int
    }

    /// Camera frames through the model.
    public struct Frames: Codable, Hashable, Sendable {
        /// Pixels across: what cameras deliver for analysis.
        public let width: Int
        /// Pixels down.
        public let height: Int
        /// Number of frames.
        public let runs: Int
        /// Latency until the input is ready.
        public let prepareMs: Latency
        /// Latency until the answer.
        public let latencyMs: Latency

        static let width = 640
        static let height = 480

        init(prepare: Statistics, whole: Statistics) {
            (width, height, runs) = (Self.width, Self.height, whole.count)
            (prepareMs, latencyMs) = (prepare.latency, whole.latency)
        }
    }

    /// The device of the measurement.
    public struct Device: Codable, Hashable, Sendable {
        /// The manufacturer's model name, such as `iPhone15,2`.
        public let name: String
        /// The system's name and version.
        public let system: String
        /// Processor cores in use.
        public let cores: Int
    }

    /// Name of the model.
    public let model: String
    /// Instruction set of the kernels.
    public let isa: String
    /// Threads per run.
    public let threads: Int
    /// Milliseconds to open the package.
    public let loadMs: Double
    /// Milliseconds of the first run.
    public let firstMs: Double
    /// Runs that count.
    public let runs: Int
    /// Their latency, from Swift and back.
    public let latencyMs: Latency
    /// The native library's own time for the last of them, at most 1024.
    public let nativeMs: Latency
    /// The runs by their time, shortest first.
    public let histogram: [Bin]
    /// Camera frames; nil if the model's first input is not an image, or none were requested.
    @OrNull public private(set) var frames: Frames?
    /// Memory of the model and of the process.
    public let memory: Memory
    /// Time of every step; empty if no profile was requested.
    public let steps: [Step]
    /// The parts of the measurement.
    public let moments: [Moment]
    /// The device of the measurement.
    public let device: Device

    /// The report as a JSON object.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self)
    }
}

extension Report {
    init(
        _ session: Session, load: Duration, first: Duration, runs: Statistics, native: Skipstone.Latency,
        frames: Frames?, moments: [Moment], steps: [StepTime]
    ) {
        let (model, memory) = (session.model.info, session.memory)
        self.model = model.name
        isa = model.isa
        threads = model.threads
        loadMs = load.inMilliseconds
        firstMs = first.inMilliseconds
        self.runs = runs.count
        latencyMs = runs.latency
        nativeMs = Latency(
            min: native.min.inMilliseconds, p50: native.p50.inMilliseconds, p90: native.p90.inMilliseconds,
            p99: native.p99.inMilliseconds, max: native.max.inMilliseconds, mean: native.mean.inMilliseconds)
        histogram = runs.histogram
        self.frames = frames
        self.memory = Memory(
            weightsBytes: memory.weightsBytes, packedBytes: memory.packedBytes, arenaBytes: memory.arenaBytes,
            peakRssBytes: memory.peakResidentBytes)
        self.steps = steps.map {
            Step(name: $0.name, op: $0.op, kernel: $0.kernel, ms: $0.time.inMilliseconds, share: $0.share)
        }
        self.moments = moments
        device = .current
    }
}

extension Report.Moment {
    init(atMs: Double, runs: Int, meanMs: Double, maxMs: Double, _ state: DeviceState) {
        self.atMs = atMs
        self.runs = runs
        self.meanMs = meanMs
        self.maxMs = maxMs
        memoryBytes = state.memoryBytes
        thermal = state.thermal
        battery = state.battery
        mhz = nil
    }
}

extension Report.Device {
    static var current: Self {
        var name = utsname()
        uname(&name)
        let machine = withUnsafeBytes(of: &name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let process = ProcessInfo.processInfo
        return Self(
            name: machine, system: process.operatingSystemVersionString, cores: process.activeProcessorCount)
    }
}

/// A value that is written as null if there is none, so that every report has the same keys.
@propertyWrapper
public struct OrNull<Value: Codable & Hashable & Sendable>: Codable, Hashable, Sendable {
    /// The value.
    public internal(set) var wrappedValue: Value?

    /// A wrapper of this value.
    public init(wrappedValue: Value?) { self.wrappedValue = wrappedValue }

    public init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        wrappedValue = value.decodeNil() ? nil : try value.decode(Value.self)
    }

    public func encode(to encoder: any Encoder) throws {
        var value = encoder.singleValueContainer()
        try value.encode(wrappedValue)
    }
}
