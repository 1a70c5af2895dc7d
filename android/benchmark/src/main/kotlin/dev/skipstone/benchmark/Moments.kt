package dev.skipstone.benchmark

import kotlin.math.max

/** What a device reports at one moment. */
internal data class DeviceState(
    /** Proportional set size (PSS) of the process, in bytes. */
    val memoryBytes: Long,
    /** Thermal status, from `none` to `shutdown`; null if the system does not report it. */
    val thermal: String?,
    /** Charge of the battery, 0 to 1; null if the system does not report it. */
    val battery: Double?,
    /** Frequency of every core, in MHz; null if apps may not read it. */
    val mhz: List<Int>?,
)

/**
 * The runs of a part of the benchmark, and the device at its end.
 *
 * @property atMs milliseconds from the start of the benchmark to the end of this part.
 */
internal data class Moment(val atMs: Long, val runs: Int, val meanMs: Double, val maxMs: Double, val state: DeviceState)

/** The parts of a benchmark, a bounded number of them: where there would be more, every two become one. */
internal class Moments(private val limit: Int = 600) {
    private val moments = ArrayList<Moment>()
    private var step = 1
    private var ended = 0L
    private var runs = 0
    private var sum = 0.0
    private var most = 0.0

    /** Adds a run of [ms] milliseconds. */
    fun add(ms: Double) {
        runs += 1
        sum += ms
        most = max(most, ms)
    }

    /** Whether the current part is over at [atMs], which is so every [INTERVAL_MS] at first. */
    fun isDue(atMs: Long): Boolean = atMs - ended >= INTERVAL_MS * step

    /** Ends the current part, in which there was a run. */
    fun end(atMs: Long, state: DeviceState): Moment {
        val moment = Moment(atMs, runs, sum / runs, most, state)
        moments += moment
        ended = atMs
        runs = 0
        sum = 0.0
        most = 0.0
        if (moments.size > limit) halve()
        return moment
    }

    val all: List<Moment> get() = moments

    private fun halve() {
        val pairs = moments.chunked(2) { pair ->
            val count = pair.sumOf { it.runs }
            val mean = pair.sumOf { it.runs * it.meanMs } / count
            pair.last().copy(runs = count, meanMs = mean, maxMs = pair.maxOf { it.maxMs })
        }
        moments.clear()
        moments += pairs
        step *= 2
    }

    private companion object {
        const val INTERVAL_MS = 5_000L
    }
}
