package dev.skipstone.internal

import java.nio.ByteBuffer

/**
 * The calls that an app makes for every frame, past the generated bindings: direct buffers in, one direct buffer out.
 *
 * Each returns a count, or minus the number of an error that [CallBuffer] then holds. A handle of an object that is
 * closed finds nothing: whatever the order of calls, no memory is touched that is gone.
 */
internal object Native {
    init {
        System.loadLibrary("skipstone")
    }

    /** The classes that the frame over these planes shows, as [call] describes it and where it is told them. */
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
