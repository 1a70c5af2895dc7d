import Foundation

/// A picture as a camera or a decoder delivers it, and how to look at it.
///
/// A frame refers to its pixels and copies none of them: the classifier turns, crops, resizes
/// and normalizes in one pass over the planes. Pixels come from a `CVPixelBuffer`, a `CGImage`
/// or a `UIImage`, or as bytes in whatever holds them (`Data`, `[UInt8]`):
///
/// ```swift
/// var frame = Frame(bytes, format: .bgra, width: 640, height: 480)
/// frame.rotation = .quarter          // the camera lies on its side
/// ```
///
/// Nothing is checked before the run, which throws ``SkipstoneError`` of kind `frame` where a
/// plane is too short for the size stated.
public struct Frame: Sendable {
    /// How the pixels of one plane are laid out.
    public enum Format: Hashable, Sendable, CaseIterable {
        /// Red, green, blue and a fourth byte that is not looked at.
        case rgba
        /// Blue, green, red and a fourth byte that is not looked at.
        case bgra
        /// Red, green and blue.
        case rgb
        /// One byte a pixel.
        case gray

        var bytesPerPixel: Int {
            switch self {
            case .rgba, .bgra: 4
            case .rgb: 3
            case .gray: 1
            }
        }
    }

    /// How two bytes of color follow a plane of brightness in a frame of half the resolution in color.
    public enum ChromaOrder: Hashable, Sendable {
        /// Blue before red: NV12, what iPhones deliver.
        case blueRed
        /// Red before blue: NV21.
        case redBlue
    }

    /// The clockwise turn that brings the picture upright.
    public enum Rotation: Int, Hashable, Sendable, CaseIterable {
        /// It is upright.
        case none = 0
        /// A quarter turn.
        case quarter = 90
        /// Upside down.
        case half = 180
        /// A quarter turn the other way.
        case threeQuarters = 270
    }

    /// Which matrix made YUV of the colors.
    public enum YUVMatrix: Hashable, Sendable {
        /// Standard definition, JPEG and most cameras.
        case bt601
        /// High definition.
        case bt709
        /// Ultra-high definition and HDR.
        case bt2020
    }

    /// Which values YUV takes.
    public enum YUVRange: Hashable, Sendable {
        /// 0 to 255.
        case full
        /// 16 to 235 (brightness) and 16 to 240 (color).
        case video
    }

    /// A rectangle in pixels, counted from the upper left corner of the picture as ``rotation`` and
    /// ``mirrored`` show it.
    public struct Region: Hashable, Sendable {
        /// Pixels left of it.
        public var x: Int
        /// Rows above it.
        public var y: Int
        /// Pixels across.
        public var width: Int
        /// Rows.
        public var height: Int

        /// The rectangle of this corner and size.
        public init(x: Int, y: Int, width: Int, height: Int) {
            self.x = x
            self.y = y
            self.width = width
            self.height = height
        }
    }

    /// Pixels in a row, as stored.
    public let width: Int
    /// Rows, as stored.
    public let height: Int
    /// The turn that brings the picture upright.
    public var rotation = Rotation.none
    /// Whether left and right are swapped, after the rotation.
    public var mirrored = false
    /// The part to look at, in pixels of the picture as ``rotation`` and ``mirrored`` show it, whichever was
    /// set first; `nil` is all of it.
    public var crop: Region?
    /// Which matrix made YUV of the colors; of no meaning for other formats.
    public var matrix = YUVMatrix.bt601
    /// Which values YUV takes; of no meaning for other formats.
    public var range = YUVRange.full

    let layout: Layout
    let pixels: any PixelSource

    init(width: Int, height: Int, layout: Layout, pixels: any PixelSource) {
        self.width = width
        self.height = height
        self.layout = layout
        self.pixels = pixels
    }

    /// A frame of one plane.
    ///
    /// - Parameters:
    ///   - bytes: The rows from top to bottom, held as long as the frame is.
    ///   - format: Order of the bytes of a pixel.
    ///   - width: Pixels in a row.
    ///   - height: Number of rows.
    ///   - bytesPerRow: From the start of one row to that of the next; `nil` where rows follow without a gap.
    public init(
        _ bytes: some ContiguousBytes & Sendable, format: Format, width: Int, height: Int, bytesPerRow: Int? = nil
    ) {
        let stride = bytesPerRow ?? width.multipliedReportingOverflow(by: format.bytesPerPixel).partialValue
        self.init(
            width: width, height: height, layout: .packed(format, rowStride: stride), pixels: Bytes(planes: [bytes]))
    }

    /// A YUV 4:2:0 frame of two planes: one of brightness, and one of half its width and height
    /// whose pixels are two bytes of color.
    ///
    /// - Parameters:
    ///   - luma: The rows of brightness, held as long as the frame is.
    ///   - chroma: The rows of color, held as long as the frame is.
    ///   - order: Which of the two bytes of color comes first.
    ///   - width: Pixels in a row of brightness.
    ///   - height: Number of rows of brightness.
    ///   - lumaBytesPerRow: From one row of brightness to the next; `nil` where they follow without a gap.
    ///   - chromaBytesPerRow: From one row of color to the next; `nil` where they follow without a gap.
    public init(
        luma: some ContiguousBytes & Sendable, chroma: some ContiguousBytes & Sendable, order: ChromaOrder = .blueRed,
        width: Int, height: Int, lumaBytesPerRow: Int? = nil, chromaBytesPerRow: Int? = nil
    ) {
        let layout = Layout.biplanar(
            order, lumaStride: lumaBytesPerRow ?? width, chromaStride: chromaBytesPerRow ?? width &+ (width & 1))
        self.init(width: width, height: height, layout: layout, pixels: Bytes(planes: [luma, chroma]))
    }

    /// Sets ``rotation`` and ``mirrored`` from an Exif orientation, 1 to 8; others leave the frame as it is.
    public mutating func orient(exif orientation: Int) {
        let (turn, flip): (Rotation, Bool)
        switch orientation {
        case 1: (turn, flip) = (.none, false)
        case 2: (turn, flip) = (.none, true)
        case 3: (turn, flip) = (.half, false)
        case 4: (turn, flip) = (.half, true)
        case 5: (turn, flip) = (.quarter, true)
        case 6: (turn, flip) = (.quarter, false)
        case 7: (turn, flip) = (.threeQuarters, true)
        case 8: (turn, flip) = (.threeQuarters, false)
        default: return
        }
        rotation = turn
        mirrored = flip
    }
}

/// Planes in whatever holds bytes.
private struct Bytes: PixelSource {
    let planes: [any ContiguousBytes & Sendable]

    func withPlanes<Result>(_ body: ([UnsafeRawBufferPointer]) throws -> Result) throws -> Result {
        try Self.withPlanes(planes[...], after: [], body)
    }

    private static func withPlanes<Result>(
        _ rest: ArraySlice<any ContiguousBytes & Sendable>, after open: [UnsafeRawBufferPointer],
        _ body: ([UnsafeRawBufferPointer]) throws -> Result
    ) throws -> Result {
        guard let next = rest.first else { return try body(open) }
        return try next.withUnsafeBytes { try withPlanes(rest.dropFirst(), after: open + [$0], body) }
    }
}
