import Foundation

/// An image as a camera or a decoder delivers it, and how to look at it.
///
/// A frame refers to its pixels and does not copy them: the classifier rotates, crops, resizes and normalizes in one
/// pass over the planes. Pixels come from a `CMSampleBuffer`, a `CVPixelBuffer`, a photo's file, a `CGImage`, a `UIImage`
/// or an `NSImage`, or as bytes in any container (`Data`, `[UInt8]`):
///
/// ```swift
/// var frame = Frame(bytes, format: .bgra, width: 640, height: 480)
/// frame.rotation = .quarter          // the camera is mounted sideways
/// ```
///
/// A frame is rotated and then mirrored, whichever was set first; a crop is in pixels of the image as both show it.
///
/// Nothing is checked before the run, which throws ``SkipstoneError`` of kind `frame` if a plane is too short for its
/// size.
public struct Frame: Sendable {
    /// The layout of pixels in one plane.
    public enum Format: Hashable, Sendable, CaseIterable {
        /// Red, green, blue and an ignored byte.
        case rgba
        /// Blue, green, red and an ignored byte.
        case bgra
        /// Red, green and blue.
        case rgb
        /// One byte per pixel.
        case gray

        var bytesPerPixel: Int {
            switch self {
            case .rgba, .bgra: 4
            case .rgb: 3
            case .gray: 1
            }
        }
    }

    /// How the samples of a YUV frame are stored.
    public enum YUVFormat: Hashable, Sendable, CaseIterable {
        /// One byte per sample; chroma for blocks of 2x2 pixels (4:2:0).
        case yuv420
        /// One byte per sample; chroma for pairs of pixels of a row (4:2:2).
        case yuv422
        /// Like `yuv420` with 10 bits per sample: the upper ones of two bytes, the lower byte first. Core Video's `x420`.
        case p010
        /// Like `yuv422` with 10 bits per sample, stored as in `p010`. Core Video's `x422`.
        case p210

        var bytesPerSample: Int { self == .p010 || self == .p210 ? 2 : 1 }
    }

    /// The order of the two chroma samples in the interleaved plane that follows the luma plane.
    public enum ChromaOrder: Hashable, Sendable {
        /// Blue first: NV12, what iPhones deliver.
        case blueRed
        /// Red first: NV21.
        case redBlue
    }

    /// The clockwise rotation that brings the image upright.
    public enum Rotation: Int, Hashable, Sendable, CaseIterable {
        /// Already upright.
        case none = 0
        /// A quarter turn.
        case quarter = 90
        /// Upside down.
        case half = 180
        /// A quarter turn counterclockwise.
        case threeQuarters = 270
    }

    /// The matrix that converted colors to YUV.
    public enum YUVMatrix: Hashable, Sendable {
        /// Standard definition, JPEG and most cameras.
        case bt601
        /// High definition.
        case bt709
        /// Ultra-high definition and HDR.
        case bt2020
    }

    /// The range of YUV values.
    public enum YUVRange: Hashable, Sendable {
        /// 0 to 255, or to 1023 of 10 bits.
        case full
        /// 16 to 235 (luma) and 16 to 240 (chroma); of 10 bits, four times that.
        case video
    }

    /// A rectangle in pixels, measured from the upper left corner of the image as ``rotation`` and ``mirrored`` show
    /// it.
    public struct Region: Hashable, Sendable {
        /// Pixels left of it.
        public var x: Int
        /// Rows above it.
        public var y: Int
        /// Pixels across.
        public var width: Int
        /// Rows.
        public var height: Int

        /// The rectangle with this corner and size.
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
    /// The rotation that brings the image upright.
    public var rotation = Rotation.none
    /// Whether left and right are swapped, after the rotation.
    public var mirrored = false
    /// The region to classify, in pixels of the image as ``rotation`` and ``mirrored`` show it, whichever was set
    /// first; `nil` is all of it.
    public var crop: Region?
    /// The matrix that converted colors to YUV; ignored for other formats.
    public var matrix = YUVMatrix.bt601
    /// The range of YUV values; ignored for other formats.
    public var range = YUVRange.full
    /// When the camera captured it, in nanoseconds of the camera's clock; `nil` if unknown. The result of a run has the same
    /// value (``Classification/timestampNs``), so that it can be matched with its frame.
    public var timestampNs: Int64?

    let layout: Layout
    let pixels: any PixelSource

    init(width: Int, height: Int, layout: Layout, pixels: any PixelSource) {
        self.width = width
        self.height = height
        self.layout = layout
        self.pixels = pixels
    }

    /// A frame with one plane.
    ///
    /// - Parameters:
    /// - bytes: The rows from top to bottom, kept as long as the frame.
    /// - format: Order of the bytes of a pixel.
    ///   - width: Pixels in a row.
    ///   - height: Number of rows.
    /// - bytesPerRow: From the start of one row to the next; `nil` if rows follow without a gap.
    public init(
        _ bytes: some ContiguousBytes & Sendable, format: Format, width: Int, height: Int, bytesPerRow: Int? = nil
    ) {
        let stride = bytesPerRow ?? width.multipliedReportingOverflow(by: format.bytesPerPixel).partialValue
        self.init(
            width: width, height: height, layout: .packed(format, rowStride: stride), pixels: Bytes(planes: [bytes]))
    }

    /// A YUV frame with two planes: luma, and chroma with half the width, for 4:2:0 also half the height, and two samples
    /// per pixel. ``matrix`` and ``range`` say which colors they are; those of HDR, HLG and PQ, are used as they are encoded.
    ///
    /// - Parameters:
    /// - luma: The rows of luma, kept as long as the frame.
    /// - chroma: The rows of chroma, kept as long as the frame.
    /// - format: How the samples are stored.
    /// - order: Which of the two chroma samples comes first.
    /// - width: Pixels in a row of luma.
    /// - height: Number of rows of luma.
    /// - lumaBytesPerRow: From one row of luma to the next; `nil` if they follow without a gap.
    /// - chromaBytesPerRow: From one row of chroma to the next; `nil` if they follow without a gap.
    public init(
        luma: some ContiguousBytes & Sendable, chroma: some ContiguousBytes & Sendable, format: YUVFormat = .yuv420,
        order: ChromaOrder = .blueRed, width: Int, height: Int, lumaBytesPerRow: Int? = nil,
        chromaBytesPerRow: Int? = nil
    ) {
        let bytes = format.bytesPerSample
        let layout = Layout.biplanar(
            format, order, lumaStride: lumaBytesPerRow ?? width &* bytes,
            chromaStride: chromaBytesPerRow ?? (width &+ (width & 1)) &* bytes)
        self.init(width: width, height: height, layout: layout, pixels: Bytes(planes: [luma, chroma]))
    }

    /// Sets ``rotation`` and ``mirrored`` from an Exif orientation, 1 to 8; other values change nothing.
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

/// Planes in any container of bytes.
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
