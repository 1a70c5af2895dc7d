import Skipstone
import Testing

/// The same image, in every storage format, gives the same answer.
@Suite struct FrameTests {
    let classifier: Classifier
    /// An image of odd size, so that it is cropped and resized.
    let picture = Image(width: 61, height: 47) { x, y in
        [UInt8(x * 4), UInt8(y * 5), UInt8((x * x + 7 * y) & 255)]
    }

    init() async throws { classifier = try await Classifier(contentsOf: Fixtures.package) }

    func scores(_ frame: Frame) async throws -> [Float] {
        try await classifier.classify(frame, top: 10).predictions.sorted { $0.index < $1.index }.map(\.score)
    }

    /// A rotated frame is summed down before across, hence the tolerance of 1e-4.
    func expect(
        _ frame: Frame, toBeLike image: Image, within tolerance: Float = 0, _ comment: Comment? = nil
    ) async throws {
        let (got, want) = try await (scores(frame), scores(image.frame))
        let difference = zip(got, want).map { abs($0 - $1) }.max() ?? .infinity
        #expect(difference <= tolerance, comment)
    }

    @Test func colorsMayComeInAnyOrder() async throws {
        let (width, height) = (picture.width, picture.height)
        let pixels = (0..<width * height).map { picture[$0 % width, $0 / width] }
        let bgra: [UInt8] = pixels.flatMap { [$0[2], $0[1], $0[0], 99] }
        let rgba: [UInt8] = pixels.flatMap { [$0[0], $0[1], $0[2], 99] }
        try await expect(Frame(bgra, format: .bgra, width: width, height: height), toBeLike: picture)
        try await expect(Frame(rgba, format: .rgba, width: width, height: height), toBeLike: picture)
    }

    @Test func rowsMayHaveGaps() async throws {
        let (row, gap) = (picture.width * 3, [UInt8](repeating: 77, count: 13))
        let padded = (0..<picture.height).flatMap { picture.rgb[$0 * row..<($0 + 1) * row] + gap }
        // The last row needs no gap after it.
        for bytes in [padded, Array(padded.dropLast(gap.count))] {
            let (width, height) = (picture.width, picture.height)
            let frame = Frame(bytes, format: .rgb, width: width, height: height, bytesPerRow: row + gap.count)
            try await expect(frame, toBeLike: picture)
        }
    }

    @Test(arguments: [(61, 47), (64, 48), (32, 32), (33, 32), (32, 33)])
    func grayGivesTheSameScoresInEveryFormat(width: Int, height: Int) async throws {
        let gray = Image(width: width, height: height) { x, y in
            Array(repeating: UInt8((x * 3 + y * y) & 255), count: 3)
        }
        let luma = stride(from: 0, to: gray.rgb.count, by: 3).map { gray.rgb[$0] }
        let chroma = [UInt8](repeating: 128, count: (width + 1) / 2 * 2 * ((height + 1) / 2))
        try await expect(Frame(luma, format: .gray, width: width, height: height), toBeLike: gray, within: 1e-4)
        for order in [Frame.ChromaOrder.blueRed, .redBlue] {
            let yuv = Frame(luma: luma, chroma: chroma, order: order, width: width, height: height)
            try await expect(yuv, toBeLike: gray, within: 1e-3)
        }
    }

    @Test(arguments: [Frame.YUVMatrix.bt601, .bt709, .bt2020], [Frame.YUVRange.full, .video])
    func colorsOfYUV(matrix: Frame.YUVMatrix, range: Frame.YUVRange) async throws {
        // Squares of four pixels of one color, so that subsampling the chroma loses nothing.
        let image = Image(width: 32, height: 32) { x, y in [UInt8(x / 2 * 14 + 20), UInt8(y / 2 * 12 + 30), 128] }
        let (red, blue) =
            switch matrix {
            case .bt601: (0.299, 0.114)
            case .bt709: (0.2126, 0.0722)
            case .bt2020: (0.2627, 0.0593)
            }
        // Codes of some bits, by the equations of ITU-T H.273.
        func yuv(_ rgb: [UInt8], bits: Int) -> (y: Int, u: Int, v: Int) {
            let (r, g, b) = (Double(rgb[0]) / 255, Double(rgb[1]) / 255, Double(rgb[2]) / 255)
            let y = red * r + (1 - red - blue) * g + blue * b
            let (u, v) = ((b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red))
            let unit = Double(1 << (bits - 8))
            let (black, luma, chroma) =
                range == .full ? (0, 256 * unit - 1, 256 * unit - 1) : (16 * unit, 219 * unit, 224 * unit)
            let code = { (value: Double) in Int(value.rounded()) }
            return (code(y * luma + black), code(u * chroma + 128 * unit), code(v * chroma + 128 * unit))
        }
        for format in Frame.YUVFormat.allCases {
            let bits = [.p010, .p210].contains(format) ? 10 : 8
            let rows = [.yuv422, .p210].contains(format) ? 1 : 2
            // 10 bits are the upper ones of two bytes, the lower byte first.
            let bytes = { (code: Int) in
                bits == 8 ? [UInt8(code)] : [UInt8(code << 6 & 255), UInt8(code >> 2)]
            }
            let luma = (0..<32 * 32).flatMap { bytes(yuv(image[$0 % 32, $0 / 32], bits: bits).y) }
            let corners = (0..<16 * 32 / rows).map { yuv(image[$0 % 16 * 2, $0 / 16 * rows], bits: bits) }
            for order in [Frame.ChromaOrder.blueRed, .redBlue] {
                let chroma = corners.flatMap {
                    order == .blueRed ? bytes($0.u) + bytes($0.v) : bytes($0.v) + bytes($0.u)
                }
                var frame = Frame(
                    luma: luma, chroma: chroma, format: format, order: order, width: 32, height: 32)
                frame.matrix = matrix
                frame.range = range
                // Rounding to bytes moves a color by up to two of 255, and to 10 bits by a fourth of that.
                try await expect(frame, toBeLike: image, within: bits == 8 ? 0.05 : 0.0125, "\(format) \(order)")
            }
        }
    }

    @Test func aResultHasTheTimeOfItsFrame() async throws {
        var frame = picture.frame
        #expect(try await classifier.classify(frame).timestampNs == nil)
        frame.timestampNs = 7_000_000_123
        frame.rotation = .quarter
        #expect(try await classifier.classify(frame).timestampNs == 7_000_000_123)
    }

    @Test(arguments: Array(1...8))
    func exifOrientationsAreUndone(orientation: Int) async throws {
        // What a camera with that orientation has stored, by the definition of the Exif tag.
        let once = picture.turned
        let stored =
            switch orientation {
            case 2: picture.flipped
            case 3: once.turned
            case 4: picture.flipped.turned.turned
            case 5: picture.flipped.turned
            case 6: once
            case 7: picture.flipped.turned.turned.turned
            case 8: once.turned.turned
            default: picture
            }
        var frame = stored.frame
        frame.orient(exif: orientation)
        try await expect(frame, toBeLike: picture, within: 1e-4, "\(frame.rotation) \(frame.mirrored)")
    }

    @Test func orientationsThatDoNotExistChangeNothing() {
        for orientation in [0, 9, -1, .max] {
            var frame = picture.frame
            frame.rotation = .half
            frame.orient(exif: orientation)
            #expect(frame.rotation == .half)
        }
    }

    @Test func aCropIsThePartOnItsOwn() async throws {
        let part = Image(width: 40, height: 37) { x, y in picture[x + 9, y + 5] }
        var frame = picture.frame
        frame.crop = .init(x: 9, y: 5, width: 40, height: 37)
        try await expect(frame, toBeLike: part, within: 1e-4)
        // In upright coordinates, however the image is stored.
        frame = picture.turned.frame
        frame.rotation = .quarter
        frame.crop = .init(x: 9, y: 5, width: 40, height: 37)
        try await expect(frame, toBeLike: part, within: 1e-4)
    }

    /// Rotation, mirroring and crop are applied in their fixed order, whichever was set first: bit-equal to a plain
    /// loop over the stored image. The crop has the size of the input, so nothing is resampled.
    @Test(arguments: Frame.Rotation.allCases, [false, true])
    func rotationsMirrorsAndCropsAgreeWithAPlainLoop(rotation: Frame.Rotation, mirrored: Bool) async throws {
        let turns = rotation.rawValue / 90
        let upright = (0..<turns).reduce(picture) { picture, _ in picture.turnedClockwise }
        let seen = mirrored ? upright.flipped : upright
        for (x, y) in [(0, 0), (3, 11), (seen.width - 32, 2), (5, seen.height - 32)] {
            let part = Image(width: 32, height: 32) { seen[x + $0, y + $1] }
            let crop = Frame.Region(x: x, y: y, width: 32, height: 32)
            let settings: [(inout Frame) -> Void] = [
                { $0.rotation = rotation }, { $0.mirrored = mirrored }, { $0.crop = crop },
            ]
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                var frame = picture.frame
                for index in order { settings[index](&frame) }
                try await expect(frame, toBeLike: part, "\(rotation) \(mirrored) \(x),\(y) \(order)")
            }
        }
    }

    @Test func framesThatContradictThemselvesAreRefused() async throws {
        let bytes = [UInt8](repeating: 9, count: 64 * 48 * 3)
        var outside = Frame(bytes, format: .rgb, width: 64, height: 48)
        outside.crop = .init(x: 40, y: 0, width: 25, height: 10)
        var negative = Frame(bytes, format: .rgb, width: 64, height: 48)
        negative.crop = .init(x: 0, y: 0, width: -1, height: 0)
        let wrong: [Frame] = [
            Frame(bytes, format: .rgb, width: 64, height: 49),
            Frame(bytes, format: .rgba, width: 64, height: 48),
            Frame(bytes, format: .rgb, width: 64, height: 48, bytesPerRow: 191),
            Frame(bytes, format: .rgb, width: 64, height: 48, bytesPerRow: .max),
            Frame(bytes, format: .rgb, width: 64, height: 48, bytesPerRow: -192),
            Frame(bytes, format: .rgb, width: 0, height: 48),
            Frame(bytes, format: .rgb, width: 64, height: 0),
            Frame(bytes, format: .rgb, width: -64, height: 48),
            Frame(bytes, format: .rgb, width: .max, height: .max),
            Frame(bytes, format: .gray, width: .max, height: 1),
            Frame(luma: bytes, chroma: bytes, width: .max, height: 2),
            Frame(luma: bytes, chroma: bytes, format: .p010, width: .max, height: 2),
            Frame(luma: bytes, chroma: bytes, format: .p010, width: 64, height: 48, lumaBytesPerRow: 64),
            Frame(
                luma: bytes, chroma: [UInt8](repeating: 0, count: 64 * 48 - 2), format: .yuv422, width: 64, height: 48),
            Frame(luma: bytes, chroma: [UInt8](repeating: 0, count: 64 * 24 - 2), width: 64, height: 48),
            Frame(luma: bytes, chroma: bytes, width: 64, height: 48, lumaBytesPerRow: 63),
            Frame(luma: bytes, chroma: bytes, width: 64, height: 48, chromaBytesPerRow: 62),
            outside, negative,
        ]
        for (index, frame) in wrong.enumerated() {
            await expectError(.frame, of: "frame \(index)") { _ = try await classifier.classify(frame) }
        }
        // Empty bytes may have no address.
        let nothing = [UInt8]()
        let empty = [
            Frame(nothing, format: .rgb, width: 64, height: 48),
            Frame(luma: nothing, chroma: nothing, width: 2, height: 2),
        ]
        for frame in empty {
            await expectError(.frame, .input) { _ = try await classifier.classify(frame) }
        }
        _ = try await classifier.classify(picture.frame)
    }
}
