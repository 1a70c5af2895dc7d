internal import SkipstoneBindings

/// What a ``Classifier`` should do differently from what its model says.
public struct ClassifierOptions: Hashable, Sendable {
    /// How a model's output becomes scores.
    public enum Activation: Hashable, Sendable, CaseIterable {
        /// The classes exclude each other: the scores sum to 1.
        case softmax
        /// Each class is scored on its own, for models with several labels per image.
        case sigmoid
        /// The output unchanged.
        case none
    }

    /// How the output becomes scores; `nil` for what the package's metadata or the model's last operator says.
    public var activation: Activation?
    /// The lowest score that is reported.
    public var threshold: Float?
    /// The only classes that may be reported, by label or as `class 7`; all if empty.
    public var allow: [String]
    /// Classes that are never reported; not together with ``allow``.
    public var deny: [String]
    /// Language of ``Prediction/displayName``, such as `de` or `pt-BR`.
    public var locale: String?
    /// The text of a labels file, one per line, instead of the package's labels.
    public var labels: String?

    /// By default, everything is as the model says.
    public init(
        activation: Activation? = nil, threshold: Float? = nil, allow: [String] = [], deny: [String] = [],
        locale: String? = nil, labels: String? = nil
    ) {
        self.activation = activation
        self.threshold = threshold
        self.allow = allow
        self.deny = deny
        self.locale = locale
        self.labels = labels
    }

    var binding: SkipstoneBindings.ClassifierOptions {
        let activation: SkipstoneBindings.Activation? =
            switch activation {
            case .softmax?: .softmax
            case .sigmoid?: .sigmoid
            case ClassifierOptions.Activation.none?: SkipstoneBindings.Activation.none
            case nil: nil
            }
        return .init(
            activation: activation, threshold: threshold, allow: allow, deny: deny, locale: locale, labels: labels)
    }
}

/// How a ``Classifier`` makes its input and its scores, and where that was specified.
public struct ClassifierInfo: Hashable, Sendable {
    /// Names of the classes, in the order of the output; empty if the model has none.
    public let labels: [String]
    /// The same in the requested language.
    public let displayNames: [String]
    /// What the scores are, such as `sigmoid inside the model, by the model's last operator, prob`.
    public let scores: String
    /// How images are normalized.
    public let normalization: Normalization
    /// The shorter side, in pixels, to which a photo may be shrunk while it is decoded: from there on nothing is enlarged.
    public let photoSide: Int

    /// The values subtracted from each channel of an image (scaled to 0..1), and those it is then divided by.
    public struct Normalization: Hashable, Sendable {
        /// Mean of the channels.
        public let mean: [Float]
        /// Standard deviation of the channels.
        public let std: [Float]
        /// Where this was specified, such as `by the model's metadata`; begins with `assumed` if nowhere.
        public let origin: String
    }
}

extension ClassifierInfo {
    init(_ info: SkipstoneBindings.ClassifierInfo) {
        labels = info.labels
        displayNames = info.displayNames
        scores = info.scores
        normalization = Normalization(
            mean: info.normalization.mean, std: info.normalization.std, origin: info.normalization.origin)
        photoSide = Int(info.photoSide)
    }
}
