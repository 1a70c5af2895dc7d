package dev.skipstone

import dev.skipstone.internal.Runs
import java.io.File
import java.util.Collections
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.yield

class CoroutineTest {
    /** Regression: coroutines waited on the threads of `Dispatchers.Default`, and as many as there are cores stopped the
     * app. */
    @Test
    fun `waiting runs do not block the threads of other coroutines`() {
        val runs = Runs {}
        val held = CountDownLatch(1)
        val free = CountDownLatch(1)
        val holder = thread { runs.run { held.countDown().also { free.await() } } }
        held.await()
        val scope = CoroutineScope(Dispatchers.Default)
        val begun = CountDownLatch(64)
        val waiting = List(64) { scope.async { begun.countDown().also { runs.await {} } } }
        val others = begun.await(20, TimeUnit.SECONDS)
        free.countDown()
        holder.join()
        runBlocking { waiting.awaitAll() }
        assertTrue(others, "coroutines that do not wait for a run had no thread")
    }

    /** The same while runs are in progress. */
    @Test
    fun `runs do not block the threads of other coroutines`() {
        val free = CountDownLatch(1)
        val scope = CoroutineScope(Dispatchers.Default)
        val going = List(Runtime.getRuntime().availableProcessors() + 2) { scope.async { Runs {}.await { free.await() } } }
        val another = CountDownLatch(1)
        scope.launch { another.countDown() }
        val others = another.await(20, TimeUnit.SECONDS)
        free.countDown()
        runBlocking { going.awaitAll() }
        assertTrue(others, "coroutines that do not run a model had no thread")
    }

    @Test
    fun `coroutines share a classifier`(): Unit = runBlocking {
        open().use { classifier ->
            val found = SAMPLES.map { async { classifier.classify(it.rgb()).best?.label } }.awaitAll()
            assertEquals(SAMPLES.map { it.label }, found)
        }
    }

    @Test
    fun `a coroutine that is cancelled stops its run and nobody else's`(): Unit = runBlocking {
        open().use { classifier ->
            repeat(50) {
                val begun = CompletableDeferred<Unit>()
                val given = launch(Dispatchers.Default) {
                    while (true) {
                        classifier.classify(SAMPLES[0].rgb())
                        begun.complete(Unit)
                    }
                }
                val kept = async(Dispatchers.Default) { List(20) { classifier.classify(SAMPLES[1].rgb()).best?.label } }
                begun.await()
                given.cancelAndJoin()
                assertEquals(setOf<String?>(SAMPLES[1].label), kept.await().toSet())
            }
        }
    }

    /** Regression: a cancellation was lost if it came when a turn had started, but not yet its native run. */
    @Test
    fun `a cancellation stops its own run from the start of its turn, and no other`(): Unit = runBlocking {
        val log = Collections.synchronizedList(mutableListOf<String>())
        val runs = Runs({ log += "begin" }) { log += "stop" }
        lateinit var given: Job
        given = launch(Dispatchers.Default, CoroutineStart.LAZY) { runs.await { given.cancel().also { log += "run" } } }
        given.join()
        runs.await { log += "next" }
        assertEquals(listOf("begin", "stop", "run", "begin", "next"), log)
    }

    @Test
    fun `a call that is cancelled before its turn does not run`(): Unit = runBlocking {
        val log = Collections.synchronizedList(mutableListOf<String>())
        val runs = Runs { log += "stop" }
        val held = CountDownLatch(1)
        val free = CountDownLatch(1)
        val holder = thread { runs.run { held.countDown().also { free.await() } } }
        held.await()
        val given = launch(Dispatchers.Default) { runs.await { log += "run" } }
        yield()
        given.cancel()
        free.countDown()
        given.join()
        holder.join()
        assertEquals(emptyList(), log)
    }

    @Test
    fun `an analyzer closes every frame and shows the newest`(): Unit = runBlocking {
        open().use { classifier ->
            val closed = AtomicInteger()
            FrameAnalyzer(classifier).use { analyzer ->
                repeat(1000) { at ->
                    analyzer.analyze(SAMPLES[at % SAMPLES.size].rgb().onClose { closed.incrementAndGet() })
                }
                val last = SAMPLES[999 % SAMPLES.size]
                analyzer.results.first { it.best?.label == last.label }
                analyzer.analyze(SAMPLES[0].rgb().rotated(1).onClose { closed.incrementAndGet() })
                assertEquals("frame", analyzer.failures.first().code)
                while (closed.get() < 1001) yield()
            }
            assertEquals(1001, closed.get())
        }
    }

    /** Regression: an exception from making a frame was thrown on the camera's thread, and one from a release ended the
     * analyzer. */
    @Test
    fun `a frame that cannot be made is a failure`(): Unit = runBlocking {
        open().use { classifier ->
            FrameAnalyzer(classifier).use { analyzer ->
                analyzer.analyze { throw SkipstoneException.Frame("frame", "format 7 is not read") }
                assertEquals("format 7 is not read", analyzer.failures.first().message)
                analyzer.analyze { error("the image is closed") }
                assertEquals("frame", analyzer.failures.first { "is closed" in it.message }.code)
                analyzer.analyze { SAMPLES[0].rgb().onClose { error("no such image") } }
                assertEquals("frame.close", analyzer.failures.first { "no such image" in it.message }.code)
                analyzer.analyze { SAMPLES[1].rgb() }
                analyzer.results.first { it.best?.label == SAMPLES[1].label }
            }
        }
    }

    @Test
    fun `an analyzer that is closed takes no frames and keeps none`(): Unit = runBlocking {
        open().use { classifier ->
            val closed = AtomicInteger()
            val analyzer = FrameAnalyzer(classifier)
            repeat(100) { analyzer.analyze(SAMPLES[0].rgb().onClose { closed.incrementAndGet() }) }
            analyzer.close()
            repeat(100) { analyzer.analyze(SAMPLES[0].rgb().onClose { closed.incrementAndGet() }) }
            while (closed.get() < 200) yield()
            assertEquals(200, closed.get())
        }
    }

    @Test
    fun `opening suspends, and an object that nobody waits for is closed`(): Unit = runBlocking {
        val before = Skipstone.openObjects
        Classifier.open(PACKAGE).use { assertEquals(SAMPLES[0].label, it.classify(SAMPLES[0].rgb()).best?.label) }
        Session.open(PACKAGE).use { it.run(it.inputs(), it.outputs()) }
        assertFailsWith<SkipstoneException.Io> { Session.open(File("/nowhere/model.skip")) }
        repeat(100) {
            val given = launch(Dispatchers.Default) { Classifier.open(PACKAGE).close() }
            yield()
            given.cancelAndJoin()
        }
        assertEquals(before, Skipstone.openObjects)
    }

    @Test
    fun `closed objects are errors in coroutines too`(): Unit = runBlocking {
        val classifier = open()
        classifier.close()
        assertFailsWith<SkipstoneException.Closed> { classifier.classify(SAMPLES[0].rgb()) }
        assertTrue(Skipstone.version.isNotEmpty())
    }
}
