internal import SkipstoneBindings

/// What a ``Classifier`` is to do otherwise than its model says.
public struct ClassifierOptions: Hashable, Sendable {
    /// What makes scores of a model's output.
    public enum Activation: Hashable, Sendable, CaseIterable {
        /// One class of all: the scores sum to 1.
        case softmax
        /// Each class on its own: what a model for several labels wants.
        case sigmoid
        /// The output as it is.
        case none
    }

    /// What makes scores of the output; `nil` does what the package's metadata or the model's last operator tells.
    public var activation: Activation?
    /// The least score of a class that is named.
    public var threshold: Float?
    /// The only classes that may be named, by label or as `class 7`; all where empty.
    public var allow: [String]
    /// Classes that are not named; not together with ``allow``.
    public var deny: [String]
    /// Language of ``Prediction/displayName``, such as `de` or `pt-BR`.
    public var locale: String?
    /// The text of a file of labels, one a line, instead of the package's.
    public var labels: String?

    /// Everything as the model says, unless told otherwise.
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

/// How a ``Classifier`` makes its input and its scores, and who says so.
public struct ClassifierInfo: Hashable, Sendable {
    /// Names of the classes, in the order of the output; empty where nothing names them.
    public let labels: [String]
    /// The same in the language that was asked for.
    public let displayNames: [String]
    /// What the scores are, such as `sigmoid inside the model, by the model's last operator, prob`.
    public let scores: String
    /// What images are normalized by.
    public let normalization: Normalization

    /// What is subtracted from each channel of an image, for values between 0 and 1, and what it is then divided by.
    public struct Normalization: Hashable, Sendable {
        /// Mean of the channels.
        public let mean: [Float]
        /// Standard deviation of the channels.
        public let std: [Float]
        /// Who says so, such as `by the model's metadata`; it begins with `assumed` where nobody does.
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
    }
}
