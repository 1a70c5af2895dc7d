package dev.skipstone

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class LeakTest {
    /** What is opened and closed ten thousand times leaves nothing behind, on either side. */
    @Test
    fun `opening and closing takes no memory`() {
        val frame = SAMPLES.first().rgb()
        val round = { open().use { it.classifyBlocking(frame) } }
        repeat(500) { round() }
        System.gc()
        val (objects, before) = Skipstone.openObjects to resident()
        repeat(10_000) { round() }
        System.gc()
        val grown = resident() - before
        println("10000 rounds: ${Skipstone.openObjects - objects} objects left, ${grown / 1024} KB more resident")
        assertEquals(objects, Skipstone.openObjects)
        // A classifier of this model takes about 2 MB: one leak in a hundred rounds would be 200.
        assertTrue(grown < 24 shl 20, "$grown bytes")
    }

    private fun resident(): Long = open().use { it.memory.residentBytes!! }
}
