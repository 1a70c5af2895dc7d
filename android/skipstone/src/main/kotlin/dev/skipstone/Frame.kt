package dev.skipstone

import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.graphics.PixelFormat
import android.graphics.Rect
import android.media.Image
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Memory layout of the pixels of a [Frame]. The order is that of the native library. */
internal enum class FrameFormat { YUV_420, RGBA, BGRA, RGB, GRAY }

/** The color standard of a YUV frame. */
public enum class YuvMatrix {
    /** ITU-R BT.601: what phone cameras deliver for analysis. */
    BT601,

    /** ITU-R BT.709: high-definition video. */
    BT709,

    /** ITU-R BT.2020: ultra-high-definition and HDR video. */
    BT2020,
}

/** The range of byte values in a YUV frame. */
public enum class YuvRange {
    /** All 256. */
    FULL,

    /** 16 to 235; for chroma, 16 to 240. */
    VIDEO,
}

/**
 * A plane of a [Frame].
 *
 * @param buffer a direct buffer; the plane is the bytes from its position to its limit, read in place.
 * @property rowStride bytes from one row to the next.
 * @property pixelStride bytes from one pixel to the next.
 */
public class Plane @JvmOverloads constructor(buffer: ByteBuffer, public val rowStride: Int, public val pixelStride: Int = 1) {
    // A separate view, so that nothing else moves its position, and its first byte is the plane's.
    internal val bytes: ByteBuffer = buffer.slice()
}

/**
 * A part of a frame, in pixels of the frame as it is now: upright, mirrored, and after earlier crops.
 *
 * @property x left edge.
 * @property y upper edge.
 * @property width pixels across.
 * @property height pixels down.
 */
public data class Region(val x: Int, val y: Int, val width: Int, val height: Int)

/**
 * An image in memory that the camera or other code owns: it is read in place and never copied. Its bytes must not
 * change until the call that uses it returns; [close] then tells the owner.
 *
 * A frame is rotated and then mirrored, whichever was set first; a crop is in pixels of the image as both show it.
 * [cropped] cuts at once: rotating or mirroring the frame later keeps the pixels of the crop.
 *
 * Sizes, strides and the rotation are checked by the call that reads the frame ([SkipstoneException.Frame]).
 */
public class Frame private constructor(
    internal val format: FrameFormat,
    /** Pixels across, as the sensor gives them. */
    public val width: Int,
    /** Pixels down. */
    public val height: Int,
    internal val planes: List<Plane>,
    /** The part of the sensor's image that is left, in its pixels; null is all of it. */
    internal val part: Region? = null,
    internal val rotationDegrees: Int = 0,
    internal val mirrored: Boolean = false,
    internal val matrix: YuvMatrix = YuvMatrix.BT601,
    internal val range: YuvRange = YuvRange.FULL,
    private val release: () -> Unit = {},
) : AutoCloseable {
    /** The same frame with another clockwise rotation, by [degrees] (a multiple of 90), that brings it upright. */
    public fun rotated(degrees: Int): Frame = with(rotationDegrees = degrees)

    /** The same frame with left and right swapped, after the rotation, as the preview of a front camera shows it. */
    public fun mirrored(): Frame = with(mirrored = true)

    /**
     * The part of the frame inside [region], in pixels of the frame as it now is: upright, mirrored and cropped.
     *
     * @throws SkipstoneException.Frame if the region is empty or not inside the frame.
     */
    public fun cropped(region: Region): Frame {
        val whole = part ?: Region(0, 0, width, height)
        val turned = rotationDegrees.mod(180) == 90
        val (across, down) = if (turned) whole.height to whole.width else whole.width to whole.height
        val inside = { start: Int, length: Int, all: Int -> length in 1..all && start in 0..all - length }
        if (!inside(region.x, region.width, across) || !inside(region.y, region.height, down)) {
            val crop = "a crop of ${region.width}x${region.height} pixels at ${region.x},${region.y}"
            throw SkipstoneException.Frame("frame", "$crop is empty or outside of a frame of ${across}x$down")
        }
        // Whether the sensor's columns and rows run against the axis of the upright frame that they map to.
        val (columns, rows) = when (rotationDegrees.mod(360)) {
            90 -> false to !mirrored
            180 -> !mirrored to true
            270 -> true to mirrored
            else -> mirrored to false
        }
        val onSensor = if (turned) Region(region.y, region.x, region.height, region.width) else region
        return with(
            part = Region(
                whole.x + if (columns) whole.width - onSensor.x - onSensor.width else onSensor.x,
                whole.y + if (rows) whole.height - onSensor.y - onSensor.height else onSensor.y,
                onSensor.width,
                onSensor.height,
            ),
        )
    }

    /** The same YUV frame with another color standard and range than BT.601, full range. */
    public fun colors(matrix: YuvMatrix, range: YuvRange): Frame = with(matrix = matrix, range = range)

    /** The same frame, with [release] called by [close]. */
    public fun onClose(release: () -> Unit): Frame = with(release = release)

    /** Returns the pixels to their owner. */
    override fun close(): Unit = release()

    private fun with(
        part: Region? = this.part,
        rotationDegrees: Int = this.rotationDegrees,
        mirrored: Boolean = this.mirrored,
        matrix: YuvMatrix = this.matrix,
        range: YuvRange = this.range,
        release: () -> Unit = this.release,
    ) = Frame(format, width, height, planes, part, rotationDegrees, mirrored, matrix, range, release)

    public companion object {
        /**
         * A YUV 4:2:0 frame: luma at full size, [u] and [v] at half size. With a pixel stride of 2, U and V are one
         * interleaved plane (NV12, NV21).
         */
        @JvmStatic
        public fun yuv420(width: Int, height: Int, y: Plane, u: Plane, v: Plane): Frame =
            Frame(FrameFormat.YUV_420, width, height, listOf(y, u, v))

        /** A frame of four bytes per pixel, red first, like [Bitmap.Config.ARGB_8888] in memory. */
        @JvmStatic
        @JvmOverloads
        public fun rgba(width: Int, height: Int, pixels: ByteBuffer, rowStride: Int = 4 * width): Frame =
            Frame(FrameFormat.RGBA, width, height, listOf(Plane(pixels, rowStride, 4)))

        /** A frame of four bytes per pixel, blue first. */
        @JvmStatic
        @JvmOverloads
        public fun bgra(width: Int, height: Int, pixels: ByteBuffer, rowStride: Int = 4 * width): Frame =
            Frame(FrameFormat.BGRA, width, height, listOf(Plane(pixels, rowStride, 4)))

        /** A frame of three bytes per pixel, red first. */
        @JvmStatic
        @JvmOverloads
        public fun rgb(width: Int, height: Int, pixels: ByteBuffer, rowStride: Int = 3 * width): Frame =
            Frame(FrameFormat.RGB, width, height, listOf(Plane(pixels, rowStride, 3)))

        /** A frame of one byte per pixel. */
        @JvmStatic
        @JvmOverloads
        public fun gray(width: Int, height: Int, pixels: ByteBuffer, rowStride: Int = width): Frame =
            Frame(FrameFormat.GRAY, width, height, listOf(Plane(pixels, rowStride, 1)))

        /**
         * A frame over a copy of [bitmap], whatever its configuration.
         *
         * @throws SkipstoneException.Frame for a recycled bitmap, or one whose pixels cannot be read.
         */
        @JvmStatic
        public fun of(bitmap: Bitmap): Frame {
            if (bitmap.isRecycled) throw SkipstoneException.Frame("frame", "the bitmap was recycled")
            val (width, height) = bitmap.width to bitmap.height
            // The pixels of a hardware bitmap can only be read from a copy.
            val copied = if (bitmap.config?.name == "HARDWARE") bitmap.copy(Bitmap.Config.ARGB_8888, false) else bitmap
            val plain = copied ?: throw SkipstoneException.Frame("frame", "the bitmap's pixels cannot be read")
            val colors = IntArray(width * height)
            plain.getPixels(colors, 0, width, 0, 0, width, height)
            // Alpha is the highest byte of a color and blue the lowest, which comes first in memory.
            val pixels = ByteBuffer.allocateDirect(4 * colors.size).order(ByteOrder.LITTLE_ENDIAN)
            pixels.asIntBuffer().put(colors)
            return bgra(width, height, pixels)
        }

        /**
         * A frame over the planes of a camera's [image], `YUV_420_888` or `RGBA_8888`, with its crop. Closing the
         * frame closes the image.
         *
         * @param rotationDegrees clockwise rotation that brings it upright.
         */
        @JvmStatic
        public fun of(image: Image, rotationDegrees: Int): Frame =
            planes(
                image.format,
                image.width,
                image.height,
                image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) },
                image.cropRect,
                rotationDegrees,
            ).onClose(image::close)

        /**
         * A frame over planes as Android's camera APIs provide them.
         *
         * @param imageFormat [ImageFormat.YUV_420_888] or [PixelFormat.RGBA_8888].
         * @param crop the part of the sensor's image to use, in its pixels; null for all of it.
         * @param rotationDegrees clockwise rotation that brings it upright.
         * @throws SkipstoneException.Frame for another format or number of planes, and for a crop outside the image.
         */
        @JvmStatic
        public fun planes(
            imageFormat: Int,
            width: Int,
            height: Int,
            planes: List<Plane>,
            crop: Rect?,
            rotationDegrees: Int,
        ): Frame {
            val format = when {
                imageFormat == ImageFormat.YUV_420_888 && planes.size == 3 -> FrameFormat.YUV_420
                imageFormat == PixelFormat.RGBA_8888 && planes.size == 1 -> FrameFormat.RGBA
                else -> throw SkipstoneException.Frame("frame", "format $imageFormat with ${planes.size} planes is unsupported")
            }
            val stored = Frame(format, width, height, planes)
            val part = crop?.let { stored.cropped(Region(it.left, it.top, it.width(), it.height())) }
            return (part ?: stored).rotated(rotationDegrees)
        }
    }
}
