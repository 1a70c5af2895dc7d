@_exported import Foundation

// Stand-ins for the parts of Apple's frameworks that the library uses, here and in the folders beside this one: as far as
// they are needed to compile it, and with enough behind them that its answers can be compared.

public typealias CFString = String
public typealias CFData = Data
public typealias CFDictionary = [AnyHashable: Any]
public typealias CFTypeRef = Any

/// Red, green, blue and an ignored byte per pixel.
public final class CGImage {
    public let width: Int
    public let height: Int
    public let rgbx: [UInt8]

    public init(width: Int, height: Int, rgbx: [UInt8]) {
        self.width = width
        self.height = height
        self.rgbx = rgbx
    }
}

public final class CGColorSpace {
    public static let sRGB: CFString = "kCGColorSpaceSRGB"

    public init?(name: CFString) {}
}

public enum CGImageAlphaInfo: UInt32 {
    case noneSkipLast = 5
}

public final class CGContext {
    private let data: UnsafeMutableRawPointer
    private let height: Int
    private let bytesPerRow: Int

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        guard let data, width > 0, height > 0, bitsPerComponent == 8, bytesPerRow >= 4 * width,
            bitmapInfo == CGImageAlphaInfo.noneSkipLast.rawValue
        else { return nil }
        self.data = data
        self.height = height
        self.bytesPerRow = bytesPerRow
    }

    /// Only in its own size.
    public func draw(_ image: CGImage, in rect: CGRect) {
        precondition(rect.width == CGFloat(image.width) && rect.height == CGFloat(image.height))
        for y in 0..<height {
            image.rgbx[y * image.width * 4..<(y + 1) * image.width * 4].withUnsafeBytes {
                (data + y * bytesPerRow).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
            }
        }
    }
}
