#if os(iOS)
    import AVFoundation

    /// A camera as a stream of frames in which the newest wins.
    ///
    /// ```swift
    /// let camera = try await Camera()
    /// for await frame in camera.frames() {
    ///     let result = try await classifier.classify(frame)
    /// }
    /// ```
    ///
    /// A frame that comes while the classifier is busy replaces the one that waits: the next
    /// result is always of what the camera sees now, and no queue grows. The camera runs as long
    /// as the loop does. `Info.plist` needs `NSCameraUsageDescription`.
    public final class Camera: NSObject, Sendable {
        /// Why there is no camera.
        public enum Failure: Error, Hashable, Sendable {
            /// The user has not allowed the app to use the camera.
            case denied
            /// The device has no such camera, or another app has it.
            case unavailable
        }

        /// The capture session, for an `AVCaptureVideoPreviewLayer`.
        public nonisolated(unsafe) let session = AVCaptureSession()

        private let rotation: Frame.Rotation
        private let queue = DispatchQueue(label: "skipstone.camera", qos: .userInitiated)
        /// Where frames go; touched on `queue` alone, as is everything of the session but its preview.
        private nonisolated(unsafe) var stream: (id: UUID, continuation: AsyncStream<Frame>.Continuation)?

        /// Asks for permission where that was not done yet, and sets the camera up.
        ///
        /// - Parameters:
        ///   - position: `.back` or `.front`.
        ///   - preset: Size of the frames. 640x480 is more than a classifier looks at.
        ///   - rotation: The clockwise turn that brings frames upright: a quarter in portrait. An app that
        ///     turns with the device sets ``Frame/rotation`` of each frame instead.
        /// - Throws: ``Failure``.
        public init(
            position: AVCaptureDevice.Position = .back, preset: AVCaptureSession.Preset = .vga640x480,
            rotation: Frame.Rotation = .quarter
        ) async throws {
            self.rotation = rotation
            super.init()
            guard await AVCaptureDevice.requestAccess(for: .video) else { throw Failure.denied }
            let output = AVCaptureVideoDataOutput()
            output.alwaysDiscardsLateVideoFrames = true
            output.videoSettings = [
                kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_420YpCbCr8BiPlanarFullRange
            ]
            guard let device = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: position),
                let input = try? AVCaptureDeviceInput(device: device),
                session.canSetSessionPreset(preset), session.canAddInput(input), session.canAddOutput(output)
            else { throw Failure.unavailable }
            session.beginConfiguration()
            session.sessionPreset = preset
            session.addInput(input)
            session.addOutput(output)
            session.commitConfiguration()
            output.setSampleBufferDelegate(self, queue: queue)
        }

        /// Starts the camera, which stops when the loop over the frames ends. One loop at a time:
        /// a second call ends the first one's.
        public func frames() -> AsyncStream<Frame> {
            AsyncStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
                let id = UUID()
                queue.async { [self] in
                    stream?.continuation.finish()
                    stream = (id, continuation)
                    session.startRunning()
                }
                continuation.onTermination = { [self] _ in
                    queue.async { [self] in
                        guard stream?.id == id else { return }
                        stream = nil
                        session.stopRunning()
                    }
                }
            }
        }
    }

    extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
        public func captureOutput(
            _ output: AVCaptureOutput, didOutput sample: CMSampleBuffer, from connection: AVCaptureConnection
        ) {
            guard let buffer = CMSampleBufferGetImageBuffer(sample), var frame = try? Frame(buffer) else { return }
            frame.rotation = rotation
            stream?.continuation.yield(frame)
        }
    }
#endif
