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

/** What touches Android, on Robolectric's. */
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
    fun `a package is opened where it lies in another file`() {
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
                assertFailsWith<SkipstoneException.Package> { Model.open(astray) }
            }
        } finally {
            archive.delete()
        }
    }

    /** A picture in grey is its brightness plane beside colours of 128, whatever the camera's strides. */
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
                val grey = Frame.gray(32, 32, y, 40)
                val (want, got) = classifier.classifyBlocking(grey, 10) to classifier.classifyBlocking(frame, 10)
                assertEquals(want.best?.index, got.best?.index, sample.name)
                for (it in want.predictions) {
                    assertEquals(it.score, got.predictions.single { other -> other.index == it.index }.score, 0.02f)
                }
            }
        }
    }

    @Test
    fun `a crop turns with the frame`() {
        val part = Rect(10, 20, 30, 60)
        assertEquals(Region(10, 20, 20, 40), Frame.upright(part, 100, 80, 0))
        assertEquals(Region(20, 10, 40, 20), Frame.upright(part, 100, 80, 90))
        assertEquals(Region(70, 20, 20, 40), Frame.upright(part, 100, 80, 180))
        assertEquals(Region(20, 70, 40, 20), Frame.upright(part, 100, 80, 270))
        assertEquals(Region(20, 70, 40, 20), Frame.upright(part, 100, 80, -90))
    }

    @Test
    fun `formats that are not read are refused`() {
        val plane = Plane(ByteBuffer.allocateDirect(4), 2)
        for ((format, planes) in listOf(ImageFormat.JPEG to 1, ImageFormat.YUV_420_888 to 1, PixelFormat.RGBA_8888 to 3)) {
            assertFailsWith<SkipstoneException.Frame> { Frame.planes(format, 1, 1, List(planes) { plane }, null, 0) }
        }
    }
}
