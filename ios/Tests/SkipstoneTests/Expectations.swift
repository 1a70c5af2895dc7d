import Skipstone
import Testing

/// Expects a `SkipstoneError` of the given kind, with a code and a message that says `part`.
func expectError(
    _ kinds: SkipstoneError.Kind..., code: String? = nil, of what: String = "", saying part: String? = nil,
    at location: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
) async {
    do {
        try await body()
        Issue.record("no error \(what)", sourceLocation: location)
    } catch let error as SkipstoneError {
        #expect(kinds.contains(error.kind), "\(error) \(what)", sourceLocation: location)
        #expect(!error.code.isEmpty && !error.message.isEmpty, sourceLocation: location)
        if let code { #expect(error.code == code, sourceLocation: location) }
        if let part { #expect(error.message.contains(part), sourceLocation: location) }
    } catch {
        Issue.record("\(type(of: error)): \(error) \(what)", sourceLocation: location)
    }
}

/// A task that repeats `body` until it throws; returned once `body` has run.
func begun(_ body: @escaping @Sendable () async throws -> Void) async -> Task<Void, any Error> {
    let (rounds, done) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    let task = Task {
        defer { done.finish() }
        while true {
            try await body()
            done.yield()
        }
    }
    for await _ in rounds { break }
    return task
}
