package dev.skipstone

import android.content.Context
import dev.skipstone.internal.CallBuffer
import dev.skipstone.internal.Limit
import dev.skipstone.internal.NativeObject
import dev.skipstone.internal.Runs
import dev.skipstone.internal.opening
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Runs a model on tensors: for models that are not image classifiers.
 *
 * Tensors are dense direct buffers in native byte order, from position to limit; they are read and written
 * in place. [inputs] and [outputs] make such buffers, which can be reused for every run.
 *
 * Any thread may call at any time; runs of one session wait for each other. [close] may be called during a run.
 */
public class Session(model: Model) : AutoCloseable {
    private val native: NativeObject = model.native.session()
    private val runs = Runs(native::forgetCancel, native::cancel)
    private val limit = Limit(native::limit)

    /** What the model says about itself. */
    public val model: ModelInfo = model.info

    /** A new buffer for every input of the model. */
    public fun inputs(): List<ByteBuffer> = model.inputs.map(::buffer)

    /** A new buffer for every output of the model. */
    public fun outputs(): List<ByteBuffer> = model.outputs.map(::buffer)

    /**
     * An input of the model for a camera frame, off the caller's thread: resized, cropped and normalized as the model's
     * metadata says, like the input of a [Classifier]. The frame's bytes must not change until this returns.
     *
     * @param input index of an input that is an image.
     * @param tensor the buffer to write to, one of [inputs]; null for a new one.
     * @return [tensor], or the new one.
     * @throws SkipstoneException.Frame for an inconsistent frame.
     * @throws SkipstoneException.Input if there is no such input, and for a [tensor] that does not fit it.
     * @throws SkipstoneException.Model for an input that is not an image.
     */
    public suspend fun prepare(frame: Frame, input: Int = 0, tensor: ByteBuffer? = null): ByteBuffer =
        runs.await { call -> prepare(frame, input, tensor, call) }

    /** The same on the calling thread. */
    @JvmOverloads
    public fun prepareBlocking(frame: Frame, input: Int = 0, tensor: ByteBuffer? = null): ByteBuffer =
        runs.run { call -> prepare(frame, input, tensor, call) }

    private fun prepare(frame: Frame, input: Int, tensor: ByteBuffer?, call: CallBuffer): ByteBuffer {
        val port = model.inputs.getOrNull(input)
            ?: throw SkipstoneException.Input("input.unknown", "the model has ${model.inputs.size} inputs, and no input $input")
        val prepared = tensor ?: buffer(port)
        writable(prepared)
        call.describeInput(frame, input)
        val planes = Array(frame.planes.size) { frame.planes[it].bytes }
        val answer = frame.lease.reading { native.prepare(planes, prepared.slice(), call) }
        if (answer < 0) throw call.error(answer)
        return prepared
    }

    /**
     * Reads [inputs], runs the model and writes [outputs], off the caller's thread. Cancelling the coroutine stops
     * the run, and it resumes once the buffers are no longer in use.
     *
     * @param deadlineMs the longest that this run may take, in milliseconds; null for the limit of [setDeadline].
     * @throws SkipstoneException.Input for a buffer that is missing, not direct, or has another size, and for an output
     * that is read-only.
     * @throws SkipstoneException.Deadline if the run took longer.
     */
    public suspend fun run(inputs: List<ByteBuffer>, outputs: List<ByteBuffer>, deadlineMs: Double? = null): Unit =
        runs.await { call -> limit.during(deadlineMs) { run(inputs, outputs, call) } }

    /** The same on the calling thread. */
    @JvmOverloads
    public fun runBlocking(inputs: List<ByteBuffer>, outputs: List<ByteBuffer>, deadlineMs: Double? = null): Unit =
        runs.run { call -> limit.during(deadlineMs) { run(inputs, outputs, call) } }

    private fun run(inputs: List<ByteBuffer>, outputs: List<ByteBuffer>, call: CallBuffer) {
        outputs.forEach(::writable)
        val answer = native.run(slices(inputs), slices(outputs), call)
        if (answer < 0) throw call.error(answer)
    }

    /**
     * Runs the model once on zeros, off the caller's thread, so that the first run does not wait for its memory. Call
     * it before the first run: it resets the state, and counts as a run in [latency].
     */
    public suspend fun warmUp(): Unit = runs.await { call -> warmUp(call) }

    /** The same on the calling thread. */
    public fun warmUpBlocking(): Unit = runs.run { call -> warmUp(call) }

    private fun warmUp(call: CallBuffer) {
        run(inputs(), outputs(), call)
        resetState()
    }

    /** Stops the current run, which then throws [SkipstoneException.Cancelled]; does nothing if there is none. */
    public fun cancel(): Unit = native.cancel()

    /**
     * Sets a setting of the model, such as the threshold of an early exit, for all later runs; or its state, for the
     * next one. Waits for the runs before it, off the caller's thread.
     *
     * @param name an input that the model's metadata assigns to the session.
     * @throws SkipstoneException.Input for another name (code `setting.unknown`; the message lists the names), and for
     * a [value] that does not fit the input's shape and element type (`setting.value`). Nothing is changed then.
     */
    public suspend fun set(name: String, value: Setting): Unit = runs.await { native.set(name, value.numbers) }

    /** The same on the calling thread. */
    public fun setBlocking(name: String, value: Setting): Unit = runs.run { native.set(name, value.numbers) }

    /**
     * Resets the state that is carried from run to run, as before the first run; settings keep their values. Waits for
     * the runs before it, off the caller's thread.
     */
    public suspend fun reset(): Unit = runs.await { resetState() }

    /** The same on the calling thread. */
    public fun resetBlocking(): Unit = runs.run { resetState() }

    private fun resetState() = native.set(null, emptyList())

    /** Limits every later run to this many milliseconds; null for no limit. Waits for the current run. */
    public fun setDeadline(milliseconds: Double?): Unit = runs.run { limit.set(milliseconds) }

    /** Statistics of the latest runs. */
    public val latency: Latency get() = Latency.of(native.latency())

    /** What the model and this session hold in memory. */
    public val memory: Memory get() = Memory.of(native.memory())

    /** Starts or restarts the profile, which adds up the time of every step. */
    public fun startProfile(): Unit = native.startProfile()

    /** The time of every step since the profile was started, in order; empty if it was not started. */
    public fun profile(): List<StepTime> = native.profile().list(StepTime::of)

    override fun close(): Unit = native.close()

    /** The native library could not tell, and must not write to a file that is mapped for reading. */
    private fun writable(tensor: ByteBuffer) {
        if (tensor.isReadOnly) throw SkipstoneException.Input("input.buffer", "a buffer to write to is read-only")
    }

    private fun buffer(tensor: TensorInfo) = ByteBuffer.allocateDirect(tensor.bytes).order(ByteOrder.nativeOrder())

    private fun slices(buffers: List<ByteBuffer>) = Array(buffers.size) { buffers[it].slice() }

    public companion object {
        /** A session of the package file [file], opened off the caller's thread; see [Model.open]. */
        public suspend fun open(file: File, config: Config = Config()): Session =
            opening { openBlocking(file, config) }

        /** The same on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun openBlocking(file: File, config: Config = Config()): Session =
            Model.open(file, config).use(::Session)

        /** A session of the package [asset] among the app's assets, opened off the caller's thread. */
        public suspend fun open(context: Context, asset: String, config: Config = Config()): Session =
            opening { openBlocking(context, asset, config) }

        /** The same on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun openBlocking(context: Context, asset: String, config: Config = Config()): Session =
            Model.open(context, asset, config).use(::Session)
    }
}
