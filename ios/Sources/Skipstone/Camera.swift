#if os(iOS)
    import AVFoundation
    import UIKit

    /// A camera as a stream of frames in which the newest wins.
    ///
    /// ```swift
    /// let camera = try await Camera()
    /// for try await frame in camera.frames() {
    ///     let result = try await classifier.classify(frame)
    /// }
    /// ```
    ///
    /// A frame that comes while the classifier is busy replaces the one that waits: the next
    /// result is always of what the camera sees now, and no queue grows. The camera runs as long
    /// as the loop does. Where the camera fails, the loop throws ``Failure/stopped(_:)``; while a call or
    /// another app has the camera there are no frames, and the loop goes on when it comes back.
    /// `Info.plist` needs `NSCameraUsageDescription`.
    public final class Camera: NSObject, Sendable {
        /// Why there is no camera.
        public enum Failure: Error, Hashable, Sendable {
            /// The user has not allowed the app to use the camera.
            case denied
            /// The device has no such camera, or another app has it.
            case unavailable
            /// The camera stopped while it was running; the text is the system's.
            case stopped(String)
        }

        /// The capture session, for an `AVCaptureVideoPreviewLayer`.
        public nonisolated(unsafe) let session = AVCaptureSession()

        private let rotation: Frame.Rotation?
        private let position: AVCaptureDevice.Position
        /// The turn as the device is held; touched on `queue` alone.
        private nonisolated(unsafe) var held = Frame.Rotation.quarter
        private let queue = DispatchQueue(label: "skipstone.camera", qos: .userInitiated)
        /// Where frames go; touched on `queue` alone, as is everything of the session but its preview.
        private nonisolated(unsafe) var stream:
            (id: UUID, continuation: AsyncThrowingStream<Frame, any Error>.Continuation)?

        /// Asks for permission where that was not done yet, and sets the camera up.
        ///
        /// - Parameters:
        ///   - position: `.back` or `.front`.
        ///   - preset: Size of the frames. 640x480 is more than a classifier looks at.
        ///   - rotation: The clockwise turn that brings frames upright: a quarter in portrait, and as the device
        ///     is held where `nil`.
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
            // By its own name: releases of the SDK disagree about the constant's.
            NotificationCenter.default.addObserver(
                self, selector: #selector(sessionFailed),
                name: Notification.Name("AVCaptureSessionRuntimeErrorNotification"), object: session)
            guard rotation == nil else { return }
            await follow()
        }

        /// Starts the camera, which stops when the loop over the frames ends. One loop at a time:
        /// a second call ends the first one's.
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
        /// The system has reset its media services, or the camera is broken: no frame will come.
        @objc private func sessionFailed(_ notification: Notification) {
            let error = notification.userInfo?[AVCaptureSessionErrorKey] as? any Error
            let text = error?.localizedDescription ?? "the camera has failed"
            queue.async { [self] in stream?.continuation.finish(throwing: Failure.stopped(text)) }
        }

        /// Turns frames as the device is held from now on.
        @MainActor private func follow() {
            UIDevice.current.beginGeneratingDeviceOrientationNotifications()
            NotificationCenter.default.addObserver(
                self, selector: #selector(deviceTurned), name: UIDevice.orientationDidChangeNotification, object: nil)
            deviceTurned()
        }

        /// Sensors lie along the long side, and a front camera looks the other way. A device that lies flat keeps
        /// the turn it had.
        @MainActor @objc private func deviceTurned() {
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
            guard let buffer = CMSampleBufferGetImageBuffer(sample) else { return }
            do {
                var frame = try Frame(buffer)
                frame.rotation = rotation ?? held
                stream?.continuation.yield(frame)
            } catch {
                // A format that is not read now will not be read later either.
                stream?.continuation.finish(throwing: error)
            }
        }
    }
#endif
