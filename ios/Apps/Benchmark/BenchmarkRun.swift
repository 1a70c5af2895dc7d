import Skipstone
import SkipstoneBenchmark
import SwiftUI

/// A benchmark, running or finished.
@MainActor
final class BenchmarkRun: ObservableObject {
    @Published var length = Benchmark.Length.runs(1000)
    @Published var threads = 1
    /// The history that is drawn.
    @Published private(set) var moments: [Report.Moment] = []
    @Published private(set) var report: Report?
    /// The report as JSON, for sharing.
    @Published private(set) var file: URL?
    @Published private(set) var failure: String?
    @Published private var task: Task<Void, Never>?

    var isRunning: Bool { task != nil }

    func start() {
        (moments, report, file, failure) = ([], nil, nil, nil)
        // If the screen turned off, the system would suspend the app.
        UIApplication.shared.isIdleTimerDisabled = true
        task = Task {
            do { try await measure() } catch is CancellationError {} catch { failure = error.localizedDescription }
            UIApplication.shared.isIdleTimerDisabled = false
            task = nil
        }
    }

    func stop() { task?.cancel() }

    private func measure() async throws {
        guard let url = Bundle.main.url(forResource: "model", withExtension: "skip") else {
            throw CocoaError(.fileNoSuchFile)
        }
        let report = try await Benchmark(length: length).run(url, config: Config(threads: threads)) { moment in
            Task { @MainActor in
                self.moments.append(moment)
                // Half an hour of them.
                self.moments.removeFirst(max(0, self.moments.count - 360))
            }
        }
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(report.model).json")
        try report.json().write(to: file)
        (self.report, self.file) = (report, file)
    }
}
