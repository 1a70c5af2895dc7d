@_exported import CoreGraphics

public final class NSGraphicsContext {}

public final class NSImage {
    private let image: CGImage?

    public init(_ image: CGImage?) { self.image = image }

    public func cgImage(
        forProposedRect: UnsafeMutablePointer<CGRect>?, context: NSGraphicsContext?, hints: [String: Any]?
    ) -> CGImage? { image }
}
