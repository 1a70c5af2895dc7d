import Foundation
import Skipstone
import Testing

@testable import SkipstoneBenchmark

@Suite struct BenchmarkTests {
    @Test func aReportHasTheKeysOfTheList() async throws {
        let report = try await Benchmark(length: .runs(30), extra: 5).run(Fixtures.package)
        #expect(report.runs == 30)
        #expect(report.moments.map(\.runs).reduce(0, +) == 30)
        #expect(report.histogram.map(\.runs).reduce(0, +) == 30)
        #expect(report.frames?.runs == 5)
        #expect(report.nativeMs.p50 > 0)
        let json = try JSONSerialization.jsonObject(with: report.json())
        let list = try String(contentsOf: Fixtures.report, encoding: .utf8)
        #expect(Set(paths(json)) == Set(list.split(separator: "\n").map(String.init)))
    }

    /// The paths of all values, without the indices of arrays.
    private func paths(_ value: Any, at path: String = "") -> [String] {
        if let object = value as? [String: Any] {
            return object.flatMap { key, value in paths(value, at: path.isEmpty ? key : "\(path).\(key)") }
        }
        if let list = value as? [[String: Any]], !list.isEmpty { return list.flatMap { paths($0, at: path + "[]") } }
        return [path]
    }

    @Test func aBenchmarkMayBeGivenATime() async throws {
        let moments = Counter()
        let report = try await Benchmark(
            length: .time(.milliseconds(500)), warmup: 0, extra: 0, interval: .milliseconds(100)
        )
        .run(Fixtures.package) { _ in moments.increment() }
        #expect(report.runs > 0)
        #expect(report.steps.isEmpty && report.frames == nil)
        #expect(report.moments.count == moments.value)
        #expect(report.moments.map(\.runs).reduce(0, +) == report.runs)
    }

    @Test func aBenchmarkIsCancelled() async throws {
        let (moments, passed) = AsyncStream.makeStream(of: Report.Moment.self)
        let task = Task {
            try await Benchmark(length: .time(.seconds(1_000_000)), warmup: 0, extra: 0, interval: .milliseconds(10))
                .run(Fixtures.package) { passed.yield($0) }
        }
        for await _ in moments { break }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test func momentsAreBoundedAndLoseNoRun() {
        var moments = Moments(every: .seconds(1), limit: 4)
        var recorded = 0
        for run in 1...1000 {
            moments.add(.milliseconds(run))
            guard moments.isDue(.seconds(run)) else { continue }
            _ = moments.end(.seconds(run), DeviceState(memoryBytes: run))
            recorded = run
        }
        #expect((2...4).contains(moments.all.count))
        #expect(moments.all.map(\.runs).reduce(0, +) == recorded)
        let sum = moments.all.map { Double($0.runs) * $0.meanMs }.reduce(0, +)
        #expect(abs(sum - Double(recorded * (recorded + 1) / 2)) < 1e-3)
        #expect(abs((moments.all.last?.maxMs ?? 0) - Double(recorded)) < 1e-6)
        #expect(moments.all.allSatisfy { $0.memoryBytes.map { Double($0) * 1e3 } == $0.atMs })
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
