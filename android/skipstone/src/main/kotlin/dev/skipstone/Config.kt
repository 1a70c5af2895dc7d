package dev.skipstone

import dev.skipstone.internal.ffi.Config as NativeConfig
import dev.skipstone.internal.ffi.Power as NativePower

/** Which cores of the phone a model runs on. */
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

    internal fun native() = NativeConfig(
        threads.toUInt(),
        when (power) {
            Power.FAST -> NativePower.FAST
            Power.BALANCED -> NativePower.BALANCED
            Power.EFFICIENT -> NativePower.EFFICIENT
        },
        publicKey,
        copy,
        shapes.mapValues { (_, shape) -> shape.map(Int::toULong) },
    )
}
