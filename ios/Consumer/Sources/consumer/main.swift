import Foundation
import Skipstone

// consumer MODEL IMAGE LABEL: fails if the image, a binary PPM of 32x32 pixels, is not classified as LABEL.
let arguments = CommandLine.arguments
let classifier = try await Classifier(contentsOf: URL(fileURLWithPath: arguments[1]))
let image = try Data(contentsOf: URL(fileURLWithPath: arguments[2]))
let frame = Frame(image.suffix(32 * 32 * 3), format: .rgb, width: 32, height: 32)
let seen = try await classifier.classify(frame, top: 1).predictions[0]
print("\(seen.label) \(seen.score)")
exit(seen.label == arguments[3] ? 0 : 1)
