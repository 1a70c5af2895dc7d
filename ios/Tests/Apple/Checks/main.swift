import AVFoundation
import AppKit
import ImageIO
import Skipstone
import UIKit

// Frames of Apple's types give the answers of the same pixels as plain bytes. Arguments: a package, and a picture (PPM).

let file = try Data(contentsOf: URL(fileURLWithPath: CommandLine.arguments[2]))
let size = String(decoding: file.split(separator: 10, maxSplits: 3)[1], as: UTF8.self).split(separator: " ")
let (width, height) = (Int(size[0])!, Int(size[1])!)
let rgb = [UInt8](file.suffix(width * height * 3))
let classifier = try await Classifier(contentsOf: URL(fileURLWithPath: CommandLine.arguments[1]))

func scores(_ frame: Frame) async throws -> [Float] {
    try await classifier.classify(frame, top: 10).predictions.sorted { $0.index < $1.index }.map(\.score)
}

/// Stops the program if the frames do not give the same scores.
func expect(_ frame: Frame, _ like: Frame, _ what: String) async throws {
    let (got, want) = try await (scores(frame), scores(like))
    guard got == want else { fatalError("\(what): \(got) instead of \(want)") }
}

func refused(_ what: String, _ kind: SkipstoneError.Kind, _ body: () throws -> Frame) {
    do {
        _ = try body()
        fatalError("\(what) was not refused")
    } catch let error as SkipstoneError {
        guard error.kind == kind else { fatalError("\(what): \(error)") }
    } catch {
        fatalError("\(what): \(error)")
    }
}

/// Four bytes per pixel: these channels and an ignored byte.
func pixels(_ channels: [Int]) -> [UInt8] {
    var bytes: [UInt8] = []
    for pixel in 0..<width * height {
        for channel in channels { bytes.append(rgb[pixel * 3 + channel]) }
        bytes.append(7)
    }
    return bytes
}

let plain = Frame(rgb, format: .rgb, width: width, height: height)
let rgbx = pixels([0, 1, 2])
let bgrx = pixels([2, 1, 0])

// Core Video, one plane.
for (kind, bytes, pixel) in [
    (kCVPixelFormatType_32RGBA, rgbx, 4), (kCVPixelFormatType_32BGRA, bgrx, 4), (kCVPixelFormatType_24RGB, rgb, 3),
] {
    let buffer = CVBuffer(kind, width: width, height: height, matrix: nil, planes: [(bytes, width * pixel)])
    try await expect(Frame(buffer), plain, "pixel buffer of \(pixel) bytes")
    guard buffer.locks == 0 else { fatalError("the pixel buffer stays locked") }
}

// Core Video, luma and chroma: every format, range and matrix against the same planes as bytes.
func noise(_ count: Int, _ bits: Int) -> [UInt8] {
    var state: UInt32 = 9
    var bytes: [UInt8] = []
    for _ in 0..<count {
        state = state &* 1_664_525 &+ 1_013_904_223
        // The lower two bits of ten are the upper ones of the lower byte.
        if bits == 10 { bytes.append(UInt8(state >> 16 & 0xc0)) }
        bytes.append(UInt8(state >> 24))
    }
    return bytes
}
let biplanar: [(OSType, Frame.YUVFormat, Frame.YUVRange, Int, Int)] = [
    (kCVPixelFormatType_420YpCbCr8BiPlanarFullRange, .yuv420, .full, 8, 2),
    (kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange, .yuv420, .video, 8, 2),
    (kCVPixelFormatType_422YpCbCr8BiPlanarFullRange, .yuv422, .full, 8, 1),
    (kCVPixelFormatType_422YpCbCr8BiPlanarVideoRange, .yuv422, .video, 8, 1),
    (kCVPixelFormatType_420YpCbCr10BiPlanarFullRange, .p010, .full, 10, 2),
    (kCVPixelFormatType_420YpCbCr10BiPlanarVideoRange, .p010, .video, 10, 2),
    (kCVPixelFormatType_422YpCbCr10BiPlanarFullRange, .p210, .full, 10, 1),
    (kCVPixelFormatType_422YpCbCr10BiPlanarVideoRange, .p210, .video, 10, 1),
]
let matrices: [(CFString?, Frame.YUVMatrix)] = [
    (nil, .bt601), (kCVImageBufferYCbCrMatrix_ITU_R_601_4, .bt601), (kCVImageBufferYCbCrMatrix_ITU_R_709_2, .bt709),
    (kCVImageBufferYCbCrMatrix_ITU_R_2020, .bt2020),
]
for (kind, format, range, bits, rows) in biplanar {
    let luma = noise(44 * 46, bits)
    let chroma = noise(44 * 46 / rows, bits)
    let perRow = 44 * (bits == 8 ? 1 : 2)
    for (name, matrix) in matrices {
        let buffer = CVBuffer(
            kind, width: 43, height: 45, matrix: name, planes: [(luma, perRow), (chroma, perRow)])
        var same = Frame(
            luma: luma, chroma: chroma, format: format, width: 43, height: 45, lumaBytesPerRow: perRow,
            chromaBytesPerRow: perRow)
        (same.matrix, same.range) = (matrix, range)
        try await expect(Frame(buffer), same, "\(format) \(range) \(matrix)")
        guard buffer.locks == 0 else { fatalError("the pixel buffer stays locked") }
    }
    refused("a matrix that nothing reads", .unsupported) {
        try Frame(CVBuffer(kind, width: 2, height: 2, matrix: "SMPTE_240M_1995", planes: [(luma, 4), (chroma, 4)]))
    }
}
refused("a format that nothing reads", .unsupported) {
    try Frame(CVBuffer(0x3432_3000, width: 2, height: 2, matrix: nil, planes: [(rgb, 8)]))
}

// Core Media: the time is that of the sample.
let buffer = CVBuffer(
    kCVPixelFormatType_32BGRA, width: width, height: height, matrix: nil, planes: [(bgrx, width * 4)])
let sample = { (time: CMTime) in CMSampleBuffer(image: buffer, time: time) }
for (time, want) in [
    (CMTime(value: 7, timescale: 1), 7_000_000_000), (CMTime(value: 1, timescale: 3), 333_333_333),
    (CMTime(value: 5, timescale: 1_000_000_000), 5), (CMTime(value: 0, timescale: 1, isNumeric: false), nil),
] as [(CMTime, Int64?)] {
    let result = try await classifier.classify(Frame(sample(time)))
    guard result.timestampNs == want else { fatalError("\(String(describing: result.timestampNs))") }
}
refused("a sample without an image", .frame) {
    try Frame(CMSampleBuffer(image: nil, time: CMTime(value: 0, timescale: 1)))
}

// The camera: frames with their times, rotated as the device is held.
AVCaptureSession.samples = [
    CMSampleBuffer(image: nil, time: CMTime(value: 0, timescale: 1)), sample(CMTime(value: 3, timescale: 1)),
]
for (held, rotation) in [(UIDeviceOrientation.portrait, Frame.Rotation.quarter), (.landscapeLeft, .none)] {
    UIDevice.current.orientation = held
    let camera = try await Camera()
    for try await frame in camera.frames() {
        guard frame.rotation == rotation, frame.timestampNs == 3_000_000_000 else { fatalError("\(frame)") }
        break
    }
}
do {
    AVCaptureSession.samples = []
    let camera = try await Camera(rotation: .half)
    let frames = camera.frames()
    NotificationCenter.default.post(
        name: Notification.Name("AVCaptureSessionRuntimeErrorNotification"), object: camera.session)
    for try await _ in frames {}
    fatalError("a camera that failed goes on")
} catch Camera.Failure.stopped {}

// Images.
let image = CGImage(width: width, height: height, rgbx: rgbx)
try await expect(Frame(image), plain, "CGImage")
try await expect(Frame(NSImage(image)), plain, "NSImage")
let orientations: [(UIImage.Orientation, Int)] = [
    (.up, 1), (.upMirrored, 2), (.down, 3), (.downMirrored, 4), (.leftMirrored, 5), (.right, 6), (.rightMirrored, 7),
    (.left, 8),
]
for (orientation, exif) in orientations {
    var turned = plain
    turned.orient(exif: exif)
    try await expect(Frame(UIImage(image, orientation: orientation)), turned, "UIImage \(orientation)")
}
refused("a UIImage without pixels", .unsupported) { try Frame(UIImage(nil, orientation: .up)) }
refused("an NSImage without pixels", .unsupported) { try Frame(NSImage(nil)) }

// Photos: decoded with the requested shorter side, or as they are.
let photo = Data([UInt8(width), UInt8(height)] + rgb)
try await expect(Frame(photo: photo, leastSide: classifier.info.photoSide), plain, "photo")
let wide = Data([90, 41] + noise(90 * 41 * 3, 8))
for (side, want) in [(41, (90, 41)), (500, (90, 41)), (20, (44, 20)), (1, (3, 1))] {
    let frame = try Frame(photo: wide, leastSide: side)
    guard (frame.width, frame.height) == want else { fatalError("\(side): \(frame.width)x\(frame.height)") }
}
refused("a photo that is none", .frame) { try Frame(photo: Data([1, 2, 3]), leastSide: 32) }
refused("a photo without a side", .input) { try Frame(photo: photo, leastSide: 0) }
refused("a photo that does not exist", .io) {
    try Frame(photo: URL(fileURLWithPath: "/nowhere.jpg"), leastSide: 32)
}
print("frames of Core Video, Core Media, ImageIO, UIKit and AppKit: as their pixels")
