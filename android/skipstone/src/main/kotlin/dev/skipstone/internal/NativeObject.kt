package dev.skipstone.internal

import dev.skipstone.SkipstoneException
import java.nio.ByteBuffer

/**
 * A model, classifier or session of the native library, by its handle, which finds nothing once the object is closed: no
 * order of calls touches freed memory. An object that nobody can reach is closed by [Abandoned].
 *
 * The native methods are not static, so that the JVM keeps this object, and with it the native one, during a call.
 */
internal class NativeObject private constructor(private val handle: Long) : AutoCloseable {
    private val watch = Abandoned.watch(this, handle)

    /** The object that a call has made. */
    constructor(reply: ByteArray) : this(Reply(reply).long())

    /** What a model or a classifier says about itself. */
    fun info(): Reply = Reply(info(handle))

    /** A classifier of this model. */
    fun classifier(options: Request): NativeObject = NativeObject(classifier(handle, options.bytes()))

    /** A session of this model. */
    fun session(): NativeObject = NativeObject(session(handle))

    /**
     * The classes of the frame over these planes. [call] describes the frame and receives the classes; the result is
     * their number, or minus the number of the error in [call].
     */
    fun classify(first: ByteBuffer, second: ByteBuffer?, third: ByteBuffer?, call: CallBuffer): Int =
        classify(handle, first, second, third, call.bytes)

    /** Writes the input of a session for the frame over these planes to [tensor]: 0, or minus the number of the error. */
    fun prepare(planes: Array<ByteBuffer>, tensor: ByteBuffer, call: CallBuffer): Int =
        prepare(handle, planes, tensor, call.bytes)

    /** One run of a session: 0, or minus the number of the error in [call]. */
    fun run(inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>, call: CallBuffer): Int =
        run(handle, inputs, outputs, call.bytes)

    /** Stops the current run, or otherwise the next; does nothing after [close]. */
    fun cancel(): Unit = cancel(handle)

    /** Withdraws a cancellation that no run has seen. */
    fun forgetCancel(): Unit = forgetCancel(handle)

    /** Limits every later run to this many milliseconds; null for no limit. */
    fun limit(milliseconds: Double?) {
        Reply(limit(handle, Request().optional(milliseconds, Request::number).bytes()))
    }

    /** Sets a variable; without a name, resets the state. */
    fun set(name: String?, numbers: List<Double>) {
        Reply(set(handle, Request().optional(name, Request::text).list(numbers, Request::number).bytes()))
    }

    fun latency(): Reply = Reply(latency(handle))

    fun memory(): Reply = Reply(memory(handle))

    fun startProfile() {
        Reply(startProfile(handle))
    }

    fun profile(): Reply = Reply(profile(handle))

    /** Ends the current run and frees the memory; every later call throws [SkipstoneException.Closed]. */
    override fun close(): Unit = watch.close()

    private external fun info(handle: Long): ByteArray

    private external fun classifier(handle: Long, request: ByteArray): ByteArray

    private external fun session(handle: Long): ByteArray

    private external fun classify(
        handle: Long,
        first: ByteBuffer,
        second: ByteBuffer?,
        third: ByteBuffer?,
        call: ByteBuffer,
    ): Int

    private external fun prepare(handle: Long, planes: Array<ByteBuffer>, tensor: ByteBuffer, call: ByteBuffer): Int

    private external fun run(handle: Long, inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>, call: ByteBuffer): Int

    private external fun cancel(handle: Long)

    private external fun forgetCancel(handle: Long)

    private external fun limit(handle: Long, request: ByteArray): ByteArray

    private external fun set(handle: Long, request: ByteArray): ByteArray

    private external fun latency(handle: Long): ByteArray

    private external fun memory(handle: Long): ByteArray

    private external fun startProfile(handle: Long): ByteArray

    private external fun profile(handle: Long): ByteArray
}
