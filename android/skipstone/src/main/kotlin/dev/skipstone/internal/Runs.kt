package dev.skipstone.internal

import dev.skipstone.SkipstoneException
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlinx.coroutines.CancellationException
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
 * many threads as cores, and runs that occupied them would stop every other coroutine of the app. Only threads that call
 * [run] directly, and the coroutines' one thread, wait for the lock.
 *
 * A cancellation may come at any time. Before its turn it keeps the turn from starting. From then on the native object
 * keeps it for the run, should that not have begun; what comes too late for it is withdrawn when the next turn starts.
 *
 * @param begin withdraws a cancellation that no run has seen.
 * @param stop stops the current run, or otherwise the next.
 */
internal class Runs(private val begin: () -> Unit = {}, private val stop: () -> Unit) {
    private val thread = Dispatchers.IO.limitedParallelism(1)
    private val turn = ReentrantLock()
    private val call = CallBuffer()
    private val owner = Any()
    private var running: Caller? = null

    /** A call, from its beginning to its end; accessed under the lock of [owner]. */
    private class Caller {
        var isCancelled = false
    }

    /** Runs [body] after the calls before it. */
    fun <T> run(body: (CallBuffer) -> T): T = run(Caller(), body)

    private fun <T> run(caller: Caller, body: (CallBuffer) -> T): T = turn.withLock {
        synchronized(owner) {
            if (caller.isCancelled) throw CancellationException("cancelled before its turn")
            begin()
            running = caller
        }
        try {
            body(call)
        } finally {
            synchronized(owner) { running = null }
        }
    }

    /** Runs [body] off the caller's thread. Cancelling the coroutine stops the run and waits until it has stopped. */
    suspend fun <T> await(body: (CallBuffer) -> T): T = coroutineScope {
        val caller = Caller()
        val watch = launch(Dispatchers.Unconfined, CoroutineStart.UNDISPATCHED) {
            try {
                awaitCancellation()
            } finally {
                cancel(caller)
            }
        }
        try {
            withContext(thread) { run(caller, body) }
        } catch (cancelled: SkipstoneException.Cancelled) {
            ensureActive()
            throw cancelled
        } finally {
            watch.cancel()
        }
    }

    private fun cancel(caller: Caller) = synchronized(owner) {
        caller.isCancelled = true
        if (running === caller) stop()
    }
}
