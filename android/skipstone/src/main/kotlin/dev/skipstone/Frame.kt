package dev.skipstone

import android.content.Context
import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.graphics.PixelFormat
import android.graphics.Rect
import android.media.Image
import android.net.Uri
import dev.skipstone.internal.DataSpaces
import dev.skipstone.internal.Lease
import dev.skipstone.internal.Photos
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Memory layout of the pixels of a [Frame]. The order is that of the native library. */
internal enum class FrameFormat { YUV_420, RGBA, BGRA, RGB, GRAY, YUV_422, P010, P210 }

/** How the samples of a YUV frame are stored. */
public enum class YuvFormat(internal val format: FrameFormat) {
    /** One byte per sample; chroma for blocks of 2x2 pixels (4:2:0). */
    YUV_420(FrameFormat.YUV_420),

    /** One byte per sample; chroma for pairs of pixels of a row (4:2:2). */
    YUV_422(FrameFormat.YUV_422),

    /** Like [YUV_420] with 10 bits per sample: the upper ones of two bytes, the lower byte first. */
    P010(FrameFormat.P010),

    /** Like [YUV_422] with 10 bits per sample, stored as in [P010]. */
    P210(FrameFormat.P210),
}

/** The color standard of a YUV frame. */
public enum class YuvMatrix {
    /** ITU-R BT.601: what phone cameras deliver for analysis. */
    BT601,

    /** ITU-R BT.709: high-definition video. */
    BT709,

    /** ITU-R BT.2020: ultra-high-definition and HDR video. */
    BT2020,
}

/** The range of values in a YUV frame. */
public enum class YuvRange {
    /** All 256, or all 1024 of 10 bits. */
    FULL,

    /** 16 to 235; for chroma, 16 to 240. Of 10 bits, four times that. */
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
 * change until the call that uses it returns; [close] then tells the owner, at once or when the last call that is reading
 * it returns. A closed frame, like all frames made from it, cannot be used ([SkipstoneException.Frame], `frame.closed`).
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
    /**
     * When the camera captured it, in nanoseconds of the camera's clock; null if unknown. [Classification.timestampNs] has
     * the same value, so that a result can be matched with its frame.
     */
    public val timestampNs: Long? = null,
    internal val lease: Lease = Lease(),
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

    /** The same frame, captured at this time, in nanoseconds; null if unknown. */
    public fun capturedAt(timestampNs: Long?): Frame = with(timestampNs = timestampNs)

    /**
     * The same frame, rotated and mirrored as an Exif orientation, 1 to 8, says; other values change nothing. An image that
     * is stored with that orientation is then upright.
     */
    public fun oriented(exif: Int): Frame {
        val (degrees, flipped) = when (exif) {
            1 -> 0 to false
            2 -> 0 to true
            3 -> 180 to false
            4 -> 180 to true
            5 -> 90 to true
            6 -> 90 to false
            7 -> 270 to true
            8 -> 270 to false
            else -> return this
        }
        return with(rotationDegrees = degrees, mirrored = flipped)
    }

    /** The same frame, whose [close] also calls [release], once. */
    public fun onClose(release: () -> Unit): Frame = with(lease = Lease(lease, release))

    /** Returns the pixels to their owner, once no call is reading them; closing it again does nothing. */
    override fun close(): Unit = lease.close()

    private fun with(
        part: Region? = this.part,
        rotationDegrees: Int = this.rotationDegrees,
        mirrored: Boolean = this.mirrored,
        matrix: YuvMatrix = this.matrix,
        range: YuvRange = this.range,
        timestampNs: Long? = this.timestampNs,
        lease: Lease = this.lease,
    ) = Frame(format, width, height, planes, part, rotationDegrees, mirrored, matrix, range, timestampNs, lease)

    public companion object {
        /**
         * A YUV 4:2:0 frame: luma at full size, [u] and [v] at half size. With a pixel stride of 2, U and V are one
         * interleaved plane (NV12, NV21).
         */
        @JvmStatic
        public fun yuv420(width: Int, height: Int, y: Plane, u: Plane, v: Plane): Frame =
            yuv(YuvFormat.YUV_420, width, height, y, u, v)

        /**
         * A YUV frame: luma, and chroma at half the width and, for 4:2:0, half the height. U and V may be one interleaved
         * plane, whose pixel stride is two samples. [colors] says which colors they are; those of HDR, HLG and PQ, are used
         * as they are encoded.
         */
        @JvmStatic
        public fun yuv(format: YuvFormat, width: Int, height: Int, y: Plane, u: Plane, v: Plane): Frame =
            Frame(format.format, width, height, listOf(y, u, v))

        internal fun locked(format: FrameFormat, width: Int, height: Int, planes: List<Plane>, lease: Lease): Frame =
            Frame(format, width, height, planes, lease = lease)

        /**
         * The photo in [file], upright as its Exif orientation says.
         *
         * A JPEG is decoded at a half, quarter or eighth of its size if its shorter side is then still at least
         * [leastSide] pixels, which takes a fraction of the time and memory. Reads the file on the calling thread.
         *
         * @param leastSide what the model needs: [ClassifierInfo.photoSide].
         * @throws SkipstoneException.Io if it cannot be read.
         * @throws SkipstoneException.Frame if Android cannot decode it (code `frame.photo`).
         */
        @JvmStatic
        public fun photo(file: File, leastSide: Int): Frame = Photos.decode(leastSide) { file.inputStream() }

        /** The same for a photo's file in memory. */
        @JvmStatic
        public fun photo(bytes: ByteArray, leastSide: Int): Frame = Photos.decode(leastSide) { bytes.inputStream() }

        /** The same for a photo that another app provides, such as one that the user has picked. */
        @JvmStatic
        public fun photo(context: Context, uri: Uri, leastSide: Int): Frame =
            Photos.decode(leastSide) { context.contentResolver.openInputStream(uri) }

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
         * A frame over the planes of a camera's [image], with its crop, its time and, from Android 13, its colors.
         * Closing the frame closes the image. The formats are those of [planes].
         *
         * @param rotationDegrees clockwise rotation that brings it upright.
         */
        @JvmStatic
        public fun of(image: Image, rotationDegrees: Int): Frame {
            val planes = image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }
            val frame = planes(image.format, image.width, image.height, planes, image.cropRect, rotationDegrees)
            val (matrix, range) = DataSpaces.of(image)
            return frame.colors(matrix, range).capturedAt(image.timestamp).onClose(image::close)
        }

        /**
         * A frame over planes as Android's camera APIs provide them. 8 bits of YUV are BT.601 and 10 bits BT.2020, of full
         * range, as cameras deliver them; [colors] says otherwise.
         *
         * @param imageFormat [ImageFormat.YUV_420_888], [ImageFormat.YUV_422_888], [ImageFormat.YCBCR_P010],
         * `ImageFormat.YCBCR_P210` or [PixelFormat.RGBA_8888].
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
                imageFormat == PixelFormat.RGBA_8888 && planes.size == 1 -> FrameFormat.RGBA
                planes.size == 3 -> when (imageFormat) {
                    ImageFormat.YUV_420_888 -> FrameFormat.YUV_420
                    ImageFormat.YUV_422_888 -> FrameFormat.YUV_422
                    ImageFormat.YCBCR_P010 -> FrameFormat.P010
                    DataSpaces.P210 -> FrameFormat.P210
                    else -> null
                }
                else -> null
            } ?: throw SkipstoneException.Frame("frame", "format $imageFormat with ${planes.size} planes is unsupported")
            val (matrix, range) = DataSpaces.colors(imageFormat, 0)
            val stored = Frame(format, width, height, planes, matrix = matrix, range = range)
            val part = crop?.let { stored.cropped(Region(it.left, it.top, it.width(), it.height())) }
            return (part ?: stored).rotated(rotationDegrees)
        }
    }
}
