package dev.skipstone.benchmark

import dev.skipstone.Latency
import dev.skipstone.Memory
import dev.skipstone.ModelInfo
import dev.skipstone.StepTime
import org.json.JSONArray
import org.json.JSONObject

/** Camera frames: the time until the input is ready, and until the answer. */
internal class Frames(val runs: Int, val prepare: Times, val whole: Times) {
    companion object {
        /** Pixels across: what cameras deliver for analysis by default. */
        const val WIDTH = 640

        /** Pixels down. */
        const val HEIGHT = 480
    }
}

/** The result of a benchmark. */
internal class Report(
    private val device: Device,
    private val model: ModelInfo,
    private val loadMs: Double,
    private val firstMs: Double,
    private val runs: Statistics,
    private val native: Latency,
    private val frames: Frames?,
    private val memory: Memory,
    private val moments: List<Moment>,
    private val steps: List<StepTime>,
) {
    /**
     * The keys of `skipstone bench --json`, and what only an app can report; `bindings/report.txt` lists all of them,
     * for this app and the one for iOS.
     */
    fun json(): JSONObject = JSONObject()
        .put("device", JSONObject().put("name", device.name).put("system", device.system).put("cores", device.cores))
        .put("model", model.name)
        .put("isa", model.isa)
        .put("threads", model.threads)
        .put("load_ms", loadMs)
        .put("first_ms", firstMs)
        .put("runs", runs.count)
        .put("latency_ms", times(runs.times))
        .put("native_ms", times(with(native) { Times(min, p50, p90, p99, max, mean) }))
        .put("histogram", array(runs.histogram) { (from, count) -> JSONObject().put("from_ms", from).put("runs", count) })
        .put("frames", frames?.let(::frames) ?: JSONObject.NULL)
        .put(
            "memory",
            JSONObject()
                .put("weights_bytes", memory.weightsBytes)
                .put("packed_bytes", memory.packedBytes)
                .put("arena_bytes", memory.arenaBytes)
                .put("peak_rss_bytes", memory.peakResidentBytes ?: JSONObject.NULL),
        )
        .put("moments", array(moments, ::moment))
        .put("steps", array(steps, ::step))

    /** A summary that fits on a phone's screen. */
    fun text(): String = buildString {
        val latency = runs.times
        appendLine("${model.name} on ${model.isa}, ${model.threads} threads, ${runs.count} runs")
        appendLine("loaded in %.2f ms, first run %.2f ms".format(loadMs, firstMs))
        appendLine("min %.2f  p50 %.2f  p90 %.2f  p99 %.2f  max %.2f ms".format(latency.min, latency.p50, latency.p90, latency.p99, latency.max))
        appendLine("of it in the native library: p50 %.2f ms".format(native.p50))
        frames?.let { appendLine("frames: prepared in %.2f ms, answered in %.2f ms".format(it.prepare.p50, it.whole.p50)) }
        moments.lastOrNull()?.state?.let { appendLine("PSS %.1f MB, thermal %s".format(it.memoryBytes / 1e6, it.thermal ?: "unknown")) }
        appendLine()
        for (step in steps.sortedByDescending { it.ms }.take(12)) {
            appendLine("%5.1f %%  %.3f ms  %s  %s".format(step.share * 100, step.ms, step.op, step.kernel))
        }
    }

    private fun times(it: Times) = JSONObject()
        .put("min", it.min)
        .put("p50", it.p50)
        .put("p90", it.p90)
        .put("p99", it.p99)
        .put("max", it.max)
        .put("mean", it.mean)

    private fun frames(it: Frames) = JSONObject()
        .put("width", Frames.WIDTH)
        .put("height", Frames.HEIGHT)
        .put("runs", it.runs)
        .put("prepare_ms", times(it.prepare))
        .put("latency_ms", times(it.whole))

    private fun moment(it: Moment) = JSONObject()
        .put("at_ms", it.atMs)
        .put("runs", it.runs)
        .put("mean_ms", it.meanMs)
        .put("max_ms", it.maxMs)
        .put("memory_bytes", it.state.memoryBytes)
        .put("thermal", it.state.thermal ?: JSONObject.NULL)
        .put("battery", it.state.battery ?: JSONObject.NULL)
        .put("mhz", it.state.mhz?.let(::JSONArray) ?: JSONObject.NULL)

    private fun step(it: StepTime) = JSONObject()
        .put("name", it.name)
        .put("op", it.op)
        .put("kernel", it.kernel)
        .put("ms", it.ms)
        .put("share", it.share)

    private fun <T> array(items: List<T>, json: (T) -> JSONObject) = JSONArray(items.map(json))
}
