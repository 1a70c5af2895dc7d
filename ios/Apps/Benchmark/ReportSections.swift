import Charts
import SkipstoneBenchmark
import SwiftUI

/// The last moment, and the history.
struct MomentSection: View {
    let moment: Report.Moment
    let moments: [Report.Moment]

    var body: some View {
        Section("Now") {
            Chart(moments, id: \.atMs) {
                LineMark(x: .value("Seconds", $0.atMs / 1e3), y: .value("Mean, ms", $0.meanMs))
            }
            .frame(height: 120)
            LabeledContent("Mean", value: milliseconds(moment.meanMs))
            LabeledContent("Temperature", value: moment.thermal ?? "unknown")
            LabeledContent("Memory", value: megabytes(moment.memoryBytes))
        }
    }
}

struct ReportSections: View {
    let report: Report

    var body: some View {
        Section("Latency of \(report.runs) runs") {
            LabeledContent("Fastest", value: milliseconds(report.latencyMs.min))
            LabeledContent("Median", value: milliseconds(report.latencyMs.p50))
            LabeledContent("90 %", value: milliseconds(report.latencyMs.p90))
            LabeledContent("99 %", value: milliseconds(report.latencyMs.p99))
            LabeledContent("Slowest", value: milliseconds(report.latencyMs.max))
            LabeledContent("Median in the native library", value: milliseconds(report.nativeMs.p50))
            if let frames = report.frames {
                LabeledContent("Median of camera frames", value: milliseconds(frames.latencyMs.p50))
            }
            LabeledContent("Loading", value: milliseconds(report.loadMs))
            LabeledContent("First run", value: milliseconds(report.firstMs))
        }
        Section("Memory") {
            LabeledContent("Weights", value: megabytes(report.memory.weightsBytes))
            LabeledContent("Packed", value: megabytes(report.memory.packedBytes))
            LabeledContent("Arena", value: megabytes(report.memory.arenaBytes))
            LabeledContent("App, peak", value: megabytes(report.memory.peakRssBytes))
        }
        Section("Slowest steps (\(report.isa))") {
            ForEach(report.steps.sorted { $0.ms > $1.ms }.prefix(20), id: \.name) { step in
                LabeledContent {
                    Text(milliseconds(step.ms))
                } label: {
                    Text(step.name).lineLimit(1)
                    Text(step.kernel).font(.caption).foregroundStyle(.secondary)
                }
            }
        }
    }
}

private func milliseconds(_ ms: Double) -> String {
    ms.formatted(.number.precision(.significantDigits(3))) + " ms"
}

private func megabytes(_ bytes: Int?) -> String {
    bytes.map { Int64($0).formatted(.byteCount(style: .memory)) } ?? "unknown"
}
