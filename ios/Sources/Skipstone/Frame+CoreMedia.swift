#if canImport(CoreMedia)
    import CoreMedia

    extension Frame {
        /// The image in a sample buffer, such as a capture session's, with the time at which it was captured.
        ///
        /// The time is the sample's presentation time. A capture session's is that of its clock (`synchronizationClock`),
        /// usually the host's.
        ///
        /// - Throws: ``SkipstoneError`` of kind `frame` for a sample buffer without an image, and as for a pixel buffer.
        public init(_ sample: CMSampleBuffer) throws {
            guard let image = CMSampleBufferGetImageBuffer(sample) else {
                throw SkipstoneError(.frame, code: "frame", "the sample buffer has no image")
            }
            try self.init(image)
            let time = CMTimeConvertScale(
                CMSampleBufferGetPresentationTimeStamp(sample), timescale: 1_000_000_000,
                method: .roundHalfAwayFromZero)
            timestampNs = time.isNumeric ? time.value : nil
        }
    }
#endif
