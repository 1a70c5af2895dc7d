package dev.skipstone.internal

import dev.skipstone.SkipstoneException
import dev.skipstone.internal.ffi.InternalException
import dev.skipstone.internal.ffi.SkipstoneException as Refusal

/** Calls the generated bindings, and converts their exceptions to this library's. */
internal inline fun <T> facade(what: String, call: () -> T): T =
    try {
        call()
    } catch (refusal: Refusal) {
        throw refusal.translated()
    } catch (panic: InternalException) {
        throw SkipstoneException.Internal("internal", panic.message ?: "a panic")
    } catch (destroyed: IllegalStateException) {
        // What the bindings throw for an object that was freed.
        throw SkipstoneException.Closed("closed", "the $what is closed")
    }

internal fun Refusal.translated(): SkipstoneException = when (this) {
    is Refusal.Package -> SkipstoneException.Package(code, detail)
    is Refusal.Model -> SkipstoneException.Model(code, detail)
    is Refusal.Input -> SkipstoneException.Input(code, detail)
    is Refusal.Frame -> SkipstoneException.Frame(code, detail)
    is Refusal.Cancelled -> SkipstoneException.Cancelled(code, detail)
    is Refusal.Deadline -> SkipstoneException.Deadline(code, detail)
    is Refusal.Closed -> SkipstoneException.Closed(code, detail)
    is Refusal.Unsupported -> SkipstoneException.Unsupported(code, detail)
    is Refusal.Io -> SkipstoneException.Io(code, detail)
    is Refusal.Internal -> SkipstoneException.Internal(code, detail)
}
