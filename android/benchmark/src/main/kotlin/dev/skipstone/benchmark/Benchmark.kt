package dev.skipstone.benchmark

import dev.skipstone.Session
import java.nio.ByteBuffer
import kotlin.coroutines.coroutineContext
import kotlin.random.Random
import kotlinx.coroutines.ensureActive

/** How long to run: a number of runs, or of milliseconds. */
internal sealed interface Amount {
    data class Runs(val count: Int) : Amount

    data class Time(val milliseconds: Long) : Amount
}

/** The state of the device at one moment of the benchmark. */
internal data class Moment(val atMs: Long, val runs: Int, val p50Ms: Double, val pssBytes: Long, val thermal: String?)

/**
 * Runs a model on random tensors repeatedly and watches the device: a warm phone is slower than a cold one.
 *
 * @param session the session to run.
 * @param device the device to watch.
 * @param now the current time, in nanoseconds.
 */
internal class Benchmark(private val session: Session, private val device: Device, private val now: () -> Long) {
    private val inputs = session.inputs().onEach { fill(it, Random(1)) }
    private val outputs = session.outputs()

    /** Warms up, runs for [amount], and reports every recorded moment to [progress]. */
    suspend fun run(amount: Amount, warmUp: Int = 5, progress: (Moment) -> Unit = {}): Report {
        repeat(warmUp) { session.run(inputs, outputs) }
        val (latencies, moments) = ArrayList<Double>() to ArrayList<Moment>()
        val since = now()
        var kept = 0
        while (!done(amount, latencies.size, since)) {
            coroutineContext.ensureActive()
            val began = now()
            session.run(inputs, outputs)
            latencies += (now() - began) / 1e6
            val last = done(amount, latencies.size, since)
            if (last || (now() - since) / MOMENT_NS >= moments.size) {
                val median = Percentiles.of(latencies.subList(kept, latencies.size)).p50
                kept = latencies.size
                val atMs = (now() - since) / 1_000_000
                moments += Moment(atMs, kept, median, device.pssBytes(), device.thermalStatus()).also(progress)
            }
        }
        // Profiled runs are separate, because reading the clock after every step takes time.
        session.startProfile()
        repeat(PROFILED) { session.run(inputs, outputs) }
        return Report(device.name, session.model, Percentiles.of(latencies), session.memory, moments, session.profile())
    }

    private fun done(amount: Amount, runs: Int, since: Long) = when (amount) {
        is Amount.Runs -> runs >= amount.count
        is Amount.Time -> now() - since >= amount.milliseconds * 1_000_000
    }

    private fun fill(tensor: ByteBuffer, random: Random) {
        val isFloat = session.model.inputs.all { it.element == "f32" }
        while (isFloat && tensor.remaining() >= 4) tensor.putFloat(random.nextFloat())
        while (tensor.hasRemaining()) tensor.put(random.nextInt(2).toByte())
        tensor.rewind()
    }

    private companion object {
        /** Interval between recorded moments. */
        const val MOMENT_NS = 5_000_000_000L
        const val PROFILED = 20
    }
}
