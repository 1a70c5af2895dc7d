package dev.skipstone.internal

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import dev.skipstone.Frame
import dev.skipstone.SkipstoneException
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream

/**
 * Photos, decoded no larger than a model needs: one of 50 megapixels takes 200 MB otherwise, and most of the time.
 *
 * The decoder of JPEG computes halves, quarters and eighths of an image from the image's frequencies, nearly as the mean
 * of the pixels. For other formats and factors Android leaves out pixels, which would change what a model sees, so these
 * are decoded in full. The same functions exist in all versions of Android that the library runs on; `ImageDecoder` came
 * with Android 9.
 */
internal object Photos {
    /** The photo that [open] provides, each time from its start, with a shorter side of at least [leastSide] if it has. */
    fun decode(leastSide: Int, open: () -> InputStream?): Frame {
        if (leastSide < 1) throw SkipstoneException.Input("input.size", "a photo cannot have a side of $leastSide pixels")
        try {
            return open(leastSide) { (open() ?: throw FileNotFoundException("no such photo")).buffered() }
        } catch (refused: IOException) {
            throw SkipstoneException.Io("io", "the photo cannot be read: ${refused.message}")
        } catch (refused: SecurityException) {
            throw SkipstoneException.Io("io", "the photo may not be read: ${refused.message}")
        } catch (tooLarge: OutOfMemoryError) {
            throw SkipstoneException.Frame("frame.photo", "there is no memory for the photo")
        }
    }

    private fun open(leastSide: Int, open: () -> InputStream): Frame {
        val options = BitmapFactory.Options()
        options.inJustDecodeBounds = true
        open().use { BitmapFactory.decodeStream(it, null, options) }
        options.inSampleSize = divisor(options.outMimeType, options.outWidth, options.outHeight, leastSide)
        options.inJustDecodeBounds = false
        options.inPreferredConfig = Bitmap.Config.ARGB_8888
        val bitmap = open().use { BitmapFactory.decodeStream(it, null, options) }
            ?: throw SkipstoneException.Frame("frame.photo", "this is no image that Android can decode")
        try {
            return Frame.of(bitmap).oriented(orientation(open))
        } finally {
            bitmap.recycle()
        }
    }

    /** By how much the sides are divided: 1, 2, 4 or 8. */
    fun divisor(type: String?, width: Int, height: Int, leastSide: Int): Int =
        if (type != "image/jpeg") 1 else listOf(8, 4, 2).firstOrNull { minOf(width, height) / it >= leastSide } ?: 1

    /** The Exif orientation, 1 to 8; upright if there is none. */
    private fun orientation(open: () -> InputStream): Int = try {
        open().use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL) }
    } catch (none: IOException) {
        // A damaged Exif block of an image that was decoded.
        ExifInterface.ORIENTATION_NORMAL
    }
}
