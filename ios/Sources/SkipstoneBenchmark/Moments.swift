import Foundation
import Skipstone

#if os(iOS)
    import UIKit
#endif

/// What a device reports at one moment.
struct DeviceState: Sendable {
    /// Memory of the app, in bytes: on Apple's systems its footprint.
    var memoryBytes: Int?
    /// `nominal`, `fair`, `serious` or `critical`; nil if the system does not report it.
    var thermal: String?
    /// Charge of the battery, 0 to 1; nil if the system does not report it.
    var battery: Double?

    static func now(_ memory: Memory) async -> Self {
        Self(memoryBytes: memory.residentBytes, thermal: currentThermalState(), battery: await charge())
    }
}

/// The parts of a benchmark, a bounded number of them: where there would be more, every two become one.
struct Moments {
    private let interval: Duration
    private let limit: Int
    private(set) var all: [Report.Moment] = []
    private var step = 1
    private var ended = Duration.zero
    private var runs = 0
    private var sum = Duration.zero
    private var most = Duration.zero

    init(every interval: Duration, limit: Int = 600) {
        self.interval = interval
        self.limit = limit
    }

    mutating func add(_ time: Duration) {
        runs += 1
        sum += time
        most = max(most, time)
    }

    /// Whether the current part is over, `passed` after the start: every ``Benchmark/interval`` at first.
    func isDue(_ passed: Duration) -> Bool { passed - ended >= interval * step }

    /// Ends the current part, in which there was a run.
    mutating func end(_ passed: Duration, _ state: DeviceState) -> Report.Moment {
        let moment = Report.Moment(
            atMs: passed.inMilliseconds, runs: runs, meanMs: sum.inMilliseconds / Double(runs),
            maxMs: most.inMilliseconds, state)
        all.append(moment)
        (ended, runs, sum, most) = (passed, 0, .zero, .zero)
        if all.count > limit { halve() }
        return moment
    }

    private mutating func halve() {
        all = stride(from: 0, to: all.count, by: 2).map { at in
            at + 1 < all.count ? all[at].joined(with: all[at + 1]) : all[at]
        }
        step *= 2
    }
}

extension Report.Moment {
    /// This part and the next one, as one.
    fileprivate func joined(with next: Self) -> Self {
        let count = runs + next.runs
        return Self(
            atMs: next.atMs, runs: count,
            meanMs: (Double(runs) * meanMs + Double(next.runs) * next.meanMs) / Double(count),
            maxMs: max(maxMs, next.maxMs),
            DeviceState(memoryBytes: next.memoryBytes, thermal: next.thermal, battery: next.battery))
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

private func charge() async -> Double? {
    #if os(iOS)
        await MainActor.run {
            UIDevice.current.isBatteryMonitoringEnabled = true
            // Negative if it is not known, as in the simulator.
            let level = UIDevice.current.batteryLevel
            return level < 0 ? nil : Double(level)
        }
    #else
        nil
    #endif
}
