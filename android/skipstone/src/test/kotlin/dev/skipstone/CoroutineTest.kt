package dev.skipstone

import java.util.concurrent.atomic.AtomicInteger
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.yield

class CoroutineTest {
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
    fun `what was closed says so to coroutines too`(): Unit = runBlocking {
        val classifier = open()
        classifier.close()
        assertFailsWith<SkipstoneException.Closed> { classifier.classify(SAMPLES[0].rgb()) }
        assertTrue(Skipstone.version.isNotEmpty())
    }
}
