import Charts
import SkipstoneBenchmark
import SwiftUI

/// The last second, and the history of all seconds.
struct SecondSection: View {
    let second: Report.Second
    let seconds: [Report.Second]

    var body: some View {
        Section("Now") {
            Chart(seconds, id: \.at) {
                LineMark(x: .value("Seconds", $0.at), y: .value("Median, ms", $0.latencyMs.p50))
            }
            .frame(height: 120)
            LabeledContent("Median", value: milliseconds(second.latencyMs.p50))
            LabeledContent("Temperature", value: second.thermalState ?? "unknown")
            LabeledContent("Memory", value: megabytes(second.residentBytes))
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
