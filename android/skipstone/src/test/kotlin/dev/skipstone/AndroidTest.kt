package dev.skipstone

import android.content.res.AssetFileDescriptor
import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.graphics.PixelFormat
import android.graphics.Rect
import android.os.ParcelFileDescriptor
import java.io.File
import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config as Robolectric
import org.robolectric.annotation.GraphicsMode

/** The parts that use Android, tested on Robolectric. */
@RunWith(RobolectricTestRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Robolectric(sdk = [34], manifest = Robolectric.NONE)
class AndroidTest {
    @Test
    fun `bitmaps are classified`() {
        open().use { classifier ->
            for (sample in SAMPLES) {
                val bitmap = Bitmap.createBitmap(sample.width, sample.height, Bitmap.Config.ARGB_8888)
                for (y in 0 until sample.height) for (x in 0 until sample.width) bitmap.setPixel(x, y, sample.color(x, y))
                val want = classifier.classifyBlocking(sample.rgb()).predictions
                assertEquals(want, classifier.classifyBlocking(Frame.of(bitmap)).predictions, sample.name)
            }
        }
    }

    @Test
    fun `a package inside another file is opened in place`() {
        val bytes = PACKAGE.readBytes()
        val archive = File.createTempFile("assets", ".apk")
        try {
            archive.writeBytes(ByteArray(4096 + 4) + bytes + ByteArray(77))
            ParcelFileDescriptor.open(archive, ParcelFileDescriptor.MODE_READ_ONLY).use { file ->
                val model = Model.open(AssetFileDescriptor(file, 4096 + 4, bytes.size.toLong()))
                assertTrue(file.fileDescriptor.valid())
                model.use(::Classifier).use { classifier ->
                    assertEquals(SAMPLES[0].label, classifier.classifyBlocking(SAMPLES[0].rgb()).best?.label)
                }
                val short = AssetFileDescriptor(file, 4096 + 4, bytes.size - 1L)
                assertFailsWith<SkipstoneException.Package> { Model.open(short) }
                val astray = AssetFileDescriptor(file, 4096, bytes.size.toLong())
                assertFailsWith<SkipstoneException> { Model.open(astray) }
            }
        } finally {
            archive.delete()
        }
    }

    /** Regression: a missing asset, or a closed descriptor, threw the system's own exceptions. */
    @Test
    fun `errors of Android become exceptions of the library`() {
        val context = org.robolectric.RuntimeEnvironment.getApplication()
        val missing = assertFailsWith<SkipstoneException.Io> { Classifier.openBlocking(context, "nothing.skip") }
        assertTrue("no asset 'nothing.skip'" in missing.message, missing.message)
        val file = ParcelFileDescriptor.open(PACKAGE, ParcelFileDescriptor.MODE_READ_ONLY)
        val unknown = AssetFileDescriptor(file, 0, AssetFileDescriptor.UNKNOWN_LENGTH)
        file.close()
        assertFailsWith<SkipstoneException.Io> { Model.open(unknown) }
        assertFailsWith<SkipstoneException.Io> { Model.open(AssetFileDescriptor(file, 0, 10)) }
        val bitmap = Bitmap.createBitmap(4, 4, Bitmap.Config.ARGB_8888)
        bitmap.recycle()
        assertFailsWith<SkipstoneException.Frame> { Frame.of(bitmap) }
    }

    /** A gray image is its luma plane with chroma of 128, whatever the camera's strides. */
    @Test
    fun `planes of a camera are read in place`() {
        open().use { classifier ->
            for (sample in SAMPLES) {
                val y = ByteBuffer.allocateDirect(40 * 32)
                for (row in 0 until 32) for (x in 0 until 32) {
                    y.put(row * 40 + x, (sample.color(x, row) shr 8 and 255).toByte())
                }
                val chroma = ByteBuffer.allocateDirect(40 * 16)
                for (at in 0 until chroma.capacity()) chroma.put(at, 128.toByte())
                val v = chroma.duplicate().position(1)
                val planes = listOf(Plane(y, 40, 1), Plane(chroma, 40, 2), Plane(v, 40, 2))
                val frame = Frame.planes(ImageFormat.YUV_420_888, 32, 32, planes, Rect(0, 0, 32, 32), 0)
                val gray = Frame.gray(32, 32, y, 40)
                val (want, got) = classifier.classifyBlocking(gray, 10) to classifier.classifyBlocking(frame, 10)
                assertEquals(want.best?.index, got.best?.index, sample.name)
                for (it in want.predictions) {
                    assertEquals(it.score, got.predictions.single { other -> other.index == it.index }.score, 0.02f)
                }
            }
        }
    }

    /** Regression: a camera's crop, which is in the sensor's pixels, was taken for a crop of the mirrored or rotated
     * frame. */
    @Test
    fun `a camera's crop stays on its pixels however the frame is turned and mirrored`() {
        val stored = Pixels(61, 47) { x, y -> (x * 4 shl 16) or (y * 5 shl 8) or ((x * x + 7 * y) and 255) }
        val rgba = stored.bytes(listOf(0, 1, 2, 3))
        open().use { classifier ->
            for (degrees in listOf(0, 90, 180, 270)) for (mirrored in listOf(false, true)) {
                val cut = stored.part(9, 5, 32, 32).turned(degrees)
                val want = classifier.classifyBlocking((if (mirrored) cut.mirrored() else cut).frame(), 10).predictions
                val planes = listOf(Plane(rgba, 4 * 61, 4))
                val crop = Rect(9, 5, 41, 37)
                val frame = { turn: Int -> Frame.planes(PixelFormat.RGBA_8888, 61, 47, planes, crop, turn) }
                for (same in listOf(frame(degrees), frame(90).rotated(degrees))) {
                    val got = if (mirrored) same.mirrored() else same
                    assertEquals(want, classifier.classifyBlocking(got, 10).predictions, "$degrees $mirrored")
                }
            }
        }
        val outside = listOf(Rect(-1, 0, 4, 4), Rect(0, 0, 0, 4), Rect(30, 0, 62, 32), Rect(5, 5, 4, 4))
        for (crop in outside) {
            assertFailsWith<SkipstoneException.Frame>("$crop") {
                Frame.planes(PixelFormat.RGBA_8888, 61, 47, listOf(Plane(rgba, 4 * 61, 4)), crop, 90)
            }
        }
    }

    @Test
    fun `formats that are not read are refused`() {
        val plane = Plane(ByteBuffer.allocateDirect(4), 2)
        for ((format, planes) in listOf(ImageFormat.JPEG to 1, ImageFormat.YUV_420_888 to 1, PixelFormat.RGBA_8888 to 3)) {
            assertFailsWith<SkipstoneException.Frame> { Frame.planes(format, 1, 1, List(planes) { plane }, null, 0) }
        }
    }
}
