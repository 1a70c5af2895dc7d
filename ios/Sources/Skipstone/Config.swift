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

    /// Threads and cores for the shortest latency, and any package, unless told otherwise.
    public init(threads: Int? = nil, power: Power = .fast, publicKey: Data? = nil) {
        self.threads = threads
        self.power = power
        self.publicKey = publicKey
    }

    var binding: SkipstoneBindings.Config {
        let power: SkipstoneBindings.Power =
            switch power {
            case .fast: .fast
            case .balanced: .balanced
            case .efficient: .efficient
            }
        return .init(threads: UInt32(clamping: threads ?? 0), power: power, publicKey: publicKey)
    }
}
