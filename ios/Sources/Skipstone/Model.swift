import Foundation
internal import SkipstoneBindings

/// A model loaded from a package (`.skip`), ready to be run.
///
/// `skipstone compile` makes a package from an ONNX file. A package is mapped, not read: its
/// weights take no memory until a run touches them, and the system may drop them again.
///
/// A model cannot be changed, so any number of ``Classifier``s and ``Session``s share one;
/// each of them adds an arena of its own (``ModelInfo/arenaBytes``) and no weights.
public final class Model: Sendable {
    /// Name, inputs, outputs, labels and sizes.
    public let info: ModelInfo
    let binding: SkipstoneBindings.Model

    /// Maps the package at `url` and checks it.
    ///
    /// A library with the feature `onnx` opens ONNX files too, and plans them each time; ``convert(from:to:config:)``
    /// does it once.
    ///
    /// Takes milliseconds, and blocks: off the main actor, or by the initializers of
    /// ``Classifier`` and ``Session`` that take a URL.
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

    /// Copies and checks a package that is in memory already.
    ///
    /// - Throws: ``SkipstoneError`` of kind `package`, `model` or `unsupported`.
    public convenience init(data: Data, config: Config = Config()) throws {
        try self.init { try .fromBytes(bytes: data, config: config.binding) }
    }

    /// Copies the package at `source` to `target`, and opens it there.
    ///
    /// A package that is mapped must not be written to where it lies. This writes beside `target`, checks the
    /// whole package, and renames: `target` is the old file or the new one at any time, and models that have
    /// the old one open keep it. Where a mapped file is changed in place nevertheless, the next run throws
    /// ``SkipstoneError`` of code `package.changed`; `Config(copy: true)` maps nothing.
    ///
    /// - Throws: As ``init(contentsOf:config:)``; `target` is then as it was.
    public static func install(from source: URL, to target: URL, config: Config = Config()) throws -> Model {
        for url in [source, target] where !url.isFileURL {
            throw SkipstoneError(.io, code: "io", "\(url) is not a file; download the package first")
        }
        return try Model { try .install(from: source.path, to: target.path, config: config.binding) }
    }

    /// The same for a package that is in memory.
    ///
    /// - Throws: As ``install(from:to:config:)``.
    public static func install(_ data: Data, to target: URL, config: Config = Config()) throws -> Model {
        guard target.isFileURL else { throw SkipstoneError(.io, code: "io", "\(target) is not a file") }
        return try Model { try .installBytes(bytes: data, to: target.path, config: config.binding) }
    }

    /// Makes a package of the ONNX file at `source`, for this device, at `target`, and opens it there.
    ///
    /// It is planned and packed once; from then on ``init(contentsOf:config:)`` takes milliseconds. `target` is put in
    /// place as by ``install(from:to:config:)``. The library must have been built with the feature `onnx`.
    ///
    /// - Throws: ``SkipstoneError`` of kind `io`; `model` for a file that is malformed; `unsupported` for operators that
    ///   the library has no kernels for, and of code `onnx` for a library without the feature; `input` for a
    ///   `config` with a key, since nobody signs what is made here. `target` is then as it was.
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

/// What a ``Model`` says of itself.
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
    /// Number of weights.
    public let parameters: Int
    /// Size of the weights in the package.
    public let weightBytes: Int
    /// Memory that each classifier or session takes for its tensors.
    public let arenaBytes: Int
    /// Instruction set of the kernels chosen, such as `neon`.
    public let isa: String
    /// Threads of a run.
    public let threads: Int
    /// What a run takes, in order.
    public let inputs: [Port]
    /// What a run gives, in order.
    public let outputs: [Port]
    /// Names of the classes, in the order of the scores; empty where the package has none.
    public let labels: [String]
    /// Everything that the package's maker noted, labels and preparation of images included.
    public let metadata: [String: String]
}

extension ModelInfo {
    init(_ info: SkipstoneBindings.ModelInfo) throws {
        name = info.name
        parameters = Int(clamping: info.parameters)
        weightBytes = Int(clamping: info.weightsBytes)
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
            throw SkipstoneError(.unsupported, code: "model.unsupported", "'\(info.name)' is of \(info.element)")
        }
        self.element = element
        name = info.name
        shape = info.shape.map { Int(clamping: $0) }
    }

    /// Size of the tensor. The Rust library has checked that the product fits.
    var byteCount: Int { shape.reduce(element.size, *) }
}
