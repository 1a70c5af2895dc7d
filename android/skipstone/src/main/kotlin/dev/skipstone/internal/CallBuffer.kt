package dev.skipstone.internal

import dev.skipstone.Classification
import dev.skipstone.ClassifierInfo
import dev.skipstone.Frame
import dev.skipstone.Prediction
import dev.skipstone.SkipstoneException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * The description of a frame on the way in and its classes on the way out, in one direct buffer that is reused for
 * every call. The native library's `wire.rs` has the table of offsets.
 */
internal class CallBuffer {
    var bytes: ByteBuffer = allocate(LEAST_BYTES)
        private set

    /** Writes the description of [frame], and makes room for [top] classes. */
    fun describe(frame: Frame, top: Int) {
        val wanted = CLASSES + top.coerceIn(0, MOST_CLASSES) * 8
        if (bytes.capacity() < wanted) bytes = allocate(wanted)
        write(frame, top.coerceAtMost(MOST_CLASSES))
    }

    /** Writes the description of [frame], and the index of the input that it is for. */
    fun describeInput(frame: Frame, index: Int): Unit = write(frame, index)

    private fun write(frame: Frame, number: Int) {
        bytes.clear()
        val part = frame.part
        bytes.putInt(frame.format.ordinal).putInt(frame.width).putInt(frame.height)
        bytes.putInt(frame.rotationDegrees).putInt(if (frame.mirrored) 1 else 0)
        bytes.putInt(if (part == null) 0 else 1)
        bytes.putInt(part?.x ?: 0).putInt(part?.y ?: 0).putInt(part?.width ?: 0).putInt(part?.height ?: 0)
        bytes.putInt(frame.matrix.ordinal).putInt(frame.range.ordinal)
        bytes.putInt(number)
        for (plane in frame.planes) bytes.putInt(plane.rowStride).putInt(plane.pixelStride)
    }

    /** The [count] classes that the call returned. */
    fun classification(count: Int, info: ClassifierInfo, timestampNs: Long?): Classification {
        val predictions = List(count) { at ->
            val index = bytes.getInt(CLASSES + at * 8)
            val label = info.labels.getOrNull(index) ?: "class $index"
            Prediction(index, label, bytes.getFloat(CLASSES + at * 8 + 4), info.displayNames.getOrNull(index) ?: label)
        }
        return Classification(predictions, prepareMs = bytes.getDouble(0), runMs = bytes.getDouble(8), timestampNs)
    }

    /** The error that a call returned. */
    fun error(answer: Int): SkipstoneException {
        val code = ByteArray(bytes.getInt(0))
        val message = ByteArray(bytes.getInt(4))
        bytes.position(8)
        bytes.get(code).get(message)
        return SkipstoneException.of(-answer, String(code, Charsets.UTF_8), String(message, Charsets.UTF_8))
    }

    private companion object {
        const val LEAST_BYTES = 1024
        const val CLASSES = 16
        const val MOST_CLASSES = 1 shl 20

        fun allocate(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
    }
}
