internal import SkipstoneBindings

#if canImport(Darwin)
    import Darwin
#endif

/// Latency of the latest runs, at most 1024.
public struct Latency: Hashable, Sendable {
    /// The count of all runs that succeeded since the classifier or session was made.
    public let runs: Int
    /// The fastest.
    public let min: Duration
    /// The median.
    public let p50: Duration
    /// The 90th percentile.
    public let p90: Duration
    /// The 99th percentile.
    public let p99: Duration
    /// The slowest.
    public let max: Duration
    /// The arithmetic mean.
    public let mean: Duration
}

/// Memory of a model, and of its process.
public struct Memory: Hashable, Sendable {
    /// Weights as the package stores them: mapped, and resident only where a run has touched them.
    public let weightsBytes: Int
    /// Weights packed for the kernels.
    public let packedBytes: Int
    /// All tensors between inputs and outputs, of one classifier or session.
    public let arenaBytes: Int
    /// Memory of the process now; `nil` if the system does not report it. On Apple platforms this is the footprint,
    /// which counts towards the app's limit; elsewhere resident memory.
    public let residentBytes: Int?
    /// Peak memory of the process; `nil` if the system does not report it.
    public let peakResidentBytes: Int?
}

/// The time of one step of a model.
public struct StepTime: Hashable, Sendable {
    /// Name of the step, from the model's node.
    public let name: String
    /// Its operator, such as `Conv`.
    public let op: String
    /// The kernel that computes it, such as `pointwise_f32_8x8_neon`.
    public let kernel: String
    /// Average time of the step per run.
    public let time: Duration
    /// Its fraction of the whole run, 0 to 1.
    public let share: Double
}

extension Latency {
    init(_ latency: SkipstoneBindings.Latency) {
        runs = Int(clamping: latency.runs)
        min = .milliseconds(latency.min)
        p50 = .milliseconds(latency.p50)
        p90 = .milliseconds(latency.p90)
        p99 = .milliseconds(latency.p99)
        max = .milliseconds(latency.max)
        mean = .milliseconds(latency.mean)
    }
}

extension Memory {
    init(_ memory: SkipstoneBindings.Memory) {
        weightsBytes = Int(clamping: memory.weightsBytes)
        packedBytes = Int(clamping: memory.packedBytes)
        arenaBytes = Int(clamping: memory.arenaBytes)
        #if canImport(Darwin)
            let taken = footprint()
            residentBytes = taken?.now
            peakResidentBytes = taken?.peak
        #else
            residentBytes = memory.residentBytes.map { Int(clamping: $0) }
            peakResidentBytes = memory.peakResidentBytes.map { Int(clamping: $0) }
        #endif
    }
}

extension StepTime {
    init(_ step: SkipstoneBindings.StepTime) {
        name = step.name
        op = step.op
        kernel = step.kernel
        time = .milliseconds(step.ms)
        share = step.share
    }
}

extension Duration {
    /// In milliseconds, the unit of the Rust library.
    var inMilliseconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) * 1e3 + Double(attoseconds) * 1e-15
    }
}

#if canImport(Darwin)
    /// Read once, because every call adds a reference.
    private let thisTask = task_self_trap()

    private func footprint() -> (now: Int, peak: Int)? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
        let status = withUnsafeMutablePointer(to: &info) { info in
            info.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(thisTask, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        guard status == KERN_SUCCESS else { return nil }
        return (Int(clamping: info.phys_footprint), Int(clamping: info.ledger_phys_footprint_peak))
    }
#endif
