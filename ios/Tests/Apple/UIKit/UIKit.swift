@_exported import CoreGraphics

public final class UIImage {
    public enum Orientation {
        case up, down, left, right, upMirrored, downMirrored, leftMirrored, rightMirrored
    }

    public let cgImage: CGImage?
    public let imageOrientation: Orientation

    public init(_ image: CGImage?, orientation: Orientation) {
        cgImage = image
        imageOrientation = orientation
    }
}

public enum UIDeviceOrientation {
    case unknown, portrait, portraitUpsideDown, landscapeLeft, landscapeRight, faceUp, faceDown
}

@MainActor
public final class UIDevice {
    public static let current = UIDevice()
    public static nonisolated let orientationDidChangeNotification = Notification.Name("UIDeviceOrientation")

    public var orientation = UIDeviceOrientation.portrait

    public func beginGeneratingDeviceOrientationNotifications() {}
}
