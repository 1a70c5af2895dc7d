import Foundation
internal import SkipstoneBindings

/// Classifies images.
///
/// ```swift
/// let classifier = try await Classifier(contentsOf: url)
/// let result = try await classifier.classify(frame)
/// print(result.predictions[0].label, result.predictions[0].score)
/// ```
///
/// A classifier runs one frame at a time, and calls wait for each other. To run several at once, make several
/// classifiers from one ``Model``.
///
/// Cancelling the task that awaits ``classify(_:top:deadline:)`` stops the run before its next step.
public final class Classifier: Sendable {
    /// The model.
    public let model: Model
    private let binding: SkipstoneBindings.Classifier
    private let runs: Runs

    /// How it makes its input and its scores, and where that was specified.
    public let info: ClassifierInfo

    /// A classifier for `model`, which must take one image and return a score for each class.
    ///
    /// - Throws: ``SkipstoneError`` of kind `model` if it does not, `input` if `options` name a class that the model
    ///   does not have.
    public init(_ model: Model, options: ClassifierOptions = ClassifierOptions()) throws {
        self.model = model
        let binding = try SkipstoneError.translating {
            try SkipstoneBindings.Classifier.with(model: model.binding, options: options.binding)
        }
        self.binding = binding
        info = ClassifierInfo(binding.info())
        runs = Runs("classifier", begin: binding.forgetCancel, stop: binding.cancel)
    }

    /// Opens the package at `url` without blocking the threads of tasks.
    ///
    /// - Throws: As ``Model/init(contentsOf:config:)`` and ``init(_:options:)``.
    public convenience init(
        contentsOf url: URL, config: Config = Config(), options: ClassifierOptions = ClassifierOptions()
    ) async throws {
        try self.init(await blocking { try Model(contentsOf: url, config: config) }, options: options)
    }

    /// The best classes of an image, computed without blocking the threads of tasks.
    ///
    /// - Parameters:
    /// - frame: The image, of any size and rotation.
    ///   - top: How many classes at most.
    /// - deadline: The longest that the run may take; checked between its steps.
    /// - Throws: `CancellationError` if the task was cancelled; ``SkipstoneError`` of kind `frame`, `input`, `deadline`
    ///   or `closed`.
    public func classify(_ frame: Frame, top: Int = 5, deadline: Duration? = nil) async throws -> Classification {
        try await runs.run { [binding, info] in
            try binding.setDeadlineMs(ms: deadline?.inMilliseconds)
            return try frame.withAddress { address in
                try Classification(
                    binding.classifyFrameAt(frame: address, top: UInt32(clamping: top)), info.displayNames,
                    frame.timestampNs)
            }
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

    /// Classifies a black image, so that the first frame does not wait for the model's memory. Call it before the first
    /// frame: it resets the state, and counts as a run in ``latency``.
    ///
    /// - Throws: As ``classify(_:top:deadline:)``.
    public func warmUp() async throws {
        _ = try await classify(Frame([0] as [UInt8], format: .gray, width: 1, height: 1))
        try await reset()
    }

    /// Latency of the latest runs, from frame to classes; all zero before the first.
    public var latency: Latency { Latency(binding.latency()) }

    /// Memory of the model, of this classifier and of the process.
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
    /// A classifier also closes when its last reference goes away.
    public func close() { binding.close() }
}

/// The classes of a frame, and the time it took.
public struct Classification: Hashable, Sendable {
    /// The best classes, best first; fewer than requested if others are not allowed.
    public let predictions: [Prediction]
    /// Time from the frame to the model's input: rotation, crop, resizing, color conversion.
    public let preparation: Duration
    /// Time from the model's input to the classes.
    public let run: Duration
    /// When the frame was captured (``Frame/timestampNs``); `nil` if unknown.
    public let timestampNs: Int64?
}

/// A class that a frame may show.
public struct Prediction: Hashable, Sendable, Identifiable {
    /// Index of the class in the model's output.
    public let index: Int
    /// Its name.
    public let label: String
    /// Its name in the requested language; the label if the model has no other.
    public let displayName: String
    /// Its score: a probability, unless the model or the options say otherwise.
    public let score: Float

    /// The same as ``index``.
    public var id: Int { index }
}

extension Classification {
    init(_ classification: SkipstoneBindings.Classification, _ names: [String], _ timestampNs: Int64?) {
        predictions = classification.predictions.map {
            let index = Int($0.index)
            let name = names.indices.contains(index) ? names[index] : $0.label
            return Prediction(index: index, label: $0.label, displayName: name, score: $0.score)
        }
        preparation = .milliseconds(classification.prepareMs)
        run = .milliseconds(classification.runMs)
        self.timestampNs = timestampNs
    }
}
