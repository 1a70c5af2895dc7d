package dev.skipstone

import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

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
