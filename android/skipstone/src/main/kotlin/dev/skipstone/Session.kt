package dev.skipstone

import android.content.Context
import dev.skipstone.internal.CallBuffer
import dev.skipstone.internal.Native
import dev.skipstone.internal.Runs
import dev.skipstone.internal.facade
import dev.skipstone.internal.ffi.Session as NativeSession
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Runs a model on tensors: for models that are no image classifiers.
 *
 * Tensors are direct buffers in the machine's byte order, dense, from position to limit; they are read and written
 * where they lie. [inputs] and [outputs] make such buffers, to be used again for every run.
 *
 * Any thread may call at any time; runs of one session take turns. [close] may be called while a run is going on.
 */
public class Session(model: Model) : AutoCloseable {
    private val native: NativeSession = facade("model") { model.native.session() }
    private val handle = native.handle().toLong()
    private val runs = Runs { cancel() }

    /** What the model says of itself. */
    public val model: ModelInfo = model.info

    /** A new buffer for every input of the model. */
    public fun inputs(): List<ByteBuffer> = model.inputs.map(::buffer)

    /** A new buffer for every output of the model. */
    public fun outputs(): List<ByteBuffer> = model.outputs.map(::buffer)

    /**
     * Reads [inputs], runs the model and writes [outputs], off the caller's thread. A coroutine that is cancelled
     * stops the run, and goes on once nobody reads the buffers any more.
     *
     * @throws SkipstoneException.Input for a buffer that is missing, not direct, or has another size.
     */
    public suspend fun run(inputs: List<ByteBuffer>, outputs: List<ByteBuffer>): Unit =
        runs.await { call -> run(inputs, outputs, call) }

    /** The same on the calling thread. */
    public fun runBlocking(inputs: List<ByteBuffer>, outputs: List<ByteBuffer>): Unit =
        runs.run { call -> run(inputs, outputs, call) }

    private fun run(inputs: List<ByteBuffer>, outputs: List<ByteBuffer>, call: CallBuffer) {
        val answer = Native.run(handle, slices(inputs), slices(outputs), call.bytes)
        if (answer < 0) throw call.error(answer)
    }

    /** Stops the run that is going on, which then throws [SkipstoneException.Cancelled]; nothing where none is. */
    public fun cancel() {
        // Once closed there is nothing left to stop.
        runCatching { facade("session") { native.cancel() } }
    }

    /** Lets every later run take at most this many milliseconds; null for no limit. */
    public fun setDeadline(milliseconds: Double?): Unit = facade("session") { native.setDeadlineMs(milliseconds) }

    /** Statistics of the latest runs. */
    public val latency: Latency get() = facade("session") { Latency.of(native.latency()) }

    /** What the model and this session hold in memory. */
    public val memory: Memory get() = facade("session") { Memory.of(native.memory()) }

    /** Starts, or restarts, adding up the time of every step. */
    public fun startProfile(): Unit = facade("session") { native.startProfile() }

    /** The time of every step since the profile was started, in order; empty where it was not. */
    public fun profile(): List<StepTime> = facade("session") { native.profile().map(StepTime::of) }

    override fun close() {
        // Twice is once.
        runCatching { facade("session") { native.shut() } }
        native.destroy()
    }

    private fun buffer(tensor: TensorInfo) = ByteBuffer.allocateDirect(tensor.bytes).order(ByteOrder.nativeOrder())

    private fun slices(buffers: List<ByteBuffer>) = Array(buffers.size) { buffers[it].slice() }

    public companion object {
        /** A session of the package file [file]; see [Model.open]. */
        @JvmStatic
        @JvmOverloads
        public fun open(file: File, config: Config = Config()): Session = Model.open(file, config).use(::Session)

        /** A session of the package [asset] among the app's assets; see [Model.open]. */
        @JvmStatic
        @JvmOverloads
        public fun open(context: Context, asset: String, config: Config = Config()): Session =
            Model.open(context, asset, config).use(::Session)
    }
}
