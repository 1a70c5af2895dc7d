package dev.skipstone

import kotlin.test.Test
import kotlin.test.assertEquals

/** Rotation, mirroring and crops against plain loops over the pixels. */
class FrameTest {
    private val stored = Pixels(61, 47) { x, y -> (x * 4 shl 16) or (y * 5 shl 8) or ((x * x + 7 * y) and 255) }

    /** The crop has the size of the input, so nothing is resampled, and the scores are bit-equal to the loop's. */
    @Test
    fun `rotations, mirrors and crops agree with a plain loop, in the order of the calls`() {
        open().use { classifier ->
            val scores = { frame: Frame -> classifier.classifyBlocking(frame, 10).predictions }
            for (degrees in listOf(0, 90, 180, 270, -90)) for (mirrored in listOf(false, true)) {
                val upright = stored.turned(degrees.mod(360))
                val seen = if (mirrored) upright.mirrored() else upright
                val frame = { stored.frame().rotated(degrees).let { if (mirrored) it.mirrored() else it } }
                for ((x, y) in listOf(0 to 0, 3 to 11, seen.width - 32 to 2, 5 to seen.height - 32)) {
                    val how = "$degrees $mirrored $x,$y"
                    val want = scores(seen.part(x, y, 32, 32).frame())
                    assertEquals(want, scores(frame().cropped(Region(x, y, 32, 32))), how)
                    // In two steps, which select the same pixels.
                    val first = Region(x / 2, y / 2, seen.width - x / 2, seen.height - y / 2)
                    val twice = frame().cropped(first).cropped(Region(x - x / 2, y - y / 2, 32, 32))
                    assertEquals(want, scores(twice), "$how in two steps")
                    // A crop before mirroring keeps its pixels.
                    if (mirrored) {
                        val before = stored.frame().rotated(degrees).cropped(Region(x, y, 32, 32)).mirrored()
                        assertEquals(scores(upright.part(x, y, 32, 32).mirrored().frame()), scores(before), "$how, cut first")
                    }
                }
            }
        }
    }

    @Test
    fun `a rotation after a crop keeps its pixels`() {
        open().use { classifier ->
            for (degrees in listOf(0, 90, 180, 270)) {
                val frame = stored.frame().cropped(Region(20, 3, 32, 32)).rotated(degrees)
                val want = classifier.classifyBlocking(stored.part(20, 3, 32, 32).turned(degrees).frame(), 10)
                assertEquals(want.predictions, classifier.classifyBlocking(frame, 10).predictions, "$degrees")
            }
        }
    }
}
