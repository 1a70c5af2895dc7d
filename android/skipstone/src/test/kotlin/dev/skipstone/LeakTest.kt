package dev.skipstone

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class LeakTest {
    /** Opening and closing fourteen thousand times leaks nothing, on either side. */
    @Test
    fun `opening and closing does not leak memory`() {
        val frame = SAMPLES.first().rgb()
        val round = { open().use { it.classifyBlocking(frame) } }
        // The JIT's own memory grows at first, on a busy machine for longer.
        repeat(6_000) { round() }
        System.gc()
        val (objects, before) = Skipstone.openObjects to resident()
        for (part in 1..4) {
            repeat(2_000) { round() }
            System.gc()
            val grown = (resident() - before) / 1024
            println("${part * 2_000} rounds: ${Skipstone.openObjects - objects} objects left, $grown KB more resident")
        }
        assertEquals(objects, Skipstone.openObjects)
        // A classifier of this model takes about 2 MB: one leak in a thousand rounds would be 16.
        val grown = resident() - before
        assertTrue(grown < 12 shl 20, "$grown bytes")
    }

    private fun resident(): Long = open().use { it.memory.residentBytes!! }
}
