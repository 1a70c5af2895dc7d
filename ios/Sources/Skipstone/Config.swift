import Foundation
internal import SkipstoneBindings

/// How a ``Model`` is loaded and run.
public struct Config: Hashable, Sendable {
    /// Which cores a run may use.
    public enum Power: Hashable, Sendable, CaseIterable {
        /// The fast ones: the shortest latency.
        case fast
        /// Whichever the system gives.
        case balanced
        /// The small ones, if the system lets a program choose: the least energy.
        case efficient
    }

    /// Threads per run, including the caller's; `nil` means as many as ``power`` has cores.
    public var threads: Int?
    /// Which cores a run may use.
    public var power: Power
    /// Ed25519 public key of 32 bytes. If given, only packages signed with the matching secret key are opened.
    public var publicKey: Data?
    /// Whether to read a package's file into memory instead of mapping it, so that later changes do not matter.
    public var copy: Bool
    /// Shapes of an ONNX file's dynamic inputs, by name; packages have none.
    public var shapes: [String: [Int]]
    /// Limits on what a model may need, by name, instead of the defaults.
    ///
    /// A model above one is refused with its name. All but the first three are for ONNX files. The calls that open a
    /// model throw ``SkipstoneError`` of kind `input` (code `input.limit`) for a limit that does not exist, or is
    /// negative.
    ///
    /// | limit | unit | of | default |
    /// |---|---|---|---|
    /// | `memory` | bytes | a session: arena with scratch, inputs, state, copies of outputs | 2^30 |
    /// | `work` | steps | a run: multiply-adds, and elements read and written | 2^38 |
    /// | `iterations` | iterations | all loops of a run | 2^20 |
    /// | `file` | bytes | the file | 2^31 |
    /// | `external` | bytes | external data, once per tensor | 2^31 |
    /// | `nodes` | nodes | the model, with its functions expanded | 100,000 |
    /// | `items` | items | messages and strings of the file | 2,000,000 |
    /// | `depth` | levels | nested messages | 32 |
    /// | `inputs` | inputs | a node | 2^12 |
    /// | `attributes` | attributes | a node | 256 |
    /// | `name` | bytes | a name | 2^12 |
    /// | `string` | bytes | a string attribute, or an entry of the metadata | 2^24 |
    /// | `rank` | dimensions | a tensor | 32 |
    /// | `elements` | elements | a tensor | 2^28 |
    /// | `folded` | elements | everything computed from constants while loading | 2^26 |
    /// | `folded-work` | steps | everything computed from constants while loading | 2^30 |
    public var limits: [String: Int]
    /// Most bytes of the weights of experts in memory at a time; `nil` for no such bound.
    ///
    /// For a package of a mixture of experts that is packed for the device's instruction set and mapped from its file: a
    /// part of it is in memory, and experts are read as a run needs them, most of them ahead. The answers are the same.
    /// The calls that open a model throw ``SkipstoneError`` for a budget that does not fit the largest expert, with the
    /// bytes that it needs, and one of kind `input` (code `input.budget`) for a negative one.
    public var expertBudget: Int?

    /// By default, one thread on whichever core the system gives, and any package, mapped.
    ///
    /// All threads share every step, and a step ends when the slowest core finishes its part: if efficiency cores take
    /// part, two threads can be slower than one.
    public init(
        threads: Int? = 1, power: Power = .balanced, publicKey: Data? = nil, copy: Bool = false,
        shapes: [String: [Int]] = [:], limits: [String: Int] = [:], expertBudget: Int? = nil
    ) {
        self.threads = threads
        self.power = power
        self.publicKey = publicKey
        self.copy = copy
        self.shapes = shapes
        self.limits = limits
        self.expertBudget = expertBudget
    }

    var binding: SkipstoneBindings.Config {
        let power: SkipstoneBindings.Power =
            switch power {
            case .fast: .fast
            case .balanced: .balanced
            case .efficient: .efficient
            }
        return .init(
            threads: UInt32(clamping: threads ?? 0), power: power, publicKey: publicKey, copy: copy,
            shapes: shapes.mapValues { $0.map { UInt64(clamping: $0) } }, limits: limits.mapValues { Int64($0) },
            expertBudget: expertBudget.map { Int64($0) })
    }
}
