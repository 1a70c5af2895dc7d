// swift-format-ignore-file
// The names are Apple's.

@_exported import CoreGraphics

public let kCGImagePropertyPixelWidth: CFString = "PixelWidth"
public let kCGImagePropertyPixelHeight: CFString = "PixelHeight"
public let kCGImageSourceCreateThumbnailFromImageAlways: CFString = "FromImageAlways"
public let kCGImageSourceCreateThumbnailWithTransform: CFString = "WithTransform"
public let kCGImageSourceThumbnailMaxPixelSize: CFString = "MaxPixelSize"

/// An image in a format of its own: width, height, and the red, green and blue of its pixels.
public final class CGImageSource {
    let image: CGImage

    fileprivate init(_ image: CGImage) { self.image = image }
}

public func CGImageSourceCreateWithData(_ data: CFData, _ options: CFDictionary?) -> CGImageSource? {
    guard data.count > 2, data.count == 2 + Int(data[0]) * Int(data[1]) * 3 else { return nil }
    var pixels: [UInt8] = []
    for at in stride(from: 2, to: data.count, by: 3) {
        pixels += data[at..<at + 3]
        pixels.append(0)
    }
    return CGImageSource(CGImage(width: Int(data[0]), height: Int(data[1]), rgbx: pixels))
}

public func CGImageSourceGetPrimaryImageIndex(_ source: CGImageSource) -> Int { 0 }

public func CGImageSourceCopyPropertiesAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?)
    -> CFDictionary?
{
    [kCGImagePropertyPixelWidth: source.image.width, kCGImagePropertyPixelHeight: source.image.height]
}

/// Every so manieth pixel, so that the longer side has the requested length.
public func CGImageSourceCreateThumbnailAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?)
    -> CGImage?
{
    guard let longest = options?[kCGImageSourceThumbnailMaxPixelSize] as? Int,
        options?[kCGImageSourceCreateThumbnailWithTransform] as? Bool == true,
        options?[kCGImageSourceCreateThumbnailFromImageAlways] as? Bool == true
    else { return nil }
    let image = source.image
    let scale = Double(max(image.width, image.height)) / Double(longest)
    let (width, height) = (
        Int((Double(image.width) / scale).rounded()), Int((Double(image.height) / scale).rounded())
    )
    let pixels = (0..<width * height).flatMap { at in
        let x = Int(Double(at % width) * scale)
        let y = Int(Double(at / width) * scale)
        return image.rgbx[(y * image.width + x) * 4..<(y * image.width + x) * 4 + 4]
    }
    return CGImage(width: width, height: height, rgbx: pixels)
}
