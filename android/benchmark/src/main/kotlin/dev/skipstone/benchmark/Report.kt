package dev.skipstone.benchmark

import dev.skipstone.Memory
import dev.skipstone.ModelInfo
import dev.skipstone.StepTime
import org.json.JSONArray
import org.json.JSONObject

/** Latency in milliseconds; percentiles are interpolated between runs, as in `skipstone bench`. */
internal data class Percentiles(
    val runs: Int,
    val min: Double,
    val p50: Double,
    val p90: Double,
    val p99: Double,
    val max: Double,
    val mean: Double,
) {
    companion object {
        fun of(latencies: List<Double>): Percentiles {
            if (latencies.isEmpty()) return Percentiles(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            val sorted = latencies.sorted()
            fun at(part: Double): Double {
                val place = part * (sorted.size - 1)
                val below = sorted[place.toInt()]
                val above = sorted.getOrElse(place.toInt() + 1) { below }
                return below + (above - below) * (place - place.toInt())
            }
            return Percentiles(sorted.size, sorted.first(), at(0.5), at(0.9), at(0.99), sorted.last(), sorted.average())
        }
    }
}

/** The result of a benchmark. */
internal class Report(
    private val device: String,
    private val model: ModelInfo,
    private val latency: Percentiles,
    private val memory: Memory,
    private val moments: List<Moment>,
    private val steps: List<StepTime>,
) {
    /** The same keys as `skipstone bench --json`, and what only a phone reports. */
    fun json(): JSONObject = JSONObject()
        .put("device", device)
        .put("model", model.name)
        .put("isa", model.isa)
        .put("threads", model.threads)
        .put("runs", latency.runs)
        .put(
            "latency_ms",
            JSONObject()
                .put("min", latency.min)
                .put("p50", latency.p50)
                .put("p90", latency.p90)
                .put("p99", latency.p99)
                .put("max", latency.max)
                .put("mean", latency.mean),
        )
        .put(
            "memory",
            JSONObject()
                .put("weights_bytes", memory.weightsBytes)
                .put("packed_bytes", memory.packedBytes)
                .put("arena_bytes", memory.arenaBytes)
                .put("peak_rss_bytes", memory.peakResidentBytes ?: JSONObject.NULL),
        )
        .put("moments", JSONArray(moments.map(::moment)))
        .put("steps", JSONArray(steps.map(::step)))

    /** A summary that fits on a phone's screen. */
    fun text(): String = buildString {
        appendLine("${model.name} on ${model.isa}, ${model.threads} threads, ${latency.runs} runs")
        appendLine("min %.2f  p50 %.2f  p90 %.2f  p99 %.2f  max %.2f ms".format(latency.min, latency.p50, latency.p90, latency.p99, latency.max))
        moments.lastOrNull()?.let { appendLine("PSS %.1f MB, thermal %s".format(it.pssBytes / 1e6, it.thermal ?: "unknown")) }
        appendLine()
        for (step in steps.sortedByDescending { it.ms }.take(12)) {
            appendLine("%5.1f %%  %.3f ms  %s  %s".format(step.share * 100, step.ms, step.op, step.kernel))
        }
    }

    private fun moment(it: Moment) = JSONObject()
        .put("at_ms", it.atMs)
        .put("runs", it.runs)
        .put("p50_ms", it.p50Ms)
        .put("pss_bytes", it.pssBytes)
        .put("thermal", it.thermal ?: JSONObject.NULL)

    private fun step(it: StepTime) = JSONObject()
        .put("name", it.name)
        .put("op", it.op)
        .put("kernel", it.kernel)
        .put("ms", it.ms)
        .put("share", it.share)
}
