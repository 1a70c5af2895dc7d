package dev.skipstone

import android.hardware.HardwareBuffer
import android.net.Uri
import dev.skipstone.internal.Photos
import java.awt.image.BufferedImage
import java.io.ByteArrayOutputStream
import java.io.File
import javax.imageio.ImageIO
import kotlin.math.roundToInt
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config as Robolectric
import org.robolectric.annotation.GraphicsMode

/** Photos and hardware buffers, on Robolectric, whose decoder is Android's own. */
@RunWith(RobolectricTestRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Robolectric(sdk = [34], manifest = Robolectric.NONE)
class PhotoTest {
    private fun file(image: Pixels, format: String): ByteArray {
        val drawn = BufferedImage(image.width, image.height, BufferedImage.TYPE_INT_RGB)
        for (y in 0 until image.height) for (x in 0 until image.width) drawn.setRGB(x, y, image.color(x, y))
        return ByteArrayOutputStream().also { ImageIO.write(drawn, format, it) }.toByteArray()
    }

    /** A JPEG with an Exif block that has nothing but the orientation. */
    private fun oriented(jpeg: ByteArray, orientation: Int): ByteArray {
        val tiff = byteArrayOf(0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, orientation.toByte(), 0, 0, 0, 0, 0, 0, 0)
        val block = "Exif\u0000\u0000".toByteArray(Charsets.US_ASCII) + tiff
        val marker = byteArrayOf(-1, 0xE1.toByte(), 0, (block.size + 2).toByte())
        return jpeg.copyOf(2) + marker + block + jpeg.copyOfRange(2, jpeg.size)
    }

    /** Each pixel as a square of [times] by [times]. */
    private fun enlarged(image: Pixels, times: Int) =
        Pixels(image.width * times, image.height * times) { x, y -> image.color(x / times, y / times) }

    /** Each pixel the mean of a square of [times] by [times]. */
    private fun reduced(image: Pixels, times: Int) = Pixels(image.width / times, image.height / times) { x, y ->
        val square = List(times * times) { image.color(x * times + it % times, y * times + it / times) }
        listOf(16, 8, 0).sumOf { shift -> square.map { it shr shift and 255 }.average().roundToInt() shl shift }
    }

    /** A photo at an eighth of its size is classified like the means of its pixels, whatever its orientation. */
    @Test
    fun `photos are decoded at the size that the model needs, and upright`() {
        open().use { classifier ->
            assertEquals(32, classifier.info.photoSide)
            for (sample in SAMPLES.take(4)) {
                val want = classifier.classifyBlocking(reduced(enlarged(sample, 11), 8).frame(), 10)
                val scores = want.predictions.associate { it.index to it.score }
                val flipped = sample.mirrored()
                val stored = listOf(
                    sample, flipped, sample.turned(180), flipped.turned(180),
                    flipped.turned(270), sample.turned(270), flipped.turned(90), sample.turned(90),
                )
                for ((index, image) in stored.withIndex()) {
                    val photo = oriented(file(enlarged(image, 11), "jpg"), index + 1)
                    val frame = Frame.photo(photo, classifier.info.photoSide)
                    // 352 pixels are more than eight times as many as needed.
                    assertEquals(44 to 44, frame.width to frame.height)
                    for (it in classifier.classifyBlocking(frame, 10).predictions) {
                        assertEquals(scores.getValue(it.index), it.score, 0.05f, "${sample.name} orientation ${index + 1}")
                    }
                }
            }
        }
    }

    @Test
    fun `only JPEGs are shrunk, and never below what is needed`() {
        for ((type, width, height, least, want) in listOf(
            Case("image/jpeg", 8160, 6120, 224, 8),
            Case("image/jpeg", 8160, 6120, 765, 8),
            Case("image/jpeg", 8160, 6120, 766, 4),
            Case("image/jpeg", 1000, 447, 224, 1),
            Case("image/jpeg", 448, 1000, 224, 2),
            Case("image/jpeg", 1, 1, 224, 1),
            Case("image/png", 8160, 6120, 224, 1),
            Case(null, -1, -1, 224, 1),
        )) assertEquals(want, Photos.divisor(type, width, height, least), "$type $width $height $least")
        val frame = Frame.photo(file(enlarged(SAMPLES[0], 3), "png"), 8)
        assertEquals(96 to 96, frame.width to frame.height)
    }

    private data class Case(val type: String?, val width: Int, val height: Int, val least: Int, val want: Int)

    @Test
    fun `photos come from files, memory and other apps`() {
        val bytes = file(SAMPLES[0], "png")
        val file = File.createTempFile("photo", ".png").also { it.writeBytes(bytes) }
        val uri = Uri.parse("content://pictures/1")
        val context = RuntimeEnvironment.getApplication()
        shadowOf(context.contentResolver).registerInputStreamSupplier(uri) { bytes.inputStream() }
        open().use { classifier ->
            val want = classifier.classifyBlocking(SAMPLES[0].rgb(), 10).predictions
            for (photo in listOf(Frame.photo(file, 32), Frame.photo(bytes, 32), Frame.photo(context, uri, 32))) {
                assertEquals(want, classifier.classifyBlocking(photo, 10).predictions)
            }
        }
        file.delete()
        assertFailsWith<SkipstoneException.Io> { Frame.photo(file, 32) }
        shadowOf(context.contentResolver).registerInputStreamSupplier(uri) { throw SecurityException("not granted") }
        assertFailsWith<SkipstoneException.Io> { Frame.photo(context, uri, 32) }
        for (damaged in listOf(ByteArray(0), ByteArray(100) { it.toByte() }, bytes.copyOf(20))) {
            assertEquals("frame.photo", assertFailsWith<SkipstoneException.Frame> { Frame.photo(damaged, 32) }.code)
        }
        for (side in listOf(0, -1)) assertFailsWith<SkipstoneException.Input> { Frame.photo(bytes, side) }
    }

    /** A desktop has no such buffers; `hardware.rs` tests the rest with functions in their place. */
    @Test
    fun `hardware buffers are refused where there are none`() {
        val buffer = HardwareBuffer.create(4, 4, HardwareBuffer.RGBA_8888, 1, HardwareBuffer.USAGE_CPU_READ_OFTEN)
        val refused = assertFailsWith<SkipstoneException.Unsupported> { buffer.toFrame(90) }
        assertTrue("Android 8" in refused.message, refused.message)
        buffer.close()
        assertFailsWith<SkipstoneException.Frame> { buffer.toFrame() }
    }
}
