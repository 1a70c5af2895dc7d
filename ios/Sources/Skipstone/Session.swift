import Foundation
internal import SkipstoneBindings

/// Runs a model on tensors: for models that are no image classifiers, or inputs prepared elsewhere.
///
/// ```swift
/// let session = try await Session(contentsOf: url)
/// let image = Tensor(pixels, shape: session.model.info.inputs[0].shape)
/// let scores = try await session.run([image])[0].values(as: Float.self)
/// ```
///
/// A session runs one set of inputs at a time, and calls wait for each other. For several at
/// once, make several sessions of one ``Model``. Cancelling the task that awaits
/// ``run(_:deadline:)`` stops the run before its next step.
public actor Session {
    /// The model that is run.
    public nonisolated let model: Model
    private nonisolated let binding: SkipstoneBindings.Session
    private let outputs: [OutputBuffer]
    private var deadline: Duration?

    /// A session of `model`.
    ///
    /// - Throws: ``SkipstoneError`` of kind `unsupported`.
    public init(_ model: Model) throws {
        self.model = model
        binding = try SkipstoneError.translating { try .init(model: model.binding) }
        outputs = model.info.outputs.map(OutputBuffer.init)
    }

    /// Opens the package at `url`, away from the caller's actor.
    ///
    /// - Throws: As ``Model/init(contentsOf:config:)`` and ``init(_:)``.
    public init(contentsOf url: URL, config: Config = Config()) async throws {
        try self.init(Model(contentsOf: url, config: config))
    }

    /// Runs the model.
    ///
    /// - Parameters:
    ///   - inputs: As many as ``ModelInfo/inputs`` names, in that order, of those types and shapes.
    ///   - deadline: The longest that the run may take; it is checked between its steps.
    /// - Returns: The outputs, in the order of ``ModelInfo/outputs``.
    /// - Throws: `CancellationError` where the task was cancelled; ``SkipstoneError`` of kind
    ///   `input`, `deadline` or `closed`.
    public func run(_ inputs: [Tensor], deadline: Duration? = nil) async throws -> [Tensor] {
        try check(inputs)
        if deadline != self.deadline {
            try SkipstoneError.translating { try binding.setDeadlineMs(ms: deadline?.inMilliseconds) }
            self.deadline = deadline
        }
        try await cancellable(by: binding.cancel) {
            try withAddresses(of: inputs[...]) { addresses in
                try binding.runAt(inputs: addresses, outputs: outputs.map { TensorAddress($0.bytes) })
            }
        }
        return outputs.map { Tensor(copying: $0.bytes, as: $0.port) }
    }

    /// How long the latest runs took; all zero before the first.
    public nonisolated var latency: Latency { Latency(binding.latency()) }

    /// Memory of the model, of this session and of the process.
    public nonisolated var memory: Memory { Memory(binding.memory()) }

    /// Starts, or starts again, to take the time of every step. Costs a few microseconds a run.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func startProfile() throws {
        try SkipstoneError.translating { try binding.startProfile() }
    }

    /// Time of every step since ``startProfile()``, in order; empty where that was not called.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func profile() throws -> [StepTime] {
        try SkipstoneError.translating { try binding.profile().map(StepTime.init) }
    }

    /// Stops the run that is going on, if one is, and gives the arena back at once. Whatever is
    /// asked later throws ``SkipstoneError`` of kind `closed`.
    ///
    /// A session that nobody refers to any more is closed too.
    public nonisolated func close() { binding.close() }

    /// The Rust library is given bytes alone, so types and shapes are compared here.
    private func check(_ inputs: [Tensor]) throws {
        let ports = model.info.inputs
        guard inputs.count == ports.count else {
            let message = "the model takes \(ports.count) inputs, not \(inputs.count)"
            throw SkipstoneError(.input, code: "input.missing", message)
        }
        for (input, port) in zip(inputs, ports) where (input.element, input.shape) != (port.element, port.shape) {
            let got = "\(input.element.rawValue) \(input.shape)"
            let want = "\(port.element.rawValue) \(port.shape)"
            throw SkipstoneError(.input, code: "input.shape", "input '\(port.name)' is \(got), the model wants \(want)")
        }
    }
}

/// Where the Rust library writes an output of every run.
private final class OutputBuffer: Sendable {
    let port: ModelInfo.Port
    /// Touched by the session alone, one call at a time.
    private nonisolated(unsafe) let memory: UnsafeMutableRawBufferPointer

    init(_ port: ModelInfo.Port) {
        self.port = port
        memory = .allocate(byteCount: max(port.byteCount, 1), alignment: 64)
    }

    deinit { memory.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory.prefix(port.byteCount)) }
}

extension TensorAddress {
    fileprivate init(_ bytes: UnsafeRawBufferPointer) {
        self.init(address: UInt64(UInt(bitPattern: bytes.baseAddress)), lengthBytes: UInt64(bytes.count))
    }
}

/// Calls `body` with the addresses of all `tensors`, which are valid until it returns.
private func withAddresses<Result>(
    of tensors: ArraySlice<Tensor>, after open: [TensorAddress] = [], _ body: ([TensorAddress]) throws -> Result
) throws -> Result {
    guard let next = tensors.first else { return try body(open) }
    return try next.withUnsafeBytes { bytes in
        try withAddresses(of: tensors.dropFirst(), after: open + [TensorAddress(bytes)], body)
    }
}
