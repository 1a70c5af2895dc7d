package dev.skipstone

import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlinx.coroutines.runBlocking

class SessionTest {
    /** The input prepared here by hand must give the same scores as the classifier's own preparation. */
    @Test
    fun `tensors are read and written in place`() {
        Session.openBlocking(PACKAGE).use { session ->
            val numbers = { key: String -> session.model.metadata.getValue(key).split(',').map { it.trim().toFloat() } }
            val (mean, std) = numbers("skipstone.mean") to numbers("skipstone.std")
            val (inputs, outputs) = session.inputs() to session.outputs()
            for (sample in SAMPLES) {
                for (channel in 0..2) for (y in 0 until 32) for (x in 0 until 32) {
                    val value = (sample.color(x, y) shr (16 - 8 * channel) and 255) / 255f
                    inputs.single().putFloat(4 * ((channel * 32 + y) * 32 + x), (value - mean[channel]) / std[channel])
                }
                session.runBlocking(inputs, outputs)
                val best = (0 until 10).maxBy { outputs.single().getFloat(4 * it) }
                assertEquals(sample.label, session.model.labels[best], sample.name)
            }
            assertEquals(SAMPLES.size.toLong(), session.latency.runs)
        }
    }

    /** A model that is no classifier gets its input from the same frames. */
    @Test
    fun `frames become inputs`(): Unit = runBlocking {
        val options = ClassifierOptions(activation = Activation.NONE)
        val (session, classifier) = Session.open(PACKAGE) to Classifier.open(PACKAGE, options = options)
        val (inputs, outputs) = session.inputs() to session.outputs()
        for (sample in SAMPLES) {
            for (frame in listOf(sample.rgb(), sample.rgb().rotated(90).mirrored().cropped(Region(3, 5, 20, 17)))) {
                session.run(listOf(session.prepare(frame)), outputs)
                for (shown in classifier.classify(frame, top = 10).predictions) {
                    assertEquals(shown.score, outputs.single().getFloat(4 * shown.index), sample.name)
                }
                session.prepareBlocking(frame, tensor = inputs.single())
                assertEquals(session.prepare(frame), inputs.single())
            }
        }
        assertEquals(2L * SAMPLES.size, session.latency.runs)
        val frame = SAMPLES.first().rgb()
        val code = { input: Int, tensor: ByteBuffer? ->
            assertFailsWith<SkipstoneException.Input> { session.prepareBlocking(frame, input, tensor) }.code
        }
        assertEquals("input.unknown", code(1, null))
        assertEquals("input.unknown", code(-1, null))
        assertEquals("input.size", code(0, outputs.single()))
        assertEquals("input.buffer", code(0, ByteBuffer.allocate(4 * 3 * 32 * 32)))
        assertEquals("input.buffer", code(0, inputs.single().asReadOnlyBuffer()))
        assertFailsWith<SkipstoneException.Frame> { session.prepare(Frame.rgb(33, 32, frame.planes.single().bytes)) }
        session.close()
        classifier.close()
        assertFailsWith<SkipstoneException.Closed> { session.prepare(frame) }
    }

    @Test
    fun `tensors that do not fit are refused`() {
        Session.openBlocking(PACKAGE).use { session ->
            val (inputs, outputs) = session.inputs() to session.outputs()
            val code = { i: List<ByteBuffer>, o: List<ByteBuffer> ->
                assertFailsWith<SkipstoneException.Input> { session.runBlocking(i, o) }.code
            }
            assertEquals("input.missing", code(emptyList(), outputs))
            assertEquals("input.missing", code(inputs, outputs + outputs))
            assertEquals("input.size", code(outputs, outputs))
            assertEquals("input.size", code(inputs, listOf(ByteBuffer.allocateDirect(36))))
            assertEquals("input.buffer", code(listOf(ByteBuffer.allocate(4 * 3 * 32 * 32)), outputs))
            assertEquals("input.buffer", code(inputs, listOf(ByteBuffer.allocate(40))))
            val crooked = ByteBuffer.allocateDirect(4 * 3 * 32 * 32 + 1).position(1)
            assertEquals("input.address", code(listOf(crooked), outputs))
            session.runBlocking(inputs, outputs)
        }
    }
}
