internal import SkipstoneBindings

/// Something that can keep planes of pixels in place during a call.
protocol PixelSource: Sendable {
    func withPlanes<Result>(_ body: ([UnsafeRawBufferPointer]) throws -> Result) throws -> Result
}

extension Frame {
    /// How to read the planes of a ``PixelSource``.
    enum Layout: Hashable, Sendable {
        case packed(Format, rowStride: Int)
        case biplanar(YUVFormat, ChromaOrder, lumaStride: Int, chromaStride: Int)
    }

    /// Calls `body` with the frame in the Rust library's form. Its addresses are valid until `body` returns.
    func withAddress<Result>(_ body: (FrameAddress) throws -> Result) throws -> Result {
        try pixels.withPlanes { planes in
            try body(
                FrameAddress(
                    format: layout.format, width: UInt32(clamping: width), height: UInt32(clamping: height),
                    planes: layout.addresses(of: planes), part: nil, rotationDegrees: Int32(rotation.rawValue),
                    mirrored: mirrored, crop: crop.map(SkipstoneBindings.Region.init),
                    matrix: matrix.binding, range: range == .full ? .full : .video))
        }
    }
}

extension Frame.YUVMatrix {
    fileprivate var binding: FrameMatrix {
        switch self {
        case .bt601: .bt601
        case .bt709: .bt709
        case .bt2020: .bt2020
        }
    }
}

extension Frame.Layout {
    fileprivate var format: FrameFormat {
        switch self {
        case .packed(.rgba, _): .rgba
        case .packed(.bgra, _): .bgra
        case .packed(.rgb, _): .rgb
        case .packed(.gray, _): .gray
        case .biplanar(.yuv420, _, _, _): .yuv420
        case .biplanar(.yuv422, _, _, _): .yuv422
        case .biplanar(.p010, _, _, _): .p010
        case .biplanar(.p210, _, _, _): .p210
        }
    }

    fileprivate func addresses(of planes: [UnsafeRawBufferPointer]) -> [PlaneAddress] {
        switch self {
        case .packed(let format, let stride):
            planes.map { PlaneAddress($0, rowStride: stride, pixelStride: format.bytesPerPixel) }
        case .biplanar(let format, let order, let lumaStride, let chromaStride):
            // Each chroma component is every other sample of the second plane.
            planes.prefix(1).map { PlaneAddress($0, rowStride: lumaStride, pixelStride: format.bytesPerSample) }
                + planes.dropFirst().flatMap { chroma in
                    let bytes = format.bytesPerSample
                    let first = PlaneAddress(chroma, rowStride: chromaStride, pixelStride: 2 * bytes)
                    let second = PlaneAddress(
                        UnsafeRawBufferPointer(rebasing: chroma.dropFirst(bytes)), rowStride: chromaStride,
                        pixelStride: 2 * bytes)
                    return order == .blueRed ? [first, second] : [second, first]
                }
        }
    }
}

extension PlaneAddress {
    fileprivate init(_ bytes: UnsafeRawBufferPointer, rowStride: Int, pixelStride: Int) {
        self.init(
            address: UInt64(UInt(bitPattern: bytes.baseAddress)), length: UInt64(bytes.count),
            rowStride: UInt32(clamping: rowStride), pixelStride: UInt32(clamping: pixelStride))
    }
}

extension SkipstoneBindings.Region {
    fileprivate init(_ region: Frame.Region) {
        self.init(
            x: UInt32(clamping: region.x), y: UInt32(clamping: region.y), width: UInt32(clamping: region.width),
            height: UInt32(clamping: region.height))
    }
}
