/// Runs `body`, and stops it by `cancel` when the task is cancelled.
///
/// `body` suspends nowhere, so no other call of the same actor can be running when the handler
/// is called; and the handler has returned before this does. Hence no cancellation stops the
/// run of another task.
///
/// A cancellation that comes too early or too late to stop the run is answered after it.
///
/// Swift's tasks share as many threads as there are cores, and keep theirs until they suspend.
/// A loop that classifies one frame after another never has to, so it does so here: otherwise
/// two such loops would be all that a phone with two cores ever runs, and nobody could stop them.
func cancellable<Result>(
    by cancel: @escaping @Sendable () -> Void, isolation: isolated (any Actor)? = #isolation,
    _ body: () throws -> Result
) async throws -> Result {
    try Task.checkCancellation()
    let result = await withTaskCancellationHandler {
        Swift.Result { try SkipstoneError.translating(body) }
    } onCancel: {
        cancel()
    }
    await Task.yield()
    try Task.checkCancellation()
    return try result.get()
}
