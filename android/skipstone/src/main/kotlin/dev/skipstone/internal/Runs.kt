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
 * Runs one native object's calls one after the other, so that one call buffer is enough, and a caller that
 * cancels stops only its own run.
 *
 * Waiting coroutines do not hold a thread, and they run on a thread of this object: [Dispatchers.Default] has only as
 * many
 * threads as cores, and runs that occupied them would stop every other coroutine of the app. Only threads that call
 * [run] directly, and the coroutines' one thread, wait for the lock.
 */
internal class Runs(private val stop: () -> Unit) {
    private val thread = Dispatchers.IO.limitedParallelism(1)
    private val turn = ReentrantLock()
    private val call = CallBuffer()
    private val owner = Any()
    private var running: Any? = null

    /** Runs [body] after the calls before it; [caller] identifies this call for [cancel]. */
    fun <T> run(caller: Any? = null, body: (CallBuffer) -> T): T = turn.withLock {
        synchronized(owner) { running = caller }
        try {
            body(call)
        } finally {
            synchronized(owner) { running = null }
        }
    }

    /** Runs [body] off the caller's thread. Cancelling the coroutine stops the run and waits until it has stopped. */
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
                    // A call that was cancelled while it waited does not run at all.
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
