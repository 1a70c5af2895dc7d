package dev.skipstone.internal

import java.nio.ByteBuffer

/**
 * The calls made for every frame, which bypass the generated bindings: direct buffers in, one direct buffer out.
 *
 * Each returns a count, or minus the number of the error in [CallBuffer]. The handle of a closed object finds
 * nothing, so no order of calls touches freed memory.
 */
internal object Native {
    init {
        System.loadLibrary("skipstone")
    }

    /** The classes of the frame over these planes. [call] describes the frame and receives the classes. */
    @JvmStatic
    external fun classify(
        handle: Long,
        first: ByteBuffer,
        second: ByteBuffer?,
        third: ByteBuffer?,
        call: ByteBuffer,
    ): Int

    /** One run of a session. */
    @JvmStatic
    external fun run(handle: Long, inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>, call: ByteBuffer): Int
}
