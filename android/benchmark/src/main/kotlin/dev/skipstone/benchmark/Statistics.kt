package dev.skipstone.benchmark

import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.roundToInt

/** Latency in milliseconds; all zero if there were no runs. */
internal data class Times(
    val min: Double,
    val p50: Double,
    val p90: Double,
    val p99: Double,
    val max: Double,
    val mean: Double,
)

/**
 * Percentiles of any number of times in a fixed amount of memory: an hour of runs must not grow the measured memory.
 *
 * Times are counted in bins 1 % wide, from a microsecond to a hundred seconds, so a percentile is accurate to half a
 * percent. Minimum, maximum and mean are exact. The benchmark for iOS has the same bins.
 */
internal class Statistics {
    private val bins = IntArray(1852)
    private var least = Double.POSITIVE_INFINITY
    private var most = 0.0
    private var sum = 0.0

    /** Number of times. */
    var count = 0
        private set

    /** Adds a time in milliseconds. */
    fun add(ms: Double) {
        bins[min((ln(max(ms, SHORTEST) / SHORTEST) / ln(WIDTH)).toInt(), bins.size - 1)] += 1
        least = min(least, ms)
        most = max(most, ms)
        sum += ms
        count += 1
    }

    val times: Times
        get() =
            if (count == 0) {
                Times(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            } else {
                Times(least, percentile(0.5), percentile(0.9), percentile(0.99), most, sum / count)
            }

    /** The bins that are not empty, shortest first: where each begins, in milliseconds, and the number of its times. */
    val histogram: List<Pair<Double, Int>>
        get() = bins.withIndex().filter { it.value > 0 }.map { (bin, runs) -> SHORTEST * WIDTH.pow(bin) to runs }

    private fun percentile(share: Double): Double {
        val rank = (share * (count - 1)).roundToInt()
        var below = 0
        for ((bin, runs) in bins.withIndex()) {
            below += runs
            if (below > rank) return (SHORTEST * WIDTH.pow(bin + 0.5)).coerceIn(least, most)
        }
        return most
    }

    private companion object {
        const val WIDTH = 1.01
        const val SHORTEST = 1e-3
    }
}
