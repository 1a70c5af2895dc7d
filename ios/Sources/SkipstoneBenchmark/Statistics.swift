import Foundation

/// Percentiles of any number of times in a fixed amount of memory: an hour of runs must not grow the measured
/// footprint.
///
/// Times are counted in bins 1 % wide, from a microsecond to a hundred seconds, so a percentile is accurate to half a
/// percent. Minimum, maximum and mean are exact. The benchmark for Android has the same bins.
struct Statistics {
    private static let width = 1.01
    private static let shortest = 1e-3  // milliseconds
    private var bins = [UInt32](repeating: 0, count: 1852)
    private var minimum = Double.infinity
    private var maximum = 0.0
    private var sum = 0.0
    private(set) var count = 0

    mutating func add(_ time: Duration) {
        let ms = time.inMilliseconds
        let bin = log(max(ms, Self.shortest) / Self.shortest) / log(Self.width)
        bins[min(Int(bin), bins.count - 1)] += 1
        minimum = min(minimum, ms)
        maximum = max(maximum, ms)
        sum += ms
        count += 1
    }

    /// All zero if there were no runs.
    var latency: Report.Latency {
        guard count > 0 else { return .init(min: 0, p50: 0, p90: 0, p99: 0, max: 0, mean: 0) }
        return .init(
            min: minimum, p50: percentile(0.5), p90: percentile(0.9), p99: percentile(0.99), max: maximum,
            mean: sum / Double(count))
    }

    /// The bins that are not empty, shortest first.
    var histogram: [Report.Bin] {
        bins.enumerated().filter { $0.element > 0 }.map { bin, runs in
            Report.Bin(fromMs: Self.shortest * pow(Self.width, Double(bin)), runs: Int(runs))
        }
    }

    private func percentile(_ share: Double) -> Double {
        let rank = Int((share * Double(count - 1)).rounded())
        var below = 0
        for (bin, runs) in bins.enumerated() {
            below += Int(runs)
            if below > rank {
                return min(max(Self.shortest * pow(Self.width, Double(bin) + 0.5), minimum), maximum)
            }
        }
        return maximum
    }
}

extension Duration {
    var inMilliseconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) * 1e3 + Double(attoseconds) * 1e-15
    }
}
