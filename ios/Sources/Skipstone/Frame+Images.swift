#if canImport(CoreGraphics)
    import CoreGraphics

    extension Frame {
        /// A decoded image: a screenshot, or one that the app has drawn. Its pixels are drawn once, in sRGB. For photos,
        /// ``init(photo:leastSide:)-(URL,_)`` takes less time and memory.
        ///
        /// - Throws: ``SkipstoneError`` of kind `frame` if the image cannot be drawn.
        public init(_ image: CGImage) throws {
            let (width, height) = (image.width, image.height)
            let (bytesPerRow, tooWide) = width.multipliedReportingOverflow(by: 4)
            let (count, tooLarge) = bytesPerRow.multipliedReportingOverflow(by: height)
            guard !tooWide, !tooLarge, let colors = CGColorSpace(name: CGColorSpace.sRGB) else {
                throw SkipstoneError(.frame, code: "frame", "an image of \(width)x\(height) pixels cannot be drawn")
            }
            var pixels = [UInt8](repeating: 0, count: count)
            let drawn = pixels.withUnsafeMutableBytes { bytes in
                let context = CGContext(
                    data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8,
                    bytesPerRow: bytesPerRow, space: colors, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
                context?.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
                return context != nil
            }
            guard drawn else {
                throw SkipstoneError(.frame, code: "frame", "an image of \(width)x\(height) pixels cannot be drawn")
            }
            self.init(pixels, format: .rgba, width: width, height: height)
        }
    }
#endif

#if canImport(UIKit)
    import UIKit

    extension Frame {
        /// An image from the photo library or an image view, rotated as it is displayed.
        ///
        /// - Throws: ``SkipstoneError`` of kind `unsupported` for an image without pixels, `frame` if it cannot be
        ///   drawn.
        public init(_ image: UIImage) throws {
            guard let pixels = image.cgImage else {
                throw SkipstoneError(.unsupported, code: "frame.format", "the image has no pixels (no CGImage)")
            }
            try self.init(pixels)
            let exif =
                switch image.imageOrientation {
                case .up: 1
                case .upMirrored: 2
                case .down: 3
                case .downMirrored: 4
                case .leftMirrored: 5
                case .right: 6
                case .rightMirrored: 7
                case .left: 8
                @unknown default: 1
                }
            orient(exif: exif)
        }
    }
#endif

#if canImport(AppKit) && !targetEnvironment(macCatalyst)
    import AppKit

    extension Frame {
        /// An image of a Mac, in its largest size.
        ///
        /// - Throws: ``SkipstoneError`` of kind `unsupported` for an image without pixels, `frame` if it cannot be drawn.
        public init(_ image: NSImage) throws {
            guard let pixels = image.cgImage(forProposedRect: nil, context: nil, hints: nil) else {
                throw SkipstoneError(.unsupported, code: "frame.format", "the image has no pixels (no CGImage)")
            }
            try self.init(pixels)
        }
    }
#endif
