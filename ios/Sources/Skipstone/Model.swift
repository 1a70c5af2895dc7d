import Foundation
internal import SkipstoneBindings

/// A model loaded from a package (`.skip`), ready to run.
///
/// `skipstone compile` makes a package from an ONNX file. A package is mapped, not read: its weights take no memory
/// until a run touches them, and the system may drop them again.
///
/// A model is immutable, so any number of ``Classifier``s and ``Session``s can share one; each of them adds its own
/// arena (``ModelInfo/arenaBytes``) but no weights.
public final class Model: Sendable {
    /// Name, inputs, outputs, labels and sizes.
    public let info: ModelInfo
    let binding: SkipstoneBindings.Model

    /// Maps the package at `url` and checks it.
    ///
    /// A library with the feature `onnx` opens ONNX files too, and plans them each time; ``convert(from:to:config:)``
    /// does it once.
    ///
    /// Takes milliseconds, and blocks: call it off the main actor, or use the initializers of ``Classifier`` and
    /// ``Session`` that take a URL.
    ///
    /// - Parameters:
    ///   - url: A file URL, such as `Bundle.main.url(forResource: "flowers", withExtension: "skip")`.
    ///   - config: Threads, cores and the key that signs packages.
    /// - Throws: ``SkipstoneError`` of kind `io`, `package`, `model` or `unsupported`.
    public convenience init(contentsOf url: URL, config: Config = Config()) throws {
        guard url.isFileURL else {
            throw SkipstoneError(.io, code: "io", "\(url) is not a file; download the package first")
        }
        try self.init { try .open(path: url.path, config: config.binding) }
    }

    /// Maps the package that is a part of an open file, such as an archive: `length` bytes that begin at `offset`. The
    /// descriptor stays the caller's, and may be closed afterwards.
    ///
    /// - Throws: As ``init(contentsOf:config:)``.
    public convenience init(descriptor: Int32, offset: UInt64, length: UInt64, config: Config = Config()) throws {
        try self.init {
            try .openDescriptor(fd: descriptor, offset: offset, length: length, config: config.binding)
        }
    }

    /// Copies and checks a package that is already in memory.
    ///
    /// - Throws: ``SkipstoneError`` of kind `package`, `model` or `unsupported`.
    public convenience init(data: Data, config: Config = Config()) throws {
        try self.init { try .fromBytes(bytes: data, config: config.binding) }
    }

    /// Copies the package at `source` to `target`, and opens it there.
    ///
    /// A mapped package must not be overwritten in place. This writes beside `target`, checks the whole package, and
    /// renames: at any time `target` is the old file or the new one, and models that have the old one open keep it. If
    /// a mapped file is changed in place nevertheless, the next run throws ``SkipstoneError`` with code
    /// `package.changed`; `Config(copy: true)` maps nothing.
    ///
    /// - Throws: As ``init(contentsOf:config:)``; `target` is then unchanged.
    public static func install(from source: URL, to target: URL, config: Config = Config()) throws -> Model {
        for url in [source, target] where !url.isFileURL {
            throw SkipstoneError(.io, code: "io", "\(url) is not a file; download the package first")
        }
        return try Model { try .install(from: source.path, to: target.path, config: config.binding) }
    }

    /// The same for a package in memory.
    ///
    /// - Throws: As ``install(from:to:config:)``.
    public static func install(_ data: Data, to target: URL, config: Config = Config()) throws -> Model {
        guard target.isFileURL else { throw SkipstoneError(.io, code: "io", "\(target) is not a file") }
        return try Model { try .installBytes(bytes: data, to: target.path, config: config.binding) }
    }

    /// Converts the ONNX file at `source` to a package for this device at `target`, and opens it there.
    ///
    /// It is planned and packed once; from then on ``init(contentsOf:config:)`` takes milliseconds. `target` is put in
    /// place as by ``install(from:to:config:)``. The library must be built with the feature `onnx`.
    ///
    /// - Throws: ``SkipstoneError`` of kind `io`; `model` for a malformed file; `unsupported` for operators without a
    ///   kernel in this library, and with code `onnx` for a library without the feature; `input` for a `config` with a
    ///   key, since converted packages are not signed. `target` is then unchanged.
    public static func convert(from source: URL, to target: URL, config: Config = Config()) throws -> Model {
        for url in [source, target] where !url.isFileURL {
            throw SkipstoneError(.io, code: "io", "\(url) is not a file; download the model first")
        }
        return try Model { try .convert(from: source.path, to: target.path, config: config.binding) }
    }

    private init(_ open: () throws -> SkipstoneBindings.Model) throws {
        binding = try SkipstoneError.translating(open)
        info = try ModelInfo(binding.info())
    }
}

/// What a ``Model`` says about itself.
public struct ModelInfo: Hashable, Sendable {
    /// One input or output.
    public struct Port: Hashable, Sendable {
        /// Its name in the model.
        public let name: String
        /// Type of its elements.
        public let element: Tensor.Element
        /// Its dimensions, outermost first; an image is `[1, channels, height, width]`.
        public let shape: [Int]
    }

    /// Name of the model.
    public let name: String
    /// Number of parameters.
    public let parameters: Int
    /// Size of the weights in the package.
    public let weightsBytes: Int
    /// Memory that each classifier or session takes for its tensors.
    public let arenaBytes: Int
    /// Instruction set of the chosen kernels, such as `neon`.
    public let isa: String
    /// Threads per run.
    public let threads: Int
    /// The model's inputs, in order.
    public let inputs: [Port]
    /// The model's outputs, in order.
    public let outputs: [Port]
    /// Names of the classes, in the order of the scores; empty if the package has none.
    public let labels: [String]
    /// All metadata of the package, including labels and image normalization.
    public let metadata: [String: String]
}

extension ModelInfo {
    init(_ info: SkipstoneBindings.ModelInfo) throws {
        name = info.name
        parameters = Int(clamping: info.parameters)
        weightsBytes = Int(clamping: info.weightsBytes)
        arenaBytes = Int(clamping: info.arenaBytes)
        isa = info.isa
        threads = Int(clamping: info.threads)
        inputs = try info.inputs.map(Port.init)
        outputs = try info.outputs.map(Port.init)
        labels = info.labels
        metadata = info.metadata
    }
}

extension ModelInfo.Port {
    init(_ info: SkipstoneBindings.TensorInfo) throws {
        guard let element = Tensor.Element(rawValue: info.element) else {
            throw SkipstoneError(
                .unsupported, code: "model.unsupported", "'\(info.name)' has unsupported elements: \(info.element)")
        }
        self.element = element
        name = info.name
        shape = info.shape.map { Int(clamping: $0) }
    }

    /// Size of the tensor. The Rust library has checked that the product fits.
    var byteCount: Int { shape.reduce(element.size, *) }
}
