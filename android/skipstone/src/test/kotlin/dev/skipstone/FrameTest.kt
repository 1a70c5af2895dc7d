package dev.skipstone

import java.nio.ByteBuffer
import kotlin.math.roundToInt
import kotlin.test.Test
import kotlin.test.assertEquals

/** Rotation, mirroring and crops against plain loops over the pixels. */
class FrameTest {
    private val stored = Pixels(61, 47) { x, y -> (x * 4 shl 16) or (y * 5 shl 8) or ((x * x + 7 * y) and 255) }

    /** The crop has the size of the input, so nothing is resampled, and the scores are bit-equal to the loop's. */
    @Test
    fun `rotations, mirrors and crops agree with a plain loop`() {
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
                    // Mirroring comes after the rotation, whichever was called first.
                    if (mirrored) {
                        val first = stored.frame().mirrored().rotated(degrees).cropped(Region(x, y, 32, 32))
                        assertEquals(want, scores(first), "$how, mirrored first")
                    }
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

    /** Regression: BT.2020 was refused. The scores of this model are the mean of each channel. */
    @Test
    fun `every matrix and range gives the colors of its standard`() {
        val plane = { size: Int, value: Int ->
            val bytes = ByteBuffer.allocateDirect(size * size)
            for (at in 0 until size * size) bytes.put(at, value.toByte())
            Plane(bytes, size)
        }
        val frame = Frame.yuv420(8, 8, plane(8, 120), plane(4, 90), plane(4, 200))
        val found = YuvMatrix.entries.flatMap { matrix ->
            YuvRange.entries.map { range ->
                val raw = ClassifierOptions(Activation.NONE)
                val got = Classifier.openBlocking(VARIABLES, options = raw).use { classifier ->
                    val best = classifier.classifyBlocking(frame.colors(matrix, range), 3).predictions
                    best.sortedBy { it.index }.map { it.score * 255.0 }
                }
                color(matrix, range, 120.0, 90.0, 200.0).zip(got).forEachIndexed { channel, (want, seen) ->
                    assertEquals(want, seen, 0.2, "$matrix $range $channel")
                }
                got.map { it.roundToInt() }
            }
        }
        assertEquals(found.size, found.toSet().size, "colors that are alike show nothing: $found")
    }

    /** Red, green and blue, 0 to 255, by the definition of the standards (ITU-T H.273). */
    private fun color(matrix: YuvMatrix, range: YuvRange, y: Double, u: Double, v: Double): List<Double> {
        val (kr, kb) = when (matrix) {
            YuvMatrix.BT601 -> 0.299 to 0.114
            YuvMatrix.BT709 -> 0.2126 to 0.0722
            YuvMatrix.BT2020 -> 0.2627 to 0.0593
        }
        val (luma, blue, red) = when (range) {
            YuvRange.FULL -> Triple(y, u - 128, v - 128)
            YuvRange.VIDEO -> Triple((y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224)
        }
        val (r, b) = luma + 2 * (1 - kr) * red to luma + 2 * (1 - kb) * blue
        return listOf(r, (luma - kr * r - kb * b) / (1 - kr - kb), b)
    }
}
