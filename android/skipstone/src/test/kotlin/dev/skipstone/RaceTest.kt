package dev.skipstone

import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking

/** Many coroutines and one session: each gets its own outputs, even if others are cancelled or close it. */
class RaceTest {
    /** Runs per race; `SKIPSTONE_RACES=100000` for a night. */
    private val runs = System.getenv("SKIPSTONE_RACES")?.toInt() ?: 2000

    private fun inputs(session: Session, number: Int): List<ByteBuffer> = session.inputs().onEach { input ->
        for (at in 0 until input.capacity() step 4) input.putFloat(at, number * 0.5f - 1)
    }

    private fun values(outputs: List<ByteBuffer>) = List(10) { outputs.single().getFloat(4 * it) }

    private fun truth(tasks: Int): List<List<Float>> = Session.openBlocking(PACKAGE).use { session ->
        val truth = List(tasks) { task ->
            session.outputs().also { session.runBlocking(inputs(session, task), it) }.let(::values)
        }
        assertEquals(tasks, truth.toSet().size, "outputs that are alike show nothing")
        truth
    }

    @Test
    fun `every coroutine gets its own outputs`(): Unit = runBlocking(Dispatchers.Default) {
        for (tasks in listOf(4, 16)) {
            val truth = truth(tasks)
            Session.openBlocking(PACKAGE).use { session ->
                val wrong = List(tasks) { task ->
                    async {
                        val (inputs, outputs) = inputs(session, task) to session.outputs()
                        (0 until runs / tasks).count { session.run(inputs, outputs).let { values(outputs) } != truth[task] }
                    }
                }.awaitAll().sum()
                assertEquals(0, wrong)
            }
        }
    }

    @Test
    fun `cancelling changes nobody else's outputs`(): Unit = runBlocking(Dispatchers.Default) {
        for (tasks in listOf(4, 16)) {
            val truth = truth(tasks)
            Session.openBlocking(PACKAGE).use { session ->
                List(tasks) { task ->
                    async {
                        for (round in 0 until runs / tasks) {
                            val outputs = session.outputs()
                            val run = async { session.run(inputs(session, task), outputs) }
                            val isCancelled = (round + task) % 3 == 0
                            if (isCancelled) run.cancel()
                            try {
                                run.await()
                                assertEquals(truth[task], values(outputs))
                            } catch (cancelled: CancellationException) {
                                assertTrue(isCancelled)
                            }
                        }
                    }
                }.awaitAll()
            }
        }
    }

    @Test
    fun `closing changes no outputs`(): Unit = runBlocking(Dispatchers.Default) {
        for (tasks in listOf(4, 16)) {
            val truth = truth(tasks)
            repeat(20) {
                val session = Session.openBlocking(PACKAGE)
                val begun = Channel<Unit>(Channel.CONFLATED)
                val jobs = List(tasks) { task ->
                    launch {
                        val (inputs, outputs) = inputs(session, task) to session.outputs()
                        while (true) {
                            try {
                                session.run(inputs, outputs)
                            } catch (closed: SkipstoneException.Closed) {
                                break
                            } catch (stopped: SkipstoneException.Cancelled) {
                                continue
                            }
                            assertEquals(truth[task], values(outputs))
                            begun.trySend(Unit)
                        }
                    }
                }
                begun.receive()
                session.close()
                jobs.forEach { it.join() }
            }
        }
    }
}
