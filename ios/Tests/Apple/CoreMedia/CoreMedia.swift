// swift-format-ignore-file
// The names are Apple's.

@_exported import CoreVideo

public struct CMTime: Sendable {
    public var value: Int64
    public var timescale: Int32
    public var isNumeric: Bool

    public init(value: Int64, timescale: Int32, isNumeric: Bool = true) {
        self.value = value
        self.timescale = timescale
        self.isNumeric = isNumeric
    }
}

public enum CMTimeRoundingMethod { case roundHalfAwayFromZero }

public func CMTimeConvertScale(_ time: CMTime, timescale: Int32, method: CMTimeRoundingMethod) -> CMTime {
    let exact = Double(time.value) * Double(timescale) / Double(time.timescale)
    return CMTime(value: Int64(exact.rounded()), timescale: timescale, isNumeric: time.isNumeric)
}

public final class CMSampleBuffer {
    let image: CVImageBuffer?
    let time: CMTime

    public init(image: CVImageBuffer?, time: CMTime) {
        self.image = image
        self.time = time
    }
}

public func CMSampleBufferGetImageBuffer(_ sample: CMSampleBuffer) -> CVImageBuffer? { sample.image }
public func CMSampleBufferGetPresentationTimeStamp(_ sample: CMSampleBuffer) -> CMTime { sample.time }
