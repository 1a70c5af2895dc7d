package dev.skipstone

import dev.skipstone.internal.ffi.Activation as NativeActivation
import dev.skipstone.internal.ffi.ClassifierInfo as NativeClassifierInfo
import dev.skipstone.internal.ffi.ClassifierOptions as NativeClassifierOptions
import dev.skipstone.internal.ffi.Normalization as NativeNormalization

/** What makes scores of a model's output. */
public enum class Activation {
    /** One class of all: the scores sum to 1. */
    SOFTMAX,

    /** Each class on its own: what a model for several labels wants. */
    SIGMOID,

    /** The output as it is. */
    NONE,
}

/**
 * What a [Classifier] is to do otherwise than its model says.
 *
 * @property activation what makes scores of the output; null does what the package's metadata or the model's last
 * operator tells.
 * @property threshold the least score of a class that is named.
 * @property allow the only classes that may be named, by label or as `class 7`; all where empty.
 * @property deny classes that are not named; not together with [allow].
 * @property locale language of [Prediction.displayName], such as `de` or `pt-BR`.
 * @property labels the text of a file of labels, one a line, instead of the package's.
 */
public class ClassifierOptions @JvmOverloads constructor(
    public val activation: Activation? = null,
    public val threshold: Float? = null,
    public val allow: List<String> = emptyList(),
    public val deny: List<String> = emptyList(),
    public val locale: String? = null,
    public val labels: String? = null,
) {
    internal fun native() = NativeClassifierOptions(
        when (activation) {
            Activation.SOFTMAX -> NativeActivation.SOFTMAX
            Activation.SIGMOID -> NativeActivation.SIGMOID
            Activation.NONE -> NativeActivation.NONE
            null -> null
        },
        threshold,
        allow,
        deny,
        locale,
        labels,
    )
}

/**
 * How a [Classifier] makes its input and its scores, and who says so.
 *
 * @property labels names of the classes, in the order of the output; empty where nobody names them.
 * @property displayNames the same in the language that was asked for.
 * @property scores what the scores are, such as `sigmoid inside the model, by the model's last operator, prob`.
 * @property normalization what images are normalized by.
 */
public class ClassifierInfo internal constructor(
    public val labels: List<String>,
    public val displayNames: List<String>,
    public val scores: String,
    public val normalization: Normalization,
) {
    internal companion object {
        fun of(info: NativeClassifierInfo): ClassifierInfo =
            ClassifierInfo(info.labels, info.displayNames, info.scores, Normalization.of(info.normalization))
    }
}

/**
 * What is subtracted from each channel of an image, for values between 0 and 1, and what it is then divided by.
 *
 * @property mean mean of the channels.
 * @property std standard deviation of the channels.
 * @property origin who says so, such as `by the model's metadata`; it begins with `assumed` where nobody does.
 */
public class Normalization internal constructor(
    public val mean: List<Float>,
    public val std: List<Float>,
    public val origin: String,
) {
    internal companion object {
        fun of(it: NativeNormalization): Normalization = Normalization(it.mean, it.std, it.origin)
    }
}
