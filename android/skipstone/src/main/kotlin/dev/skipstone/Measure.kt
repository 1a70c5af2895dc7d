package dev.skipstone

import dev.skipstone.internal.Reply

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
@ConsistentCopyVisibility
public data class Latency internal constructor(
    val runs: Long,
    val min: Double,
    val p50: Double,
    val p90: Double,
    val p99: Double,
    val max: Double,
    val mean: Double,
) {
    internal companion object {
        fun of(reply: Reply): Latency = Latency(
            runs = reply.long(),
            min = reply.number(),
            p50 = reply.number(),
            p90 = reply.number(),
            p99 = reply.number(),
            max = reply.number(),
            mean = reply.number(),
        )
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
@ConsistentCopyVisibility
public data class Memory internal constructor(
    val weightsBytes: Long,
    val packedBytes: Long,
    val arenaBytes: Long,
    val residentBytes: Long?,
    val peakResidentBytes: Long?,
) {
    internal companion object {
        fun of(reply: Reply): Memory = Memory(
            weightsBytes = reply.long(),
            packedBytes = reply.long(),
            arenaBytes = reply.long(),
            residentBytes = reply.optional(Reply::long),
            peakResidentBytes = reply.optional(Reply::long),
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
@ConsistentCopyVisibility
public data class StepTime internal constructor(
    val name: String,
    val op: String,
    val kernel: String,
    val ms: Double,
    val share: Double,
) {
    internal companion object {
        fun of(reply: Reply): StepTime = StepTime(
            name = reply.text(),
            op = reply.text(),
            kernel = reply.text(),
            ms = reply.number(),
            share = reply.number(),
        )
    }
}
