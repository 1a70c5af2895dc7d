// swift-format-ignore-file
// The names are Apple's.

@_exported import CoreMedia
@_exported import Dispatch

public let AVCaptureSessionErrorKey = "AVCaptureSessionErrorKey"

public struct AVMediaType: Sendable {
    public static let video = AVMediaType()
}

public final class AVCaptureDevice {
    public enum Position: Sendable { case front, back }
    public enum DeviceType { case builtInWideAngleCamera }

    public static func requestAccess(for media: AVMediaType) async -> Bool { true }

    public static func `default`(_ type: DeviceType, for media: AVMediaType?, position: Position) -> AVCaptureDevice? {
        AVCaptureDevice()
    }
}

public class AVCaptureInput {}
public class AVCaptureOutput {}
public final class AVCaptureConnection {}

public final class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws {}
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: NSObjectProtocol {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sample: CMSampleBuffer, from connection: AVCaptureConnection)
}

public final class AVCaptureVideoDataOutput: AVCaptureOutput {
    public var alwaysDiscardsLateVideoFrames = true
    public var videoSettings: [String: Any] = [:]

    override public init() {}
    fileprivate weak var delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?

    public func setSampleBufferDelegate(
        _ delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue: DispatchQueue?
    ) {
        self.delegate = delegate
    }
}

/// Delivers `samples` when it is started, on that thread.
public final class AVCaptureSession: NSObject {
    public struct Preset: Sendable {
        public static let vga640x480 = Preset()
    }

    public static nonisolated(unsafe) var samples: [CMSampleBuffer] = []

    public var sessionPreset = Preset.vga640x480
    public private(set) var isRunning = false
    private var outputs: [AVCaptureVideoDataOutput] = []

    override public init() {}

    public func canSetSessionPreset(_ preset: Preset) -> Bool { true }
    public func canAddInput(_ input: AVCaptureInput) -> Bool { true }
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { true }
    public func beginConfiguration() {}
    public func commitConfiguration() {}
    public func addInput(_ input: AVCaptureInput) {}

    public func addOutput(_ output: AVCaptureOutput) {
        if let output = output as? AVCaptureVideoDataOutput { outputs.append(output) }
    }

    public func startRunning() {
        isRunning = true
        for sample in Self.samples {
            for output in outputs {
                output.delegate?.captureOutput(output, didOutput: sample, from: AVCaptureConnection())
            }
        }
    }

    public func stopRunning() { isRunning = false }
}
