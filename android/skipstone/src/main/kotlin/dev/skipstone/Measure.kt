package dev.skipstone

import dev.skipstone.internal.ffi.Latency as NativeLatency
import dev.skipstone.internal.ffi.Memory as NativeMemory
import dev.skipstone.internal.ffi.StepTime as NativeStepTime

/**
 * Latency of the latest runs (at most 1024 of them), in milliseconds; zero where none was made.
 *
 * @property runs runs that succeeded, all of them.
 * @property min the fastest.
 * @property p50 the median.
 * @property p90 nine in ten are at most this slow.
 * @property p99 99 in 100 are at most this slow.
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
 * Memory of a model and one classifier or session of it, and of the process that they are in.
 *
 * @property weightsBytes weights as the file stores them.
 * @property packedBytes weights in the kernels' own form.
 * @property arenaBytes every tensor between the inputs and the outputs.
 * @property residentBytes what the process has resident; null where the system does not tell.
 * @property peakResidentBytes the most that it ever had resident; null where the system does not tell.
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
 * What one step of a model takes.
 *
 * @property name name of the step.
 * @property op its operator.
 * @property kernel its kernel.
 * @property ms milliseconds of one run.
 * @property share part of all steps' time, 0 to 1.
 */
public data class StepTime(val name: String, val op: String, val kernel: String, val ms: Double, val share: Double) {
    internal companion object {
        fun of(it: NativeStepTime): StepTime = StepTime(it.name, it.op, it.kernel, it.ms, it.share)
    }
}
