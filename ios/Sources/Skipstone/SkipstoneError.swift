import Foundation
internal import SkipstoneBindings

/// Why Skipstone could not do what it was asked.
///
/// Match on ``kind`` to decide what to do, log ``code`` to tell cases apart, and show
/// ``message`` to whoever made the model:
///
/// ```swift
/// do {
///     let classifier = try await Classifier(contentsOf: url)
/// } catch let error as SkipstoneError where error.kind == .package {
///     // damaged while downloading: fetch it again
/// }
/// ```
public struct SkipstoneError: Error, Hashable, Sendable {
    /// What is at fault.
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        /// The package file is damaged, not signed by the key asked for, or made for another CPU.
        case package
        /// The model in the package contradicts itself.
        case model
        /// A tensor has another type, shape or number than the model wants.
        case input
        /// A frame's planes do not hold the picture that they are said to hold.
        case frame
        /// The run was stopped; a cancelled task throws `CancellationError` instead.
        case cancelled
        /// The run took longer than its deadline.
        case deadline
        /// The classifier or session was used after it had been closed.
        case closed
        /// The model, the picture or this CPU lacks something that was asked for.
        case unsupported
        /// The file could not be read.
        case io
        /// A bug in Skipstone: please report it.
        case `internal`
    }

    /// What is at fault.
    public let kind: Kind
    /// A stable name of the case, such as `package.hash`: the same in all languages and releases.
    public let code: String
    /// What is wrong, and where, in English.
    public let message: String

    init(_ kind: Kind, code: String, _ message: String) {
        self.kind = kind
        self.code = code
        self.message = message
    }
}

extension SkipstoneError: LocalizedError, CustomStringConvertible {
    public var errorDescription: String? { message }
    public var description: String { "error[\(code)]: \(message)" }
}

extension SkipstoneError {
    init(_ error: SkipstoneBindings.SkipstoneError) {
        switch error {
        case .Package(let code, let message): self.init(.package, code: code, message)
        case .Model(let code, let message): self.init(.model, code: code, message)
        case .Input(let code, let message): self.init(.input, code: code, message)
        case .Frame(let code, let message): self.init(.frame, code: code, message)
        case .Cancelled(let code, let message): self.init(.cancelled, code: code, message)
        case .Deadline(let code, let message): self.init(.deadline, code: code, message)
        case .Closed(let code, let message): self.init(.closed, code: code, message)
        case .Unsupported(let code, let message): self.init(.unsupported, code: code, message)
        case .Io(let code, let message): self.init(.io, code: code, message)
        case .Internal(let code, let message): self.init(.internal, code: code, message)
        }
    }

    /// Runs `body`, and gives what the generated bindings throw the type of this module.
    static func translating<Result>(_ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let error as SkipstoneBindings.SkipstoneError {
            throw SkipstoneError(error)
        } catch let error as SkipstoneError {
            throw error
        } catch {
            // Only a panic caught at the boundary gets here.
            throw SkipstoneError(.internal, code: "internal", String(describing: error))
        }
    }
}
