#if canImport(ImageIO)
    import Foundation
    import ImageIO

    extension Frame {
        /// The photo in a file, upright as its Exif orientation says, decoded no larger than the model needs.
        ///
        /// The decoder of a JPEG or HEIC skips what a smaller image does not need: a photo of 50 megapixels takes a fraction
        /// of the time and of the 200 MB. Reads the file on the calling thread.
        ///
        /// - Parameters:
        ///   - url: A file.
        ///   - leastSide: What the model needs: ``ClassifierInfo/photoSide``. The shorter side becomes this long, or stays
        ///     as it is if it is shorter.
        /// - Throws: ``SkipstoneError`` of kind `io` if it cannot be read, `frame` if it cannot be decoded (code
        ///   `frame.photo`).
        public init(photo url: URL, leastSide: Int) throws {
            let data: Data
            do {
                data = try Data(contentsOf: url, options: .mappedIfSafe)
            } catch {
                throw SkipstoneError(.io, code: "io", "the photo cannot be read: \(error.localizedDescription)")
            }
            try self.init(photo: data, leastSide: leastSide)
        }

        /// The same for a photo's file in memory.
        ///
        /// - Throws: ``SkipstoneError`` of kind `frame`, code `frame.photo`, if it cannot be decoded; `input` for a side of
        ///   less than a pixel.
        public init(photo data: Data, leastSide: Int) throws {
            guard leastSide >= 1 else {
                throw SkipstoneError(.input, code: "input.size", "a photo cannot have a side of \(leastSide) pixels")
            }
            guard let source = CGImageSourceCreateWithData(data as CFData, nil),
                let longest = longestSide(of: source, leastSide: leastSide),
                let image = CGImageSourceCreateThumbnailAtIndex(
                    source, CGImageSourceGetPrimaryImageIndex(source),
                    [
                        kCGImageSourceCreateThumbnailFromImageAlways: true,
                        kCGImageSourceCreateThumbnailWithTransform: true,
                        kCGImageSourceThumbnailMaxPixelSize: longest,
                    ] as [CFString: Any] as CFDictionary)
            else {
                throw SkipstoneError(.frame, code: "frame.photo", "this is no image that the system can decode")
            }
            try self.init(image)
        }
    }

    /// The longer side of a photo whose shorter side is `leastSide`, or its own if that is less; `nil` if it has none.
    private func longestSide(of source: CGImageSource, leastSide: Int) -> Int? {
        let index = CGImageSourceGetPrimaryImageIndex(source)
        guard let properties = CGImageSourceCopyPropertiesAtIndex(source, index, nil) as? [CFString: Any],
            let width = properties[kCGImagePropertyPixelWidth] as? Int, width > 0,
            let height = properties[kCGImagePropertyPixelHeight] as? Int, height > 0
        else { return nil }
        let (shorter, longer) = (min(width, height), max(width, height))
        guard leastSide < shorter else { return longer }
        // Rounded up, so that the shorter side is not a pixel too short.
        return (leastSide * longer + shorter - 1) / shorter
    }
#endif
