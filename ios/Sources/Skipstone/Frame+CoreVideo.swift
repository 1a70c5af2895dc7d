#if canImport(CoreVideo)
    import CoreVideo

    extension Frame {
        /// The image in a pixel buffer, such as a camera's or a video decoder's.
        ///
        /// The buffer is retained, and locked for reading while it is read. It must not be written to while the frame
        /// is in use. Matrix and range come from the buffer's attachments.
        ///
        /// - Throws: ``SkipstoneError`` of kind `unsupported`, code `frame.format`, for formats other than YUV in two planes
        ///   (420v, 420f, 422v, 422f, and of 10 bits x420, xf20, x422, xf22), BGRA, RGBA, 24-bit RGB and one component of 8
        ///   bits, and for matrices other than BT.601, BT.709 and BT.2020.
        public init(_ buffer: CVPixelBuffer) throws {
            let kind = CVPixelBufferGetPixelFormatType(buffer)
            let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
            if let format = yuvFormat(of: kind) {
                let layout = Layout.biplanar(
                    format, .blueRed, lumaStride: CVPixelBufferGetBytesPerRowOfPlane(buffer, 0),
                    chromaStride: CVPixelBufferGetBytesPerRowOfPlane(buffer, 1))
                self.init(width: width, height: height, layout: layout, pixels: PixelBuffer(buffer: buffer))
                range = isVideoRange(kind) ? .video : .full
                matrix = try yuvMatrix(of: CVBufferCopyAttachment(buffer, kCVImageBufferYCbCrMatrixKey, nil))
                return
            }
            let format: Format
            switch kind {
            case kCVPixelFormatType_32BGRA: format = .bgra
            case kCVPixelFormatType_32RGBA: format = .rgba
            case kCVPixelFormatType_24RGB: format = .rgb
            case kCVPixelFormatType_OneComponent8: format = .gray
            default:
                let format = fourCharacters(kind)
                throw SkipstoneError(
                    .unsupported, code: "frame.format", "pixel buffers of format \(format) are not supported")
            }
            self.init(
                width: width, height: height, layout: .packed(format, rowStride: CVPixelBufferGetBytesPerRow(buffer)),
                pixels: PixelBuffer(buffer: buffer))
        }
    }

    /// How the samples of a pixel format with two planes, luma and chroma, are stored; `nil` for other formats.
    private func yuvFormat(of kind: OSType) -> Frame.YUVFormat? {
        switch kind {
        case kCVPixelFormatType_420YpCbCr8BiPlanarFullRange, kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange: .yuv420
        case kCVPixelFormatType_422YpCbCr8BiPlanarFullRange, kCVPixelFormatType_422YpCbCr8BiPlanarVideoRange: .yuv422
        case kCVPixelFormatType_420YpCbCr10BiPlanarFullRange, kCVPixelFormatType_420YpCbCr10BiPlanarVideoRange: .p010
        case kCVPixelFormatType_422YpCbCr10BiPlanarFullRange, kCVPixelFormatType_422YpCbCr10BiPlanarVideoRange: .p210
        default: nil
        }
    }

    private func isVideoRange(_ kind: OSType) -> Bool {
        [
            kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange, kCVPixelFormatType_422YpCbCr8BiPlanarVideoRange,
            kCVPixelFormatType_420YpCbCr10BiPlanarVideoRange, kCVPixelFormatType_422YpCbCr10BiPlanarVideoRange,
        ].contains(kind)
    }

    /// The matrix that a buffer specifies; BT.601 if it specifies none.
    private func yuvMatrix(of attachment: CFTypeRef?) throws -> Frame.YUVMatrix {
        guard let name = attachment as? String else { return .bt601 }
        if name == kCVImageBufferYCbCrMatrix_ITU_R_601_4 as String { return .bt601 }
        if name == kCVImageBufferYCbCrMatrix_ITU_R_709_2 as String { return .bt709 }
        if name == kCVImageBufferYCbCrMatrix_ITU_R_2020 as String { return .bt2020 }
        throw SkipstoneError(
            .unsupported, code: "frame.format", "pixel buffers with the color matrix \(name) are not supported")
    }

    /// Core Video buffers may be retained and locked from any thread, but are not declared `Sendable`; the initializer
    /// requires that nothing writes to this one.
    private struct PixelBuffer: PixelSource, @unchecked Sendable {
        let buffer: CVPixelBuffer

        func withPlanes<Result>(_ body: ([UnsafeRawBufferPointer]) throws -> Result) throws -> Result {
            let locked = CVPixelBufferLockBaseAddress(buffer, .readOnly)
            guard locked == kCVReturnSuccess else {
                throw SkipstoneError(.frame, code: "frame", "the pixel buffer cannot be locked (\(locked))")
            }
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            guard CVPixelBufferIsPlanar(buffer) else {
                let count = CVPixelBufferGetBytesPerRow(buffer) * CVPixelBufferGetHeight(buffer)
                return try body([UnsafeRawBufferPointer(start: CVPixelBufferGetBaseAddress(buffer), count: count)])
            }
            return try body(
                (0..<CVPixelBufferGetPlaneCount(buffer)).map { plane in
                    UnsafeRawBufferPointer(
                        start: CVPixelBufferGetBaseAddressOfPlane(buffer, plane),
                        count: CVPixelBufferGetBytesPerRowOfPlane(buffer, plane)
                            * CVPixelBufferGetHeightOfPlane(buffer, plane))
                })
        }
    }

    private func fourCharacters(_ code: OSType) -> String {
        let bytes = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: code >> $0) }
        return bytes.allSatisfy { (32..<127).contains($0) } ? "'\(String(decoding: bytes, as: UTF8.self))'" : "\(code)"
    }
#endif
