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
        /// The small ones, where the system lets a program choose: the least energy.
        case efficient
    }

    /// Threads of a run, the caller's included; `nil` takes as many as ``power`` has cores for.
    public var threads: Int?
    /// Which cores a run may use.
    public var power: Power
    /// Ed25519 public key of 32 bytes. Where it is given, only a package signed with the
    /// matching secret key is opened.
    public var publicKey: Data?
    /// Whether a package's file is read into memory instead of mapped: nothing that becomes of the file matters then.
    public var copy: Bool
    /// Shapes of an ONNX file's dynamic inputs, by name; a package has none.
    public var shapes: [String: [Int]]

    /// One thread on whichever core the system gives, and any package, mapped, unless told otherwise.
    ///
    /// More threads share every step, and a step is over when the slowest core is done with its part: where
    /// efficiency cores take part, two threads can be slower than one.
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
