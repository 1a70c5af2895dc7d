package dev.skipstone.internal

import java.nio.ByteBuffer

/**
 * Functions of the native library that need no object of it. It registers them when it is loaded.
 *
 * Arguments and results that are not numbers are the bytes of a [Request] and a [Reply]; those of [open] and of the
 * others that make a model begin with its configuration, and return its handle.
 */
internal object Native {
    init {
        System.loadLibrary("skipstone")
    }

    @JvmStatic
    external fun version(): ByteArray

    @JvmStatic
    external fun openObjects(): Long

    @JvmStatic
    external fun open(request: ByteArray): ByteArray

    @JvmStatic
    external fun openDescriptor(fd: Int, offset: Long, length: Long, request: ByteArray): ByteArray

    @JvmStatic
    external fun openBytes(bytes: ByteBuffer, request: ByteArray): ByteArray

    @JvmStatic
    external fun install(request: ByteArray): ByteArray

    @JvmStatic
    external fun installBytes(bytes: ByteBuffer, request: ByteArray): ByteArray

    @JvmStatic
    external fun convert(request: ByteArray): ByteArray

    /** Locks a `HardwareBuffer` until its handle is closed; writes its planes to [planes]. */
    @JvmStatic
    external fun lockPixels(buffer: Any, planes: Array<ByteBuffer?>): ByteArray

    /** Closes the object of a handle; a handle that was closed is ignored. */
    @JvmStatic
    external fun close(handle: Long)
}
