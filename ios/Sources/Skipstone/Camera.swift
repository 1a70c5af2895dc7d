// iOS and Mac Catalyst, and Linux with stand-ins for the frameworks (Tests/Apple).
#if canImport(UIKit) && canImport(AVFoundation) && !os(tvOS) && !os(visionOS) && !os(watchOS)
    import AVFoundation
    import UIKit

    /// A camera as a stream of frames, the newest first.
    ///
    /// ```swift
    /// let camera = try await Camera()
    /// for try await frame in camera.frames() {
    ///     let result = try await classifier.classify(frame)
    /// }
    /// ```
    ///
    /// A frame that arrives while the classifier is busy replaces the one that is waiting: the next result is always
    /// about the latest frame, and no queue grows. The camera runs as long as the loop. If the camera fails, the loop
    /// throws ``Failure/stopped(_:)``; while a phone call or another app uses the camera there are no frames, and the
    /// loop resumes when it is available again. `Info.plist` needs `NSCameraUsageDescription`.
    public final class Camera: NSObject, Sendable {
        /// Why there is no camera.
        public enum Failure: Error, Hashable, Sendable {
            /// The user has not allowed the app to use the camera.
            case denied
            /// The device has no such camera, or another app has it.
            case unavailable
            /// The camera stopped while it was running; the text is the system's message.
            case stopped(String)
        }

        /// The capture session, for an `AVCaptureVideoPreviewLayer`.
        public nonisolated(unsafe) let session = AVCaptureSession()

        private let rotation: Frame.Rotation?
        private let position: AVCaptureDevice.Position
        /// The rotation for the device's orientation; accessed only on `queue`.
        private nonisolated(unsafe) var held = Frame.Rotation.quarter
        private let queue = DispatchQueue(label: "skipstone.camera", qos: .userInitiated)
        /// Changed only while the camera is made.
        private nonisolated(unsafe) var observers: [any NSObjectProtocol] = []
        /// Receives the frames; accessed only on `queue`, like all of the session except its preview.
        private nonisolated(unsafe) var stream:
            (id: UUID, continuation: AsyncThrowingStream<Frame, any Error>.Continuation)?

        /// Asks for permission if necessary, and sets up the camera.
        ///
        /// - Parameters:
        ///   - position: `.back` or `.front`.
        /// - preset: Size of the frames. 640x480 is more than a classifier needs.
        /// - rotation: The clockwise rotation that brings frames upright: a quarter in portrait; `nil` follows the
        ///   device.
        /// - Throws: ``Failure``.
        public init(
            position: AVCaptureDevice.Position = .back, preset: AVCaptureSession.Preset = .vga640x480,
            rotation: Frame.Rotation? = nil
        ) async throws {
            self.rotation = rotation
            self.position = position
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
            // By its raw name, because SDK releases name the constant differently.
            observe(Notification.Name("AVCaptureSessionRuntimeErrorNotification"), of: session, on: nil) {
                $0.sessionFailed($1)
            }
            guard rotation == nil else { return }
            await follow()
        }

        deinit { observers.forEach(NotificationCenter.default.removeObserver) }

        /// Starts the camera, which stops when the loop over the frames ends. Only one loop at a time: a second call
        /// ends the first one's.
        public func frames() -> AsyncThrowingStream<Frame, any Error> {
            AsyncThrowingStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
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

    extension Camera {
        private func observe(
            _ name: Notification.Name, of object: Any?, on queue: OperationQueue?,
            _ body: @escaping @Sendable (Camera, Notification) -> Void
        ) {
            let center = NotificationCenter.default
            observers.append(
                center.addObserver(forName: name, object: object, queue: queue) { [weak self] notification in
                    if let self { body(self, notification) }
                })
        }

        /// The system has reset its media services, or the camera has failed: no more frames will come.
        private func sessionFailed(_ notification: Notification) {
            let error = notification.userInfo?[AVCaptureSessionErrorKey] as? any Error
            let text = error?.localizedDescription ?? "the camera has failed"
            queue.async { [self] in stream?.continuation.finish(throwing: Failure.stopped(text)) }
        }

        /// Rotates frames by the device's orientation from now on.
        @MainActor private func follow() {
            UIDevice.current.beginGeneratingDeviceOrientationNotifications()
            observe(UIDevice.orientationDidChangeNotification, of: nil, on: .main) { camera, _ in
                MainActor.assumeIsolated { camera.deviceTurned() }
            }
            deviceTurned()
        }

        /// Sensors are mounted along the device's long side, and a front camera faces the other way. A device that lies
        /// flat keeps the rotation it had.
        @MainActor private func deviceTurned() {
            let turn: Frame.Rotation
            switch (UIDevice.current.orientation, position == .front) {
            case (.portrait, _): turn = .quarter
            case (.portraitUpsideDown, _): turn = .threeQuarters
            case (.landscapeLeft, false), (.landscapeRight, true): turn = .none
            case (.landscapeRight, false), (.landscapeLeft, true): turn = .half
            default: return
            }
            queue.async { [self] in held = turn }
        }
    }

    extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
        public func captureOutput(
            _ output: AVCaptureOutput, didOutput sample: CMSampleBuffer, from connection: AVCaptureConnection
        ) {
            // A sample without an image reports dropped frames.
            guard CMSampleBufferGetImageBuffer(sample) != nil else { return }
            do {
                var frame = try Frame(sample)
                frame.rotation = rotation ?? held
                stream?.continuation.yield(frame)
            } catch {
                // An unsupported format will not become supported later.
                stream?.continuation.finish(throwing: error)
            }
        }
    }
#endif
