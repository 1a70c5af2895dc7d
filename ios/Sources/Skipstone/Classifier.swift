import Foundation
internal import SkipstoneBindings

/// Names what pictures show.
///
/// ```swift
/// let classifier = try await Classifier(contentsOf: url)
/// let result = try await classifier.classify(frame)
/// print(result.predictions[0].label, result.predictions[0].score)
/// ```
///
/// A classifier runs one frame at a time, and calls wait for each other. For several at once,
/// make several classifiers of one ``Model``.
///
/// Cancelling the task that awaits ``classify(_:top:deadline:)`` stops the run before its next step.
public final class Classifier: Sendable {
    /// The model that is run.
    public let model: Model
    private let binding: SkipstoneBindings.Classifier
    private let runs: Runs

    /// How it makes its input and its scores, and who says so.
    public let info: ClassifierInfo

    /// A classifier of `model`, which must take one image and give a score for each class.
    ///
    /// - Throws: ``SkipstoneError`` of kind `model` where it does not, `input` where `options` name a class that
    ///   the model does not have.
    public init(_ model: Model, options: ClassifierOptions = ClassifierOptions()) throws {
        self.model = model
        let binding = try SkipstoneError.translating {
            try SkipstoneBindings.Classifier.with(model: model.binding, options: options.binding)
        }
        self.binding = binding
        info = ClassifierInfo(binding.info())
        runs = Runs("classifier", stop: binding.cancel)
    }

    /// Opens the package at `url`, on no thread that tasks run on.
    ///
    /// - Throws: As ``Model/init(contentsOf:config:)`` and ``init(_:options:)``.
    public convenience init(
        contentsOf url: URL, config: Config = Config(), options: ClassifierOptions = ClassifierOptions()
    ) async throws {
        try self.init(await blocking { try Model(contentsOf: url, config: config) }, options: options)
    }

    /// The best classes of a picture, found on no thread that tasks run on.
    ///
    /// - Parameters:
    ///   - frame: The picture, of any size and turn.
    ///   - top: How many classes at most.
    ///   - deadline: The longest that the run may take; it is checked between its steps.
    /// - Throws: `CancellationError` where the task was cancelled; ``SkipstoneError`` of kind
    ///   `frame`, `input`, `deadline` or `closed`.
    public func classify(_ frame: Frame, top: Int = 5, deadline: Duration? = nil) async throws -> Classification {
        try await runs.run { [binding, info] in
            try binding.setDeadlineMs(ms: deadline?.inMilliseconds)
            return try frame.withAddress { address in
                try Classification(
                    binding.classifyFrameAt(frame: address, top: UInt32(clamping: top)), info.displayNames)
            }
        }
    }

    /// How long the latest runs took, from frame to classes; all zero before the first.
    public var latency: Latency { Latency(binding.latency()) }

    /// Memory of the model, of this classifier and of the process.
    public var memory: Memory { Memory(binding.memory()) }

    /// Starts, or starts again, to take the time of every step. Costs a few microseconds a run.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func startProfile() async throws { try await runs.run { [binding] in try binding.startProfile() } }

    /// Time of every step since ``startProfile()``, in order; empty where that was not called.
    ///
    /// - Throws: ``SkipstoneError`` of kind `closed`.
    public func profile() async throws -> [StepTime] {
        try await runs.run { [binding] in try binding.profile().map(StepTime.init) }
    }

    /// Stops the run that is going on, if one is, and gives the arena back at once. Whatever is
    /// asked later throws ``SkipstoneError`` of kind `closed`.
    ///
    /// A classifier that nobody refers to any more is closed too.
    public func close() { binding.close() }
}

/// What a frame shows, and what it took to see it.
public struct Classification: Hashable, Sendable {
    /// The best classes, best first; fewer than were asked for where others may not be named.
    public let predictions: [Prediction]
    /// Time from the frame to the model's input: turn, crop, resize, colors.
    public let preparation: Duration
    /// Time from the model's input to the classes.
    public let run: Duration
}

/// A class that a frame may show.
public struct Prediction: Hashable, Sendable, Identifiable {
    /// Index of the class in the model's output.
    public let index: Int
    /// Its name.
    public let label: String
    /// Its name in the language that was asked for; the label where the model has no other.
    public let displayName: String
    /// Its score: a probability, unless the model or the options say otherwise.
    public let score: Float

    /// The same as ``index``.
    public var id: Int { index }
}

extension Classification {
    init(_ classification: SkipstoneBindings.Classification, _ names: [String]) {
        predictions = classification.predictions.map {
            let index = Int($0.index)
            let name = names.indices.contains(index) ? names[index] : $0.label
            return Prediction(index: index, label: $0.label, displayName: name, score: $0.score)
        }
        preparation = .milliseconds(classification.prepareMs)
        run = .milliseconds(classification.runMs)
    }
}
