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
 * @throws SkipstoneException.Input for a negative number of threads.
 */
public class Config @JvmOverloads constructor(
    public val threads: Int = 1,
    public val power: Power = Power.BALANCED,
    public val publicKey: ByteArray? = null,
    public val copy: Boolean = false,
    public val shapes: Map<String, List<Int>> = emptyMap(),
) {
    init {
        if (threads < 0) throw SkipstoneException.Input("input.threads", "threads is $threads")
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
}
