// swift-format-ignore-file
// The names are Apple's.

@_exported import CoreGraphics

public typealias OSType = UInt32
public typealias CVReturn = Int32

public let kCVReturnSuccess: CVReturn = 0

private func code(_ name: StaticString) -> OSType {
    name.withUTF8Buffer { $0.reduce(0) { $0 << 8 | OSType($1) } }
}

public let kCVPixelFormatType_420YpCbCr8BiPlanarFullRange = code("420f")
public let kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange = code("420v")
public let kCVPixelFormatType_422YpCbCr8BiPlanarFullRange = code("422f")
public let kCVPixelFormatType_422YpCbCr8BiPlanarVideoRange = code("422v")
public let kCVPixelFormatType_420YpCbCr10BiPlanarFullRange = code("xf20")
public let kCVPixelFormatType_420YpCbCr10BiPlanarVideoRange = code("x420")
public let kCVPixelFormatType_422YpCbCr10BiPlanarFullRange = code("xf22")
public let kCVPixelFormatType_422YpCbCr10BiPlanarVideoRange = code("x422")
public let kCVPixelFormatType_32BGRA = code("BGRA")
public let kCVPixelFormatType_32RGBA = code("RGBA")
public let kCVPixelFormatType_24RGB: OSType = 24
public let kCVPixelFormatType_OneComponent8 = code("L008")
public let kCVPixelBufferPixelFormatTypeKey: CFString = "PixelFormatType"

public let kCVImageBufferYCbCrMatrixKey: CFString = "CVImageBufferYCbCrMatrix"
public let kCVImageBufferYCbCrMatrix_ITU_R_601_4: CFString = "ITU_R_601_4"
public let kCVImageBufferYCbCrMatrix_ITU_R_709_2: CFString = "ITU_R_709_2"
public let kCVImageBufferYCbCrMatrix_ITU_R_2020: CFString = "ITU_R_2020"

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
    public let rawValue: UInt64
    public static let readOnly = Self(rawValue: 1)

    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A pixel buffer with one plane, or with several.
public final class CVBuffer {
    public struct Plane {
        public let bytesPerRow: Int
        public let height: Int
        let address: UnsafeMutableRawPointer
    }

    public let kind: OSType
    public let width: Int
    public let height: Int
    public let planes: [Plane]
    public let matrix: CFString?
    /// Locks that were not undone.
    public fileprivate(set) var locks = 0

    public init(_ kind: OSType, width: Int, height: Int, matrix: CFString?, planes: [(bytes: [UInt8], perRow: Int)]) {
        self.kind = kind
        self.width = width
        self.height = height
        self.matrix = matrix
        self.planes = planes.map { bytes, perRow in
            let address = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 64)
            bytes.withUnsafeBytes { address.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            return Plane(bytesPerRow: perRow, height: bytes.count / perRow, address: address)
        }
    }

    deinit {
        for plane in planes { plane.address.deallocate() }
    }
}

public typealias CVPixelBuffer = CVBuffer
public typealias CVImageBuffer = CVBuffer

public func CVPixelBufferGetPixelFormatType(_ buffer: CVPixelBuffer) -> OSType { buffer.kind }
public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { buffer.width }
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { buffer.height }
public func CVPixelBufferIsPlanar(_ buffer: CVPixelBuffer) -> Bool { buffer.planes.count > 1 }
public func CVPixelBufferGetPlaneCount(_ buffer: CVPixelBuffer) -> Int { buffer.planes.count }
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { buffer.planes[0].bytesPerRow }

public func CVPixelBufferGetBytesPerRowOfPlane(_ buffer: CVPixelBuffer, _ plane: Int) -> Int {
    buffer.planes[plane].bytesPerRow
}

public func CVPixelBufferGetHeightOfPlane(_ buffer: CVPixelBuffer, _ plane: Int) -> Int { buffer.planes[plane].height }

public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? {
    CVPixelBufferGetBaseAddressOfPlane(buffer, 0)
}

/// As in Core Video, there is an address only while the buffer is locked.
public func CVPixelBufferGetBaseAddressOfPlane(_ buffer: CVPixelBuffer, _ plane: Int) -> UnsafeMutableRawPointer? {
    buffer.locks > 0 ? buffer.planes[plane].address : nil
}

public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn {
    buffer.locks += 1
    return kCVReturnSuccess
}

@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn {
    buffer.locks -= 1
    return kCVReturnSuccess
}

public func CVBufferCopyAttachment(_ buffer: CVBuffer, _ key: CFString, _ mode: UnsafeMutablePointer<UInt32>?)
    -> CFTypeRef?
{
    key == kCVImageBufferYCbCrMatrixKey ? buffer.matrix : nil
}
