/// A dense array of elements with a shape, as ``Session`` takes and returns them.
///
/// ```swift
/// let image = Tensor(pixels, shape: [1, 3, 224, 224])   // pixels: [Float]
/// let scores = try await session.run([image])[0].values(as: Float.self)
/// ```
public struct Tensor: Sendable {
    /// Element type, by its name in `skipstone inspect`.
    public enum Element: String, Hashable, Sendable, CaseIterable {
        case float64 = "f64"
        case float32 = "f32"
        case float16 = "f16"
        /// The upper half of a `float32`.
        case bfloat16 = "bf16"
        case int64 = "i64"
        case int32 = "i32"
        case int16 = "i16"
        case int8 = "i8"
        case uint64 = "u64"
        case uint32 = "u32"
        case uint16 = "u16"
        case uint8 = "u8"
        /// One byte, 0 or 1.
        case bool = "bool"

        /// Bytes of one element.
        public var size: Int {
            switch self {
            case .float64, .int64, .uint64: 8
            case .float32, .int32, .uint32: 4
            case .float16, .bfloat16, .int16, .uint16: 2
            case .int8, .uint8, .bool: 1
            }
        }
    }

    /// Type of the elements.
    public let element: Element
    /// Dimensions, outermost first. The elements are in row-major order.
    public let shape: [Int]
    private let storage: any TensorStorage

    /// A tensor of these values, which are not copied. The run checks them.
    public init<Scalar: TensorScalar>(_ values: [Scalar], shape: [Int]) {
        element = Scalar.element
        self.shape = shape
        storage = values
    }

    /// A tensor of zeros that fits an input of a model.
    public init(zerosFor port: ModelInfo.Port) {
        element = port.element
        shape = port.shape
        storage = [UInt8](repeating: 0, count: port.byteCount)
    }

    /// The output that a run has written for `port`.
    init(_ bytes: OutputBytes, of port: ModelInfo.Port) {
        element = port.element
        shape = port.shape
        storage = bytes
    }

    /// The elements in row-major order, or `nil` if ``element`` is another type.
    public func values<Scalar: TensorScalar>(as type: Scalar.Type = Scalar.self) -> [Scalar]? {
        guard Scalar.element == element else { return nil }
        if let values = storage as? [Scalar] { return values }
        return withUnsafeBytes { bytes in
            [Scalar](unsafeUninitializedCapacity: bytes.count / element.size) { values, count in
                count = values.count
                UnsafeMutableRawBufferPointer(values).copyBytes(from: bytes.prefix(count * element.size))
            }
        }
    }

    /// The bytes of the elements, for types that Swift does not have.
    public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try storage.withUnsafeBytes(body)
    }
}

/// Memory aligned for any element type.
protocol TensorStorage: Sendable {
    func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result
}

extension Array: TensorStorage where Element: TensorScalar {}

/// Memory that the Rust library writes one output to; immutable afterwards.
final class OutputBytes: TensorStorage {
    private nonisolated(unsafe) let memory: UnsafeMutableRawBufferPointer

    init(count: Int) {
        // At least one byte, so that an empty tensor has an address too.
        memory = .init(start: .allocate(byteCount: max(count, 1), alignment: 64), count: count)
    }

    deinit { memory.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(memory) }

    func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try body(bytes)
    }
}

/// A number type that can be the element of a ``Tensor``.
public protocol TensorScalar: BitwiseCopyable, Sendable {
    /// Its name among the element types.
    static var element: Tensor.Element { get }
}

extension Double: TensorScalar { public static var element: Tensor.Element { .float64 } }
extension Float: TensorScalar { public static var element: Tensor.Element { .float32 } }
extension Int64: TensorScalar { public static var element: Tensor.Element { .int64 } }
extension Int32: TensorScalar { public static var element: Tensor.Element { .int32 } }
extension Int16: TensorScalar { public static var element: Tensor.Element { .int16 } }
extension Int8: TensorScalar { public static var element: Tensor.Element { .int8 } }
extension UInt64: TensorScalar { public static var element: Tensor.Element { .uint64 } }
extension UInt32: TensorScalar { public static var element: Tensor.Element { .uint32 } }
extension UInt16: TensorScalar { public static var element: Tensor.Element { .uint16 } }
extension UInt8: TensorScalar { public static var element: Tensor.Element { .uint8 } }
#if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
    extension Float16: TensorScalar { public static var element: Tensor.Element { .float16 } }
#endif
