package dev.skipstone.internal

import dev.skipstone.SkipstoneException
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/**
 * Takes the runs of one native object in turn, so that one call buffer does for all of them, and so that a caller who
 * gives up stops its own run and nobody else's.
 *
 * Coroutines wait for their turn without a thread, and run on one of the object's own: [Dispatchers.Default] has as many
 * threads as cores, and runs that took one each, or waited there, would stop every other coroutine of the app. Only a
 * thread that asks for a run itself waits for the lock, and the one thread of the coroutines.
 */
internal class Runs(private val stop: () -> Unit) {
    private val thread = Dispatchers.IO.limitedParallelism(1)
    private val turn = ReentrantLock()
    private val call = CallBuffer()
    private val owner = Any()
    private var running: Any? = null

    /** Runs [body] when it is its turn; [caller] is who [give up][cancel] may name. */
    fun <T> run(caller: Any? = null, body: (CallBuffer) -> T): T = turn.withLock {
        synchronized(owner) { running = caller }
        try {
            body(call)
        } finally {
            synchronized(owner) { running = null }
        }
    }

    /** Runs [body] off the caller's thread. A coroutine that is cancelled meanwhile stops it, and waits until it has stopped. */
    suspend fun <T> await(body: (CallBuffer) -> T): T = coroutineScope {
        val caller = Any()
        val watch = launch(Dispatchers.Unconfined, CoroutineStart.UNDISPATCHED) {
            try {
                awaitCancellation()
            } finally {
                cancel(caller)
            }
        }
        try {
            withContext(thread) {
                run(caller) { call ->
                    // Whoever gave up while it waited for its turn does not run at all.
                    ensureActive()
                    body(call)
                }
            }
        } catch (cancelled: SkipstoneException.Cancelled) {
            ensureActive()
            throw cancelled
        } finally {
            watch.cancel()
        }
    }

    private fun cancel(caller: Any) = synchronized(owner) {
        if (running === caller) stop()
    }
}
