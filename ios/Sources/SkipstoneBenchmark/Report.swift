import Foundation
import Skipstone

/// The result of a ``Benchmark``. Its JSON shares its keys with `skipstone bench --json`.
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
        public let peakRssBytes: Int?
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

    /// The runs of one second.
    public struct Second: Codable, Hashable, Sendable {
        /// Seconds from the start to the end of this one.
        public let at: Double
        /// Runs in it.
        public let runs: Int
        /// Their latency.
        public let latencyMs: Latency
        /// Memory of the process.
        public let residentBytes: Int?
        /// `nominal`, `fair`, `serious` or `critical`; absent if the system does not report it.
        public let thermalState: String?
    }

    /// The device of the measurement.
    public struct Device: Codable, Hashable, Sendable {
        /// The system's name and version.
        public let system: String
        /// The manufacturer's model name, such as `iPhone15,2`.
        public let machine: String
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
    /// Their latency.
    public let latencyMs: Latency
    /// Memory of the model and of the process.
    public let memory: Memory
    /// Time of every step; empty if no profile was requested.
    public let steps: [Step]
    /// Every second of the measurement.
    public let seconds: [Second]
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
        _ model: ModelInfo, load: Duration, first: Duration, latency: Latency, runs: Int, memory: Skipstone.Memory,
        steps: [StepTime], seconds: [Second]
    ) {
        self.model = model.name
        isa = model.isa
        threads = model.threads
        loadMs = load.inMilliseconds
        firstMs = first.inMilliseconds
        self.runs = runs
        latencyMs = latency
        self.memory = Memory(
            weightsBytes: memory.weightBytes, packedBytes: memory.packedBytes, arenaBytes: memory.arenaBytes,
            peakRssBytes: memory.peakResidentBytes)
        self.steps = steps.map {
            Step(name: $0.name, op: $0.op, kernel: $0.kernel, ms: $0.time.inMilliseconds, share: $0.share)
        }
        self.seconds = seconds
        device = .current
    }
}

extension Report.Second {
    init(at passed: Duration, _ latency: Report.Latency, runs: Int, _ memory: Skipstone.Memory) {
        at = passed.inMilliseconds / 1e3
        self.runs = runs
        latencyMs = latency
        residentBytes = memory.residentBytes
        thermalState = currentThermalState()
    }
}

extension Report.Device {
    static var current: Self {
        var name = utsname()
        uname(&name)
        let machine = withUnsafeBytes(of: &name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let process = ProcessInfo.processInfo
        return Self(
            system: process.operatingSystemVersionString, machine: machine, cores: process.activeProcessorCount)
    }
}

private func currentThermalState() -> String? {
    #if canImport(Darwin)
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: "nominal"
        case .fair: "fair"
        case .serious: "serious"
        case .critical: "critical"
        @unknown default: nil
        }
    #else
        nil
    #endif
}
