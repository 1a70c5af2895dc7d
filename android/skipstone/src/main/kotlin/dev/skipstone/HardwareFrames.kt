@file:JvmName("HardwareFrames")

package dev.skipstone

import android.hardware.HardwareBuffer
import dev.skipstone.internal.Abandoned
import dev.skipstone.internal.Lease
import dev.skipstone.internal.Native
import dev.skipstone.internal.Reply
import java.nio.ByteBuffer

/**
 * A frame over the pixels of this buffer, read in place. It stays locked for reading until the frame is closed, or nobody
 * can reach it; closing the buffer itself is up to its owner, at any time.
 *
 * For Android 8 and later, and formats with several planes (YUV_420_888, YCBCR_P010) for Android 10 and later; also
 * RGBA_8888, RGBX_8888, RGB_888 and R_8. The buffer must have the usage [HardwareBuffer.USAGE_CPU_READ_OFTEN] or
 * [HardwareBuffer.USAGE_CPU_READ_RARELY]. It does not say which colors its YUV has: see [Frame.colors].
 *
 * @param rotationDegrees clockwise rotation that brings it upright.
 * @throws SkipstoneException.Unsupported for another format, or an Android that is too old.
 * @throws SkipstoneException.Frame for a buffer that is closed or cannot be read by the CPU.
 */
@JvmOverloads
public fun HardwareBuffer.toFrame(rotationDegrees: Int = 0): Frame {
    if (isClosed) throw SkipstoneException.Frame("frame", "the hardware buffer is closed")
    val buffers = arrayOfNulls<ByteBuffer>(MOST_PLANES)
    val reply = Reply(Native.lockPixels(this, buffers))
    val locked = LockedPixels(reply.long())
    val (format, width, height) = Triple(FrameFormat.entries[reply.int()], reply.int(), reply.int())
    val strides = reply.list { int() to int() }
    val planes = strides.zip(buffers.filterNotNull()) { (row, pixel), bytes -> Plane(bytes, row, pixel) }
    return Frame.locked(format, width, height, planes, Lease { locked.close() }).rotated(rotationDegrees)
}

private const val MOST_PLANES = 3

/** Pixels that the native library has locked. */
private class LockedPixels(handle: Long) : AutoCloseable {
    private val watch = Abandoned.watch(this, handle)

    override fun close(): Unit = watch.close()
}
