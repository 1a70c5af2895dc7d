import Foundation
import Skipstone
import Testing

/// The files written by `tests/devices/swift_fixtures.py`.
enum Fixtures {
    static let folder = URL(fileURLWithPath: #filePath).appendingPathComponent("../../../../build/swift/fixtures")
        .standardizedFileURL
    static let package = folder.appendingPathComponent("simplenet.skip")
    /// The same with weights packed for this machine's kernels.
    static let mapped = folder.appendingPathComponent("mapped.skip")
    /// A model with settings and state: see `tests/devices/variables.py`.
    static let variables = folder.appendingPathComponent("variables.skip")
    static let signed = folder.appendingPathComponent("signed.skip")
    static let publicKey = try! Data(contentsOf: folder.appendingPathComponent("key.public"))

    /// The ONNX file of both packages.
    static let onnx = folder.appendingPathComponent("../../../models/pretrained/simplenet-310k-cifar10.onnx")
        .standardizedFileURL

    /// The keys of a benchmark's report.
    static let report = folder.appendingPathComponent("../../../bindings/report.txt").standardizedFileURL

    /// The answers of the `skipstone` command for the samples.
    static let answers: [Answer] = {
        let decoder = JSONDecoder()
        return try! decoder.decode([Answer].self, from: Data(contentsOf: folder.appendingPathComponent("answers.json")))
    }()

    static var cat: Image { answers.first { $0.image == "cat_0" }!.pixels }
}

/// All classes of a sample with their scores, best first.
struct Answer: Decodable, Sendable, CustomTestStringConvertible {
    struct Class: Decodable, Sendable {
        let label: String
        let score: Float
    }

    let image: String
    let top: [Class]

    var testDescription: String { image }

    /// The sample's true class: its name up to the number.
    var truth: String { String(image.prefix { $0 != "_" }) }

    var pixels: Image { try! Image(ppm: Data(contentsOf: Fixtures.folder.appendingPathComponent("\(image).ppm"))) }

    /// Whether `predictions` are these, up to the rounding of a different order of additions.
    func agrees(with predictions: [Prediction]) -> Bool {
        predictions.count == top.count
            && predictions.allSatisfy { prediction in
                top.contains { $0.label == prediction.label && abs($0.score - prediction.score) < 1e-3 }
            }
            && predictions.first?.label == top.first?.label
    }
}

/// Red, green and blue of every pixel, in row-major order: the plain image that frames are made from.
struct Image: Equatable {
    let width: Int
    let height: Int
    var rgb: [UInt8]

    init(width: Int, height: Int, _ pixel: (_ x: Int, _ y: Int) -> [UInt8]) {
        self.width = width
        self.height = height
        rgb = (0..<height).flatMap { y in (0..<width).flatMap { x in pixel(x, y) } }
    }

    /// A binary PPM without comments.
    init(ppm: Data) {
        let header = ppm.split(separator: UInt8(ascii: "\n"), maxSplits: 3).prefix(3)
        let size = String(decoding: header[1], as: UTF8.self).split(separator: " ").map { Int($0)! }
        width = size[0]
        height = size[1]
        rgb = Array(ppm.suffix(width * height * 3))
    }

    subscript(x: Int, y: Int) -> [UInt8] { Array(rgb[(y * width + x) * 3..<(y * width + x) * 3 + 3]) }

    var frame: Frame { Frame(rgb, format: .rgb, width: width, height: height) }

    /// Rotated counterclockwise by a quarter: it must be rotated clockwise to be upright again.
    var turned: Image { Image(width: height, height: width) { x, y in self[width - 1 - y, x] } }

    /// Rotated clockwise by a quarter.
    var turnedClockwise: Image { Image(width: height, height: width) { x, y in self[y, height - 1 - x] } }

    /// Left and right swapped.
    var flipped: Image { Image(width: width, height: height) { x, y in self[width - 1 - x, y] } }
}
