package dev.skipstone

import dev.skipstone.internal.ffi.Latency as NativeLatency
import dev.skipstone.internal.ffi.Memory as NativeMemory
import dev.skipstone.internal.ffi.StepTime as NativeStepTime

/**
 * Latency of the latest runs (at most 1024), in milliseconds; zero if there were none.
 *
 * @property runs the count of all runs that succeeded.
 * @property min the fastest.
 * @property p50 the median.
 * @property p90 the 90th percentile.
 * @property p99 the 99th percentile.
 * @property max the slowest.
 * @property mean the arithmetic mean.
 */
public data class Latency(
    val runs: Long,
    val min: Double,
    val p50: Double,
    val p90: Double,
    val p99: Double,
    val max: Double,
    val mean: Double,
) {
    internal companion object {
        fun of(it: NativeLatency): Latency = Latency(it.runs.toLong(), it.min, it.p50, it.p90, it.p99, it.max, it.mean)
    }
}

/**
 * Memory of a model and one classifier or session of it, and of their process.
 *
 * @property weightsBytes weights as the file stores them.
 * @property packedBytes weights packed for the kernels.
 * @property arenaBytes all tensors between the inputs and the outputs.
 * @property residentBytes resident memory of the process; null if the system does not report it.
 * @property peakResidentBytes peak resident memory of the process; null if the system does not report it.
 */
public data class Memory(
    val weightsBytes: Long,
    val packedBytes: Long,
    val arenaBytes: Long,
    val residentBytes: Long?,
    val peakResidentBytes: Long?,
) {
    internal companion object {
        fun of(it: NativeMemory): Memory = Memory(
            it.weightsBytes.toLong(),
            it.packedBytes.toLong(),
            it.arenaBytes.toLong(),
            it.residentBytes?.toLong(),
            it.peakResidentBytes?.toLong(),
        )
    }
}

/**
 * The time of one step of a model.
 *
 * @property name name of the step.
 * @property op its operator.
 * @property kernel its kernel.
 * @property ms milliseconds per run.
 * @property share fraction of the time of all steps, 0 to 1.
 */
public data class StepTime(val name: String, val op: String, val kernel: String, val ms: Double, val share: Double) {
    internal companion object {
        fun of(it: NativeStepTime): StepTime = StepTime(it.name, it.op, it.kernel, it.ms, it.share)
    }
}
