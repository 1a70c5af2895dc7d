package dev.skipstone

import dev.skipstone.internal.Request

/** Which cores of the phone a model runs on. The order is that of the native library. */
public enum class Power {
    /** The large cores. */
    FAST,

    /** Whichever the system gives. */
    BALANCED,

    /** The small cores, which need a fraction of the energy. */
    EFFICIENT,
}

/**
 * How a model is opened.
 *
 * @property threads threads per run, including the caller's; 0 means as many as [power] has cores.
 * @property power which cores to use.
 * @property publicKey an Ed25519 public key of 32 bytes: a package that is not signed with it is refused.
 * @property copy whether to read a package's file into memory instead of mapping it, so that later changes do not
 * matter.
 * @property shapes shapes of an ONNX file's dynamic inputs, by name; packages have none.
 * @property limits limits on what a model may need, by name, instead of the defaults. A model above one is refused with
 * its name. All but the first three are for ONNX files.
 *
 * | limit | unit | of | default |
 * |---|---|---|---|
 * | `memory` | bytes | a session: arena with scratch, inputs, state, copies of outputs | 2^30 |
 * | `work` | steps | a run: multiply-adds, and elements read and written | 2^38 |
 * | `iterations` | iterations | all loops of a run | 2^20 |
 * | `file` | bytes | the file | 2^31 |
 * | `external` | bytes | external data, once per tensor | 2^31 |
 * | `nodes` | nodes | the model, with its functions expanded | 100,000 |
 * | `items` | items | messages and strings of the file | 2,000,000 |
 * | `depth` | levels | nested messages | 32 |
 * | `inputs` | inputs | a node | 2^12 |
 * | `attributes` | attributes | a node | 256 |
 * | `name` | bytes | a name | 2^12 |
 * | `string` | bytes | a string attribute, or an entry of the metadata | 2^24 |
 * | `rank` | dimensions | a tensor | 32 |
 * | `elements` | elements | a tensor | 2^28 |
 * | `folded` | elements | everything computed from constants while loading | 2^26 |
 * | `folded-work` | steps | everything computed from constants while loading | 2^30 |
 *
 * @property expertBudget most bytes of the weights of experts in memory at a time; null for no such bound. For a package
 * of a mixture of experts that is packed for the device's instruction set and mapped from its file: a part of it is in
 * memory, and experts are read as a run needs them, most of them ahead. The answers are the same. A budget that does not
 * fit the largest expert is refused with the bytes that it needs.
 *
 * @throws SkipstoneException.Input for a negative number of threads or bytes. The calls that open a model throw it for a limit
 * that does not exist, or is negative (code `input.limit`).
 */
public class Config @JvmOverloads constructor(
    public val threads: Int = 1,
    public val power: Power = Power.BALANCED,
    public val publicKey: ByteArray? = null,
    public val copy: Boolean = false,
    public val shapes: Map<String, List<Int>> = emptyMap(),
    public val limits: Map<String, Long> = emptyMap(),
    public val expertBudget: Long? = null,
) {
    init {
        if (threads < 0) throw SkipstoneException.Input("input.threads", "threads is $threads")
        if (expertBudget != null && expertBudget < 0) {
            throw SkipstoneException.Input("input.budget", "expertBudget is $expertBudget")
        }
        for ((input, shape) in shapes) {
            if (shape.any { it < 0 }) throw SkipstoneException.Input("input.shape", "the shape of '$input' is $shape")
        }
    }

    /** A request that begins with this configuration. */
    internal fun request(): Request = Request()
        .int(threads)
        .int(power.ordinal)
        .optional(publicKey, Request::bytes)
        .flag(copy)
        .list(shapes.entries) { (input, shape) -> text(input).list(shape, Request::int) }
        .list(limits.entries) { (name, value) -> text(name).long(value) }
        .optional(expertBudget, Request::long)
}
