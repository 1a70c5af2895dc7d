import Foundation
internal import SkipstoneBindings

/// Why a call to Skipstone failed.
///
/// Match on ``kind`` to decide what to do, log ``code`` to tell cases apart, and show ``message`` to the model's
/// author:
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
        /// The package file is damaged, not signed with the given key, or made for another CPU.
        case package
        /// The model in the package is inconsistent.
        case model
        /// A tensor has the wrong type, shape or count for the model.
        case input
        /// A frame's planes do not match its size or format.
        case frame
        /// The run was stopped; a cancelled task throws `CancellationError` instead.
        case cancelled
        /// The run took longer than its deadline.
        case deadline
        /// The classifier or session was used after it was closed.
        case closed
        /// This build or this CPU does not support what the model or the image needs.
        case unsupported
        /// The file could not be read.
        case io
        /// A bug in Skipstone: please report it.
        case `internal`
    }

    /// What is at fault.
    public let kind: Kind
    /// A stable name for the case, such as `package.hash`: the same in all languages and releases.
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

    /// Runs `body`, and converts errors of the generated bindings to this type.
    static func translating<Result>(_ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let error as SkipstoneBindings.SkipstoneError {
            throw SkipstoneError(error)
        } catch let error as SkipstoneError {
            throw error
        } catch {
            // Only a panic caught at the boundary arrives here.
            throw SkipstoneError(.internal, code: "internal", String(describing: error))
        }
    }
}
