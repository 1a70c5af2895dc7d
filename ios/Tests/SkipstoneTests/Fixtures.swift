import Foundation
import Skipstone
import Testing

/// What `tests/devices/swift_fixtures.py` wrote.
enum Fixtures {
    static let folder = URL(fileURLWithPath: #filePath).appendingPathComponent("../../../../build/swift/fixtures")
        .standardizedFileURL
    static let package = folder.appendingPathComponent("simplenet.skip")
    /// The same with weights as this machine's kernels read them.
    static let mapped = folder.appendingPathComponent("mapped.skip")
    static let signed = folder.appendingPathComponent("signed.skip")
    static let publicKey = try! Data(contentsOf: folder.appendingPathComponent("key.public"))

    /// What they were made of.
    static let onnx = folder.appendingPathComponent("../../../models/pretrained/simplenet-310k-cifar10.onnx")
        .standardizedFileURL

    /// What the `skipstone` command says of the samples.
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

    /// What the sample shows: its name up to the number.
    var truth: String { String(image.prefix { $0 != "_" }) }

    var pixels: Image { try! Image(ppm: Data(contentsOf: Fixtures.folder.appendingPathComponent("\(image).ppm"))) }

    /// Whether `predictions` are these, within what the order of additions may change.
    func agrees(with predictions: [Prediction]) -> Bool {
        predictions.count == top.count
            && predictions.allSatisfy { prediction in
                top.contains { $0.label == prediction.label && abs($0.score - prediction.score) < 1e-3 }
            }
            && predictions.first?.label == top.first?.label
    }
}

/// Red, green and blue of every pixel, row after row: the plain picture that frames are made of.
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

    /// Turned a quarter anticlockwise: what has to be turned clockwise to be upright again.
    var turned: Image { Image(width: height, height: width) { x, y in self[width - 1 - y, x] } }

    /// Turned a quarter clockwise.
    var turnedClockwise: Image { Image(width: height, height: width) { x, y in self[y, height - 1 - x] } }

    /// Left and right swapped.
    var flipped: Image { Image(width: width, height: height) { x, y in self[width - 1 - x, y] } }
}
