package dev.skipstone

import dev.skipstone.internal.Reply
import dev.skipstone.internal.Request

/** How a model's output becomes scores. The order is that of the native library. */
public enum class Activation {
    /** The classes exclude each other: the scores sum to 1. */
    SOFTMAX,

    /** Each class is scored on its own, for models with several labels per image. */
    SIGMOID,

    /** The output unchanged. */
    NONE,
}

/**
 * What a [Classifier] should do differently from what its model says.
 *
 * @property activation how the output becomes scores; null for what the package's metadata or the model's last
 * operator says.
 * @property threshold the lowest score that is reported.
 * @property allow the only classes that may be reported, by label or as `class 7`; all if empty.
 * @property deny classes that are never reported; not together with [allow].
 * @property locale language of [Prediction.displayName], such as `de` or `pt-BR`.
 * @property labels the text of a labels file, one per line, instead of the package's labels.
 */
public class ClassifierOptions @JvmOverloads constructor(
    public val activation: Activation? = null,
    public val threshold: Float? = null,
    public val allow: List<String> = emptyList(),
    public val deny: List<String> = emptyList(),
    public val locale: String? = null,
    public val labels: String? = null,
) {
    internal fun request(): Request = Request()
        .int(activation?.ordinal ?: -1)
        .optional(threshold, Request::float)
        .list(allow, Request::text)
        .list(deny, Request::text)
        .optional(locale, Request::text)
        .optional(labels, Request::text)
}

/**
 * How a [Classifier] makes its input and its scores, and where that was specified.
 *
 * @property labels names of the classes, in the order of the output; empty if the model has none.
 * @property displayNames the same in the requested language.
 * @property scores what the scores are, such as `sigmoid inside the model, by the model's last operator, prob`.
 * @property normalization how images are normalized.
 * @property photoSide the shorter side, in pixels, to which [Frame.photo] may shrink a photo: from there on nothing is
 * enlarged.
 */
public class ClassifierInfo internal constructor(
    public val labels: List<String>,
    public val displayNames: List<String>,
    public val scores: String,
    public val normalization: Normalization,
    public val photoSide: Int,
) {
    internal companion object {
        fun of(reply: Reply): ClassifierInfo = ClassifierInfo(
            labels = reply.list(Reply::text),
            displayNames = reply.list(Reply::text),
            scores = reply.text(),
            normalization = Normalization.of(reply),
            photoSide = reply.int(),
        )
    }
}

/**
 * The values subtracted from each channel of an image (scaled to 0..1), and those it is then divided by.
 *
 * @property mean mean of the channels.
 * @property std standard deviation of the channels.
 * @property origin where this was specified, such as `by the model's metadata`; begins with `assumed` if nowhere.
 */
public class Normalization internal constructor(
    public val mean: List<Float>,
    public val std: List<Float>,
    public val origin: String,
) {
    internal companion object {
        fun of(reply: Reply): Normalization =
            Normalization(reply.list(Reply::float), reply.list(Reply::float), reply.text())
    }
}
