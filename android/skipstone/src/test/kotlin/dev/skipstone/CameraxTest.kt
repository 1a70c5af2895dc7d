package dev.skipstone

import android.graphics.ImageFormat
import android.graphics.PixelFormat
import android.graphics.Rect
import androidx.camera.core.ImageInfo
import androidx.camera.core.ImageProxy
import dev.skipstone.camerax.asImageAnalyzer
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking

class CameraxTest {
    /** An image as CameraX delivers it: turned by the sensor, and with an area of interest. */
    private class Image(
        pixels: Pixels,
        override val format: Int,
        override val cropRect: Rect,
        private val closed: (Image) -> Unit,
    ) : ImageProxy {
        override val width = pixels.width
        override val height = pixels.height
        override val imageInfo = object : ImageInfo {
            override val rotationDegrees = 90
            override val timestamp = 1_234_567_890_123L
        }
        override val planes = arrayOf<ImageProxy.PlaneProxy>(
            object : ImageProxy.PlaneProxy {
                override val rowStride = 4 * width + 12
                override val pixelStride = 4
                override val buffer = pixels.bytes(listOf(0, 1, 2, 3), rowStride)
            },
        )

        override fun close() = closed(this)
    }

    /** The sample, turned and with a border of other pixels. */
    private fun image(sample: Sample, format: Int = PixelFormat.RGBA_8888, closed: (Image) -> Unit): Image {
        val turned = sample.turned(270)
        val (width, height) = turned.width to turned.height
        val framed = Pixels(width + 10, height + 10) { x, y ->
            if (x in 4 until 4 + width && y in 6 until 6 + height) turned.color(x - 4, y - 6) else 0xFF00FF
        }
        return Image(framed, format, Rect(4, 6, 4 + width, 6 + height), closed)
    }

    @Test
    fun `images are classified upright and cropped, and closed`(): Unit = runBlocking {
        open().use { classifier ->
            for (sample in SAMPLES) {
                FrameAnalyzer(classifier).use { analyzer ->
                    var closed = 0
                    analyzer.asImageAnalyzer().analyze(image(sample) { closed += 1 })
                    val seen = analyzer.results.first()
                    assertEquals(classifier.classify(sample.rgb()).predictions, seen.predictions, sample.name)
                    assertEquals(1_234_567_890_123L, seen.timestampNs)
                    assertEquals(1, closed)
                }
            }
        }
    }

    @Test
    fun `an image that cannot be read is closed and reported`(): Unit = runBlocking {
        open().use { classifier ->
            FrameAnalyzer(classifier).use { analyzer ->
                var closed = 0
                analyzer.asImageAnalyzer().analyze(image(SAMPLES.first(), ImageFormat.JPEG) { closed += 1 })
                assertEquals("frame", analyzer.failures.first().code.substringBefore('.'))
                assertEquals(1, closed)
            }
        }
    }
}
