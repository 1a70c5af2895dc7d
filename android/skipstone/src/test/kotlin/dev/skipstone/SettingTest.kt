package dev.skipstone

import java.nio.ByteBuffer
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.joinAll
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking

/**
 * Settings and state of the model that `tests/devices/variables.py` writes: its scores are `gain` times the mean of
 * each channel, negated if `negate`, plus the scores of the run before.
 */
class SettingTest {
    /** An image whose channels have these values. */
    private fun fill(image: ByteBuffer, vararg channels: Float) {
        for (at in 0 until 3 * 64) image.putFloat(4 * at, channels[at / 64])
    }

    private fun values(outputs: List<ByteBuffer>) = List(3) { outputs.single().getFloat(4 * it) }

    private fun scores(session: Session): List<Float> {
        val (inputs, outputs) = session.inputs() to session.outputs()
        fill(inputs.single(), 1f, 2f, 4f)
        session.runBlocking(inputs, outputs)
        return values(outputs)
    }

    @Test
    fun `settings hold until they are set again, and state until it is reset`(): Unit = runBlocking {
        Session.openBlocking(VARIABLES).use { session ->
            assertEquals(listOf(1f, 2f, 4f), scores(session))
            assertEquals(listOf(2f, 4f, 8f), scores(session))
            session.reset()
            assertEquals(listOf(1f, 2f, 4f), scores(session))
            session.set("gain", Setting(0.5, 0.0, -1.0))
            assertEquals(listOf(1.5f, 2f, 0f), scores(session))
            session.resetBlocking()
            session.setBlocking("negate", Setting(true))
            assertEquals(listOf(-0.5f, 0f, 4f), scores(session))
            session.set("negate", Setting(0))
            session.set("last", Setting(10.0, 20.0, 30.0))
            assertEquals(listOf(10.5f, 20f, 26f), scores(session))
            // Another session of the same model has values of its own.
            Session.openBlocking(VARIABLES).use { assertEquals(listOf(1f, 2f, 4f), scores(it)) }
        }
    }

    @Test
    fun `settings of a classifier change its answer, and it carries state from frame to frame`(): Unit = runBlocking {
        val gray = Pixels(8, 8) { _, _ -> 0x808080 }.frame()
        Classifier.openBlocking(VARIABLES, options = ClassifierOptions(Activation.NONE)).use { classifier ->
            classifier.set("gain", Setting(0.0, 1.0, 0.0))
            val best = classifier.classify(gray).best!!
            assertEquals("green", best.label)
            assertEquals(128 / 255f, best.score, 1e-4f)
            assertEquals(2 * best.score, classifier.classify(gray).best!!.score)
            classifier.reset()
            assertEquals(best.score, classifier.classify(gray).best!!.score)
            classifier.resetBlocking()
            classifier.setBlocking("gain", Setting(0.0, 0.0, 1.0))
            assertEquals("blue", classifier.classify(gray).best!!.label)
        }
    }

    @Test
    fun `warming up leaves settings, and no state`(): Unit = runBlocking {
        Session.open(VARIABLES).use { session ->
            session.set("gain", Setting(2.0, 2.0, 2.0))
            session.set("last", Setting(10.0, 20.0, 30.0))
            session.warmUp()
            assertEquals(listOf(2f, 4f, 8f), scores(session))
            session.warmUpBlocking()
            assertEquals(listOf(2f, 4f, 8f), scores(session))
            assertEquals(4L, session.latency.runs)
        }
        val gray = Pixels(8, 8) { _, _ -> 0x808080 }.frame()
        Classifier.open(VARIABLES).use { classifier ->
            val want = classifier.classify(gray).predictions
            classifier.warmUp()
            assertEquals(want, classifier.classify(gray).predictions)
            classifier.warmUpBlocking()
            assertEquals(want, classifier.classify(gray).predictions)
            classifier.close()
            assertFailsWith<SkipstoneException.Closed> { classifier.warmUp() }
        }
    }

    @Test
    fun `names and values that do not fit are refused and change nothing`(): Unit = runBlocking {
        Session.openBlocking(VARIABLES).use { session ->
            for ((code, name, value) in listOf(
                Triple("setting.unknown", "image", Setting(1.0)),
                Triple("setting.unknown", "", Setting(1.0)),
                Triple("setting.unknown", "gain\u0000", Setting(1.0, 1.0, 1.0)),
                Triple("setting.value", "gain", Setting(5.0)),
                Triple("setting.value", "gain", Setting()),
                Triple("setting.value", "gain", Setting(5.0, 5.0, 1e300)),
                Triple("setting.value", "negate", Setting(0.5)),
                Triple("setting.value", "negate", Setting(2)),
                Triple("setting.value", "last", Setting(5.0, 5.0, 5.0, 5.0)),
            )) {
                assertEquals(code, assertFailsWith<SkipstoneException.Input>(name) { session.set(name, value) }.code)
            }
            val unknown = assertFailsWith<SkipstoneException.Input> { session.setBlocking("thresh", Setting(1)) }
            assertTrue("gain" in unknown.message && "negate" in unknown.message, unknown.message)
            assertEquals(listOf(1f, 2f, 4f), scores(session))
        }
        open().use { plain ->
            val none = assertFailsWith<SkipstoneException.Input> { plain.set("gain", Setting(1)) }
            assertEquals("setting.unknown", none.code)
            plain.reset()
        }
    }

    @Test
    fun `closed objects have no settings`(): Unit = runBlocking {
        val (session, classifier) = Session.openBlocking(VARIABLES) to Classifier.openBlocking(VARIABLES)
        session.close()
        classifier.close()
        assertFailsWith<SkipstoneException.Closed> { session.set("negate", Setting(true)) }
        assertFailsWith<SkipstoneException.Closed> { session.resetBlocking() }
        assertFailsWith<SkipstoneException.Closed> { classifier.setBlocking("negate", Setting(true)) }
        assertFailsWith<SkipstoneException.Closed> { classifier.reset() }
    }

    /** All channels and gains are alike, so the scores of a run are too, unless a setting changed during it. */
    @Test
    fun `settings change only between runs`(): Unit = runBlocking(Dispatchers.Default) {
        Session.openBlocking(VARIABLES).use { session ->
            val setter = { first: Int ->
                launch {
                    for (gain in first until first + 500) {
                        session.set("gain", Setting(gain.toDouble(), gain.toDouble(), gain.toDouble()))
                        if (gain % 7 == 0) session.reset()
                    }
                }
            }
            val blocking = thread {
                for (round in 0 until 500) session.setBlocking("negate", Setting(round % 2 == 0))
            }
            val runs = List(4) {
                launch {
                    val (inputs, outputs) = session.inputs() to session.outputs()
                    fill(inputs.single(), 0.5f, 0.5f, 0.5f)
                    repeat(500) {
                        session.run(inputs, outputs)
                        assertEquals(1, values(outputs).toSet().size, "${values(outputs)}")
                    }
                }
            }
            (runs + setter(1) + setter(1000)).joinAll()
            blocking.join()
        }
    }
}
