import Skipstone
import SwiftUI

/// The camera, the classifier, and the latest result.
@MainActor
final class Viewfinder: ObservableObject {
    enum State {
        case starting
        case seeing(Classification)
        case failed(String)
    }

    @Published private(set) var state = State.starting
    @Published private(set) var camera: Camera?

    /// Classifies frames until the task is cancelled, which SwiftUI does when the view disappears.
    func run() async {
        do {
            guard let url = Bundle.main.url(forResource: "model", withExtension: "skip") else {
                state = .failed("The app has no model.skip; see the README.")
                return
            }
            let classifier = try await Classifier(contentsOf: url)
            let camera = try await Camera()
            self.camera = camera
            for try await frame in camera.frames() {
                state = .seeing(try await classifier.classify(frame, top: 3))
            }
        } catch is CancellationError {
        } catch Camera.Failure.denied {
            state = .failed("Allow the camera in Settings.")
        } catch {
            state = .failed(error.localizedDescription)
        }
    }
}
