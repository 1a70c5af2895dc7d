import Foundation
import Skipstone
import Testing

@testable import SkipstoneBenchmark

@Suite struct BenchmarkTests {
    @Test func aReportHasTheKeysOfTheCommand() async throws {
        let report = try await Benchmark(length: .runs(30), profiled: 5).run(Fixtures.package)
        #expect(report.runs == 30)
        #expect(report.seconds.map(\.runs).reduce(0, +) == 30)
        let json = try #require(JSONSerialization.jsonObject(with: report.json()) as? [String: Any])
        let keys = ["model", "isa", "threads", "load_ms", "first_ms", "runs", "latency_ms", "memory", "steps"]
        #expect(Set(json.keys).isSuperset(of: keys))
        let latency = try #require(json["latency_ms"] as? [String: Double])
        #expect(Set(latency.keys) == ["min", "p50", "p90", "p99", "max", "mean"])
        let memory = try #require(json["memory"] as? [String: Any])
        #expect(Set(memory.keys).isSuperset(of: ["weights_bytes", "packed_bytes", "arena_bytes"]))
        let step = try #require((json["steps"] as? [[String: Any]])?.first)
        #expect(Set(step.keys) == ["name", "op", "kernel", "ms", "share"])
    }

    @Test func aBenchmarkMayBeGivenATime() async throws {
        let seconds = Counter()
        let report = try await Benchmark(length: .time(.milliseconds(1100)), warmup: 0, profiled: 0)
            .run(Fixtures.package) { _ in seconds.increment() }
        #expect(report.runs > 0)
        #expect(report.steps.isEmpty)
        #expect(report.seconds.count == seconds.value)
        #expect(report.seconds.map(\.runs).reduce(0, +) == report.runs)
    }

    @Test func aBenchmarkIsCancelled() async throws {
        let (seconds, passed) = AsyncStream.makeStream(of: Report.Second.self)
        let task = Task {
            try await Benchmark(length: .time(.seconds(1_000_000)), warmup: 0, profiled: 0)
                .run(Fixtures.package) { passed.yield($0) }
        }
        for await _ in seconds { break }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test func percentilesAreThoseOfTheSortedTimes() {
        var random = SystemRandomNumberGenerator()
        for count in [1, 2, 10, 999, 5000] {
            var statistics = Statistics()
            var times: [Double] = []
            for _ in 0..<count {
                let ms = pow(10, Double.random(in: -2...3, using: &random))
                times.append(ms)
                statistics.add(.milliseconds(ms))
            }
            times.sort()
            let latency = statistics.latency
            #expect(abs(latency.min - times[0]) < 1e-9 && abs(latency.max - times[count - 1]) < 1e-9)
            for (share, got) in [(0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99)] {
                let want = times[Int((share * Double(count - 1)).rounded())]
                #expect(abs(got - want) <= want * 0.0051, "\(share) of \(count): \(got), not \(want)")
            }
        }
        #expect(Statistics().latency.max == 0)
        var extremes = Statistics()
        for time in [Duration.zero, .seconds(1_000_000)] { extremes.add(time) }
        #expect(extremes.latency.max == 1e9)
    }

    /// Only printed for the log: the overhead of Swift, the task switch and the boundary per run.
    @Test func overheadOfACall() async throws {
        let classifier = try await Classifier(contentsOf: Fixtures.package, config: Config(threads: 1))
        let frame = Fixtures.cat.frame
        let clock = ContinuousClock()
        var overheads: [Duration] = []
        var runs: [Duration] = []
        for _ in 0..<2000 {
            let began = clock.now
            let result = try await classifier.classify(frame, top: 5)
            overheads.append(began.duration(to: clock.now) - result.run - result.preparation)
            runs.append(result.run + result.preparation)
        }
        print("overhead of a call: \(overheads.sorted()[1000]), beside \(runs.sorted()[1000]) in Rust")
    }
}

private final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var count = 0

    func increment() { lock.withLock { count += 1 } }
    var value: Int { lock.withLock { count } }
}
