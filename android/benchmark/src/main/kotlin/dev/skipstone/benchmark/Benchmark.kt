package dev.skipstone.benchmark

import dev.skipstone.Frame
import dev.skipstone.Plane
import dev.skipstone.Session
import dev.skipstone.SkipstoneException
import java.nio.ByteBuffer
import kotlin.coroutines.coroutineContext
import kotlin.random.Random
import kotlinx.coroutines.ensureActive

/** How long to run: a number of runs, or of milliseconds. */
internal sealed interface Amount {
    data class Runs(val count: Int) : Amount

    data class Time(val milliseconds: Long) : Amount
}

/**
 * Runs a model on random tensors repeatedly and watches the device: a warm phone is slower than a cold one.
 *
 * A run is what an app does: a suspending call of the library. The report also has the native library's own time for the
 * last of them, and the time of camera frames, from planes to answer.
 *
 * @param device the device to watch.
 * @param now the current time, in nanoseconds.
 */
internal class Benchmark(private val device: Device, private val now: () -> Long) {
    /** Opens a session and closes it at the end; warms up, runs for [amount], and reports every moment to [progress]. */
    suspend fun run(amount: Amount, warmUp: Int = 10, progress: (Moment) -> Unit = {}, open: () -> Session): Report {
        val opening = now()
        return open().use { session ->
            val loadMs = since(opening)
            val (inputs, outputs) = session.inputs().onEach { fill(session, it) } to session.outputs()
            val firstMs = timed { session.run(inputs, outputs) }
            repeat(warmUp) { session.run(inputs, outputs) }

            val (all, moments) = Statistics() to Moments()
            val began = now()
            do {
                coroutineContext.ensureActive()
                val ms = timed { session.run(inputs, outputs) }
                all.add(ms)
                moments.add(ms)
                val passed = since(began).toLong()
                val isDone = reached(amount, all.count, passed)
                if (isDone || moments.isDue(passed)) progress(moments.end(passed, device.state()))
            } while (!isDone)
            val native = session.latency
            val frames = frames(session, inputs, outputs)
            // Profiled runs are separate, because reading the clock after every step takes time.
            session.startProfile()
            repeat(EXTRA) { session.run(inputs, outputs) }
            Report(device, session.model, loadMs, firstMs, all, native, frames, session.memory, moments.all, session.profile())
        }
    }

    /** Camera frames through the model's input; null if it is not an image. */
    private suspend fun frames(session: Session, inputs: List<ByteBuffer>, outputs: List<ByteBuffer>): Frames? {
        val (width, height) = Frames.WIDTH to Frames.HEIGHT
        val plane = { bytes: Int, stride: Int -> Plane(ByteBuffer.allocateDirect(bytes), stride) }
        val chroma = { plane(width * height / 4, width / 2) }
        val frame = Frame.yuv420(width, height, plane(width * height, width), chroma(), chroma())
        val (prepare, whole) = Statistics() to Statistics()
        repeat(EXTRA) {
            val preparing = try {
                timed { session.prepare(frame, 0, inputs[0]) }
            } catch (noImage: SkipstoneException.Model) {
                return null
            }
            prepare.add(preparing)
            whole.add(preparing + timed { session.run(inputs, outputs) })
        }
        return Frames(whole.count, prepare.times, whole.times)
    }

    private fun since(began: Long) = (now() - began) / 1e6

    private inline fun timed(call: () -> Unit): Double {
        val began = now()
        call()
        return since(began)
    }

    private fun reached(amount: Amount, runs: Int, passedMs: Long) = when (amount) {
        is Amount.Runs -> runs >= amount.count
        is Amount.Time -> passedMs >= amount.milliseconds
    }

    private fun fill(session: Session, tensor: ByteBuffer) {
        val random = Random(1)
        val isFloat = session.model.inputs.all { it.element == "f32" }
        while (isFloat && tensor.remaining() >= 4) tensor.putFloat(random.nextFloat())
        while (tensor.hasRemaining()) tensor.put(random.nextInt(2).toByte())
        tensor.rewind()
    }

    private companion object {
        /** Frames, and profiled runs. */
        const val EXTRA = 50
    }
}
