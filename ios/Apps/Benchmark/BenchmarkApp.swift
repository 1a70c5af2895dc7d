import SkipstoneBenchmark
import SwiftUI

/// Measures model.skip on this device: once, or long enough for the device to get warm.
@main
struct BenchmarkApp: App {
    var body: some Scene {
        WindowGroup {
            NavigationStack { BenchmarkView() }
        }
    }
}

struct BenchmarkView: View {
    @StateObject private var run = BenchmarkRun()

    var body: some View {
        List {
            Section {
                Picker("Length", selection: $run.length) {
                    Text("1000 runs").tag(Benchmark.Length.runs(1000))
                    Text("1 minute").tag(Benchmark.Length.time(.seconds(60)))
                    Text("30 minutes").tag(Benchmark.Length.time(.seconds(1800)))
                }
                Stepper("Threads: \(run.threads)", value: $run.threads, in: 1...8)
                if run.isRunning {
                    Button("Stop", role: .destructive) { run.stop() }
                } else {
                    Button("Start") { run.start() }
                }
            } footer: {
                Text(run.failure ?? "")
            }
            if let moment = run.moments.last {
                MomentSection(moment: moment, moments: run.moments)
            }
            if let report = run.report { ReportSections(report: report) }
        }
        .navigationTitle("Benchmark")
        .toolbar {
            if let file = run.file { ShareLink(item: file) }
        }
    }
}
