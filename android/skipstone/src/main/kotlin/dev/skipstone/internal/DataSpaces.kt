package dev.skipstone.internal

import android.graphics.ImageFormat
import android.hardware.DataSpace
import android.media.Image
import android.os.Build
import dev.skipstone.SkipstoneException
import dev.skipstone.YuvMatrix
import dev.skipstone.YuvRange

/** The color standard and range of YUV frames, from what Android says about an image. */
internal object DataSpaces {
    /** What [image] says about itself: Android 13 and later can tell. */
    fun of(image: Image): Pair<YuvMatrix, YuvRange> {
        val space = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) image.dataSpace else DataSpace.DATASPACE_UNKNOWN
        return colors(image.format, space)
    }

    /** The colors in [space]; those of a camera, by the format, where it says nothing. */
    fun colors(imageFormat: Int, space: Int): Pair<YuvMatrix, YuvRange> {
        // Cameras deliver 8 bits as JPEG has them, and 10 bits for HDR.
        val isDeep = imageFormat == ImageFormat.YCBCR_P010 || imageFormat == P210
        val matrix = when (space and STANDARD) {
            DataSpace.STANDARD_BT709 -> YuvMatrix.BT709
            DataSpace.STANDARD_BT2020 -> YuvMatrix.BT2020
            DataSpace.STANDARD_BT2020_CONSTANT_LUMINANCE -> throw SkipstoneException.Unsupported(
                "frame.format",
                "frames of BT.2020 with constant luminance are not supported",
            )
            DataSpace.STANDARD_UNSPECIFIED -> if (isDeep) YuvMatrix.BT2020 else YuvMatrix.BT601
            else -> YuvMatrix.BT601
        }
        return matrix to if (space and RANGE == DataSpace.RANGE_LIMITED) YuvRange.VIDEO else YuvRange.FULL
    }

    /** `ImageFormat.YCBCR_P210`, which came with Android 16. */
    const val P210 = 0x3c

    /** The bits of a data space that hold its standard, and its range. */
    private const val STANDARD = 63 shl 16
    private const val RANGE = 7 shl 27
}
