package dev.skipstone

import android.graphics.ImageFormat
import android.hardware.DataSpace
import dev.skipstone.internal.DataSpaces
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.roundToInt
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

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

    /**
     * Regression: BT.2020 was refused. The scores of this model are the mean of each channel. Samples of 10 bits are four
     * times those of 8.
     */
    @Test
    fun `every format, matrix and range gives the colors of its standard`() {
        Classifier.openBlocking(VARIABLES, options = ClassifierOptions(Activation.NONE)).use { classifier ->
            for (format in YuvFormat.entries) {
                val isDeep = format == YuvFormat.P010 || format == YuvFormat.P210
                val rows = if (format == YuvFormat.YUV_422 || format == YuvFormat.P210) 8 else 4
                val bytes = if (isDeep) 2 else 1
                val plane = { columns: Int, lines: Int, value: Int ->
                    val samples = ByteBuffer.allocateDirect(columns * lines * bytes)
                    // The upper bits of a word, whose lower byte comes first.
                    for (at in bytes - 1 until samples.capacity() step bytes) samples.put(at, value.toByte())
                    Plane(samples, columns * bytes, bytes)
                }
                val frame = Frame.yuv(format, 8, 8, plane(8, 8, 120), plane(4, rows, 90), plane(4, rows, 200))
                val found = YuvMatrix.entries.flatMap { matrix ->
                    YuvRange.entries.map { range ->
                        classifier.resetBlocking()
                        val best = classifier.classifyBlocking(frame.colors(matrix, range), 3).predictions
                        val got = best.sortedBy { it.index }.map { it.score * 255.0 }
                        color(matrix, range, if (isDeep) 10 else 8, 120, 90, 200).zip(got).forEachIndexed { channel, (want, seen) ->
                            assertEquals(want, seen, 0.2, "$format $matrix $range $channel")
                        }
                        got.map { it.roundToInt() }
                    }
                }
                assertEquals(found.size, found.toSet().size, "colors that are alike show nothing: $found")
            }
        }
    }

    /** A row of interleaved pairs of words, as cameras store P010, is one plane for both chromas. */
    @Test
    fun `interleaved chroma of ten bits is read like separate planes`() {
        val word = { at: Int -> (at * 7919 % 1024) shl 6 }
        val words = { count: Int, value: (Int) -> Int ->
            ByteBuffer.allocateDirect(2 * count).order(ByteOrder.LITTLE_ENDIAN).also { bytes ->
                for (at in 0 until count) bytes.putShort(2 * at, value(at).toShort())
            }
        }
        val luma = Plane(words(61 * 47, word), 2 * 61, 2)
        val pairs = words(2 * 31 * 24) { word(it + 5) }
        val (blue, red) = words(31 * 24) { word(2 * it + 5) } to words(31 * 24) { word(2 * it + 6) }
        val interleaved = { first: Int -> Plane(pairs.duplicate().position(2 * first) as ByteBuffer, 4 * 31, 4) }
        val separate = { plane: ByteBuffer -> Plane(plane, 2 * 31, 2) }
        open().use { classifier ->
            for (order in listOf(0 to 1, 1 to 0)) {
                val (u, v) = if (order.first == 0) blue to red else red to blue
                val want = Frame.yuv(YuvFormat.P010, 61, 47, luma, separate(u), separate(v))
                val got = Frame.yuv(YuvFormat.P010, 61, 47, luma, interleaved(order.first), interleaved(order.second))
                assertEquals(classifier.classifyBlocking(want, 10).predictions, classifier.classifyBlocking(got, 10).predictions)
            }
        }
    }

    /** What a camera with that orientation has stored, by the definition of the Exif tag, is upright again. */
    @Test
    fun `Exif orientations are undone`() {
        open().use { classifier ->
            val upright = stored.part(9, 5, 32, 32)
            val want = classifier.classifyBlocking(upright.frame(), 10).predictions
            val flipped = upright.mirrored()
            val cases = listOf(
                upright, flipped, upright.turned(180), flipped.turned(180),
                flipped.turned(270), upright.turned(270), flipped.turned(90), upright.turned(90),
            )
            for ((index, image) in cases.withIndex()) {
                val got = classifier.classifyBlocking(image.frame().oriented(index + 1), 10).predictions
                assertEquals(want, got, "orientation ${index + 1}")
            }
            for (unknown in listOf(0, 9, -1)) {
                val turned = upright.turned(270).frame().rotated(90)
                assertEquals(want, classifier.classifyBlocking(turned.oriented(unknown), 10).predictions)
            }
        }
    }

    @Test
    fun `a result has the time of its frame`() {
        open().use { classifier ->
            val frame = stored.frame().capturedAt(7_000_000_123)
            val same = frame.rotated(90).mirrored().cropped(Region(0, 0, 32, 32)).colors(YuvMatrix.BT709, YuvRange.VIDEO).onClose {}
            for (it in listOf(frame, same)) assertEquals(7_000_000_123, classifier.classifyBlocking(it).timestampNs)
            assertEquals(null, classifier.classifyBlocking(stored.frame()).timestampNs)
            assertEquals(null, classifier.classifyBlocking(frame.capturedAt(null)).timestampNs)
        }
    }

    /** Regression: a closed frame was read, from memory that its owner might have freed. */
    @Test
    fun `a closed frame is refused`() {
        var closed = 0
        val frame = stored.frame().onClose { closed += 1 }
        val other = frame.rotated(90).onClose { closed += 10 }
        open().use { classifier ->
            classifier.classifyBlocking(frame)
            other.close()
            assertEquals(11, closed, "with the owner's, after its own")
            other.close()
            frame.close()
            assertEquals(11, closed, "only once")
            for (it in listOf(frame, other, frame.mirrored())) {
                assertEquals("frame.closed", assertFailsWith<SkipstoneException.Frame> { classifier.classifyBlocking(it) }.code)
            }
        }
        Session.openBlocking(PACKAGE).use { session ->
            assertFailsWith<SkipstoneException.Frame> { session.prepareBlocking(frame) }
        }
    }

    @Test
    fun `pixels go back to their owner when the last call has read them`() {
        val events = mutableListOf<String>()
        val frame = stored.frame().onClose { events += "released" }
        frame.lease.reading {
            frame.lease.reading {
                frame.close()
                events += "inner"
            }
            events += "outer"
            assertFailsWith<SkipstoneException.Frame> { frame.lease.reading {} }
        }
        assertEquals(listOf("inner", "outer", "released"), events)
    }

    @Test
    fun `colors follow the data space`() {
        val deep = listOf(ImageFormat.YCBCR_P010, DataSpaces.P210)
        for (format in deep + ImageFormat.YUV_420_888) {
            val unknown = if (format in deep) YuvMatrix.BT2020 else YuvMatrix.BT601
            for ((space, want) in listOf(
                DataSpace.DATASPACE_UNKNOWN to (unknown to YuvRange.FULL),
                DataSpace.DATASPACE_JFIF to (YuvMatrix.BT601 to YuvRange.FULL),
                DataSpace.DATASPACE_BT601_525 to (YuvMatrix.BT601 to YuvRange.VIDEO),
                DataSpace.DATASPACE_BT601_625 to (YuvMatrix.BT601 to YuvRange.VIDEO),
                DataSpace.DATASPACE_BT709 to (YuvMatrix.BT709 to YuvRange.VIDEO),
                DataSpace.DATASPACE_BT2020_HLG to (YuvMatrix.BT2020 to YuvRange.FULL),
                DataSpace.DATASPACE_BT2020_PQ to (YuvMatrix.BT2020 to YuvRange.FULL),
            )) assertEquals(want, DataSpaces.colors(format, space), "$format $space")
        }
        assertFailsWith<SkipstoneException.Unsupported> {
            DataSpaces.colors(ImageFormat.YCBCR_P010, DataSpace.STANDARD_BT2020_CONSTANT_LUMINANCE)
        }
    }

    /** Red, green and blue, 0 to 255, by the definition of the standards (ITU-T H.273), for samples of some bits. */
    private fun color(matrix: YuvMatrix, range: YuvRange, bits: Int, luma8: Int, blue8: Int, red8: Int): List<Double> {
        val unit = (1 shl (bits - 8)).toDouble()
        val (y, u, v) = Triple(luma8 * unit, (blue8 - 128) * unit, (red8 - 128) * unit)
        val white = 256 * unit - 1
        val (kr, kb) = when (matrix) {
            YuvMatrix.BT601 -> 0.299 to 0.114
            YuvMatrix.BT709 -> 0.2126 to 0.0722
            YuvMatrix.BT2020 -> 0.2627 to 0.0593
        }
        val (luma, blue, red) = when (range) {
            YuvRange.FULL -> Triple(y * 255 / white, u * 255 / white, v * 255 / white)
            YuvRange.VIDEO -> Triple((y / unit - 16) * 255 / 219, u / unit * 255 / 224, v / unit * 255 / 224)
        }
        val (r, b) = luma + 2 * (1 - kr) * red to luma + 2 * (1 - kb) * blue
        return listOf(r, (luma - kr * r - kb * b) / (1 - kr - kb), b)
    }
}
