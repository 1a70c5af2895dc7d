import Foundation
internal import SkipstoneBindings

/// Runs a model on tensors: for models that are not image classifiers, or inputs prepared elsewhere.
///
/// ```swift
/// let session = try await Session(contentsOf: url)
/// let image = Tensor(pixels, shape: session.model.info.inputs[0].shape)
/// let scores = try await session.run([image])[0].values(as: Float.self)
/// ```
///
/// A session runs one set of inputs at a time, and calls wait for each other. To run several at once, make several
/// sessions from one ``Model``. Cancelling the task that awaits ``run(_:deadline:)`` stops the run before its next
/// step.
public final class Session: Sendable {
    /// The model.
    public let model: Model
    private let binding: SkipstoneBindings.Session
    private let runs: Runs

    /// A session of `model`.
    ///
    /// - Throws: ``SkipstoneError`` of kind `unsupported`.
    public init(_ model: Model) throws {
        self.model = model
        let binding = try SkipstoneError.translating { try SkipstoneBindings.Session(model: model.binding) }
        self.binding = binding
        runs = Runs("session", begin: binding.forgetCancel, stop: binding.cancel)
    }

    /// Opens the package at `url` without blocking the threads of tasks.
    ///
    /// - Throws: As ``Model/init(contentsOf:config:)`` and ``init(_:)``.
    public convenience init(contentsOf url: URL, config: Config = Config()) async throws {
        try self.init(await blocking { try Model(contentsOf: url, config: config) })
    }

    /// Runs the model without blocking the threads of tasks.
    ///
    /// - Parameters:
    /// - inputs: The tensors for ``ModelInfo/inputs``, in that order, with those types and shapes.
    /// - deadline: The longest that the run may take; checked between its steps.
    /// - Returns: The outputs, in the order of ``ModelInfo/outputs``.
    /// - Throws: `CancellationError` if the task was cancelled; ``SkipstoneError`` of kind `input`, `deadline` or
    ///   `closed`.
    public func run(_ inputs: [Tensor], deadline: Duration? = nil) async throws -> [Tensor] {
        try check(inputs)
        let (binding, ports) = (binding, model.info.outputs)
        return try await runs.run {
            // Allocated for every run, because they belong to the caller afterwards.
            let outputs = ports.map { OutputBytes(count: $0.byteCount) }
            try binding.setDeadlineMs(ms: deadline?.inMilliseconds)
            try withAddresses(of: inputs[...]) { addresses in
                try binding.runAt(inputs: addresses, outputs: outputs.map { TensorAddress($0.bytes) })
            }
            return zip(ports, outputs).map { Tensor($1, of: $0) }
        }
    }

    /// An input of the model for an image: resized, cropped and normalized as the model's metadata says, like the input
    /// of a ``Classifier``.
    ///
    /// - Parameters:
    ///   - frame: The image, of any size and rotation.
    ///   - input: Index of an input that is an image.
    /// - Throws: `CancellationError` if the task was cancelled; ``SkipstoneError`` of kind `frame`, `closed`, `input` if
    ///   there is no such input, or `model` if it is not an image.
    public func prepare(_ frame: Frame, input: Int = 0) async throws -> Tensor {
        let ports = model.info.inputs
        guard ports.indices.contains(input) else {
            let message = "the model has \(ports.count) inputs, and no input \(input)"
            throw SkipstoneError(.input, code: "input.unknown", message)
        }
        return try await runs.run { [binding] in
            let prepared = OutputBytes(count: ports[input].byteCount)
            try frame.withAddress { address in
                try binding.prepareFrameAt(
                    frame: address, index: UInt32(input), output: TensorAddress(prepared.bytes))
            }
            return Tensor(prepared, of: ports[input])
        }
    }

    /// Sets a setting of the model, such as the threshold of an early exit, for all later runs; or its state, for the
    /// next one. Waits for the runs before it.
    ///
    /// - Parameters:
    ///   - name: An input that the model's metadata assigns to the session.
    ///   - value: A value of the input's shape, whose numbers its element type can represent.
    /// - Throws: ``SkipstoneError`` of kind `input` for another name (code `setting.unknown`; the message lists the
    ///   names) and for a value that does not fit (`setting.value`), and nothing is changed then; of kind `closed`.
    public func set(_ name: String, to value: Setting) async throws {
        try await runs.run { [binding] in
            try binding.setVariable(name: name, values: value.numbers)
        }
    }

    /// Resets the state that is carried from run to run, as before the first run; settings keep their values. Waits for
    /// the runs before it.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func reset() async throws {
        try await runs.run { [binding] in try binding.setVariable(name: nil, values: []) }
    }

    /// Runs the model once on zeros, so that the first run does not wait for its memory. Call it before the first run:
    /// it resets the state, and counts as a run in ``latency``.
    ///
    /// - Throws: As ``run(_:deadline:)``.
    public func warmUp() async throws {
        _ = try await run(model.info.inputs.map(Tensor.init(zerosFor:)))
        try await reset()
    }

    /// Latency of the latest runs; all zero before the first.
    public var latency: Latency { Latency(binding.latency()) }

    /// Memory of the model, of this session and of the process.
    public var memory: Memory { Memory(binding.memory()) }

    /// Starts or restarts measuring the time of every step. Costs a few microseconds per run.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func startProfile() async throws { try await runs.run { [binding] in try binding.startProfile() } }

    /// Time of every step since ``startProfile()``, in order; empty if that was not called.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func profile() async throws -> [StepTime] {
        try await runs.run { [binding] in try binding.profile().map(StepTime.init) }
    }

    /// Stops the current run, if there is one, and frees the arena at once. Every later call throws ``SkipstoneError``
    /// of kind `closed`.
    ///
    /// A session also closes when its last reference goes away.
    public func close() { binding.close() }

    /// The Rust library only receives bytes, so types and shapes are compared here.
    private func check(_ inputs: [Tensor]) throws {
        let ports = model.info.inputs
        guard inputs.count == ports.count else {
            let message = "the model takes \(ports.count) inputs, not \(inputs.count)"
            throw SkipstoneError(.input, code: "input.missing", message)
        }
        for (input, port) in zip(inputs, ports) where (input.element, input.shape) != (port.element, port.shape) {
            let got = "\(input.element.rawValue) \(input.shape)"
            let want = "\(port.element.rawValue) \(port.shape)"
            throw SkipstoneError(.input, code: "input.shape", "input '\(port.name)' is \(got), the model takes \(want)")
        }
    }
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
