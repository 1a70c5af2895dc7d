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

    /// By default, one thread on whichever core the system gives, and any package, mapped.
    ///
    /// All threads share every step, and a step ends when the slowest core finishes its part: if efficiency cores take
    /// part, two threads can be slower than one.
    public init(
        threads: Int? = 1, power: Power = .balanced, publicKey: Data? = nil, copy: Bool = false,
        shapes: [String: [Int]] = [:]
    ) {
        self.threads = threads
        self.power = power
        self.publicKey = publicKey
        self.copy = copy
        self.shapes = shapes
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
            shapes: shapes.mapValues { $0.map { UInt64(clamping: $0) } })
    }
}
