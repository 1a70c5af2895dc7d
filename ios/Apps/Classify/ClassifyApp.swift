import Skipstone
import SwiftUI

/// Classifies what the camera sees.
@main
struct ClassifyApp: App {
    var body: some Scene {
        WindowGroup { CameraView() }
    }
}

struct CameraView: View {
    @StateObject private var viewfinder = Viewfinder()

    var body: some View {
        ZStack(alignment: .bottom) {
            if let camera = viewfinder.camera {
                CameraPreview(session: camera.session).ignoresSafeArea()
            }
            VStack(alignment: .leading, spacing: 8) {
                switch viewfinder.state {
                case .starting:
                    ProgressView()
                case .failed(let why):
                    Label(why, systemImage: "exclamationmark.triangle")
                case .seeing(let classification):
                    ForEach(classification.predictions) { PredictionRow(prediction: $0) }
                    let time = classification.preparation + classification.run
                    let unit = Duration.UnitsFormatStyle.units(
                        allowed: [.milliseconds], fractionalPart: .show(length: 1))
                    Text("\(time.formatted(unit)) per frame")
                        .font(.caption.monospacedDigit())
                        .foregroundStyle(.secondary)
                }
            }
            .frame(maxWidth: .infinity, alignment: .leading)
            .padding()
            .background(.regularMaterial, in: RoundedRectangle(cornerRadius: 16))
            .padding()
        }
        .task { await viewfinder.run() }
    }
}

struct PredictionRow: View {
    let prediction: Prediction

    var body: some View {
        HStack {
            Text(prediction.label)
            Spacer()
            Text(prediction.score, format: .percent.precision(.fractionLength(0))).monospacedDigit()
        }
        .font(.headline)
        .opacity(0.4 + 0.6 * Double(prediction.score))
    }
}
