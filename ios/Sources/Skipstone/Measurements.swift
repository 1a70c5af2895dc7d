internal import SkipstoneBindings

#if canImport(Darwin)
    import Darwin
#endif

/// How long the latest runs took, at most 1024 of them.
public struct Latency: Hashable, Sendable {
    /// Runs that succeeded since the classifier or session was made, all of them.
    public let runs: Int
    /// The fastest.
    public let minimum: Duration
    /// Half of the runs were at most this slow.
    public let median: Duration
    /// Nine runs in ten were at most this slow.
    public let p90: Duration
    /// 99 runs in 100 were at most this slow.
    public let p99: Duration
    /// The slowest.
    public let maximum: Duration
    /// The arithmetic mean.
    public let mean: Duration
}

/// Memory of a model, and of the process that it is in.
public struct Memory: Hashable, Sendable {
    /// Weights as the package stores them: mapped, and resident only where a run has touched them.
    public let weightBytes: Int
    /// Weights in the kernels' own form.
    public let packedBytes: Int
    /// All tensors between inputs and outputs, of one classifier or session.
    public let arenaBytes: Int
    /// What the process takes now; `nil` where the system does not say. On Apple platforms the
    /// footprint, which is what the system's limit for an app counts; elsewhere resident memory.
    public let residentBytes: Int?
    /// The most that the process ever took; `nil` where the system does not say.
    public let peakResidentBytes: Int?
}

/// What one step of a model takes of a run.
public struct StepTime: Hashable, Sendable {
    /// Name of the step, from the node of the model.
    public let name: String
    /// Its operator, such as `Conv`.
    public let op: String
    /// The kernel that computes it, such as `pointwise_f32_8x8_neon`.
    public let kernel: String
    /// Time of the step in one run, on average.
    public let time: Duration
    /// Its part of the whole run, 0 to 1.
    public let share: Double
}

extension Latency {
    init(_ latency: SkipstoneBindings.Latency) {
        runs = Int(clamping: latency.runs)
        minimum = .milliseconds(latency.min)
        median = .milliseconds(latency.p50)
        p90 = .milliseconds(latency.p90)
        p99 = .milliseconds(latency.p99)
        maximum = .milliseconds(latency.max)
        mean = .milliseconds(latency.mean)
    }
}

extension Memory {
    init(_ memory: SkipstoneBindings.Memory) {
        weightBytes = Int(clamping: memory.weightsBytes)
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
    /// As a fraction of milliseconds, the unit of the Rust library.
    var inMilliseconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) * 1e3 + Double(attoseconds) * 1e-15
    }
}

#if canImport(Darwin)
    /// Asked for once: every call adds a reference.
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
