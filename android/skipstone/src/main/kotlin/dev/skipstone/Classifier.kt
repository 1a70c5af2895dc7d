package dev.skipstone

import android.content.Context
import dev.skipstone.internal.CallBuffer
import dev.skipstone.internal.Limit
import dev.skipstone.internal.NativeObject
import dev.skipstone.internal.Runs
import dev.skipstone.internal.opening
import java.io.File
import java.nio.ByteBuffer

/**
 * Classifies frames.
 *
 * ```
 * Classifier.open(context, "flowers.skip").use { classifier ->
 *     println(classifier.classify(frame).best)
 * }
 * ```
 *
 * Any thread may call at any time; runs of one classifier wait for each other, and a second classifier of the same
 * [Model]
 * shares its weights. [close] may be called during a run: the run is stopped, and every later call throws
 * [SkipstoneException.Closed].
 *
 * @param model a model with one image input, whose first output holds class scores.
 * @param options what to do differently from what the model says.
 * @throws SkipstoneException.Model for a model that is not an image classifier.
 * @throws SkipstoneException.Input for options that name a class that the model does not have.
 */
public class Classifier @JvmOverloads constructor(
    model: Model,
    options: ClassifierOptions = ClassifierOptions(),
) : AutoCloseable {
    private val native: NativeObject = model.native.classifier(options.request())
    private val runs = Runs(native::forgetCancel, native::cancel)
    private val limit = Limit(native::limit)

    /** What the model says about itself. */
    public val model: ModelInfo = model.info

    /** How it makes its input and its scores, and where that was specified. */
    public val info: ClassifierInfo = ClassifierInfo.of(native.info())

    /** Names of the classes, in the order of the model's output; empty if the model has none. */
    public val labels: List<String> get() = info.labels

    /**
     * The [top] best classes of [frame], best first, among those allowed. Runs off the caller's thread; cancelling the
     * coroutine stops the run, and it resumes once the frame is no longer being read.
     *
     * @param deadlineMs the longest that this run may take, in milliseconds; null for the limit of [setDeadline].
     * @throws SkipstoneException.Frame for an inconsistent frame.
     * @throws SkipstoneException.Deadline if the run took longer.
     */
    public suspend fun classify(frame: Frame, top: Int = DEFAULT_TOP, deadlineMs: Double? = null): Classification =
        runs.await { call -> limit.during(deadlineMs) { classify(frame, top, call) } }

    /** The same on the calling thread. */
    @JvmOverloads
    public fun classifyBlocking(frame: Frame, top: Int = DEFAULT_TOP, deadlineMs: Double? = null): Classification =
        runs.run { call -> limit.during(deadlineMs) { classify(frame, top, call) } }

    private fun classify(frame: Frame, top: Int, call: CallBuffer): Classification {
        call.describe(frame, top)
        val planes = frame.planes
        val second = planes.getOrNull(1)?.bytes
        val third = planes.getOrNull(2)?.bytes
        val answer = frame.lease.reading { native.classify(planes.first().bytes, second, third, call) }
        return if (answer < 0) throw call.error(answer) else call.classification(answer, info, frame.timestampNs)
    }

    /**
     * Classifies a black image, off the caller's thread, so that the first frame does not wait for the model's memory.
     * Call it before the first frame: it resets the state, and counts as a run in [latency].
     */
    public suspend fun warmUp(): Unit = runs.await { call -> warmUp(call) }

    /** The same on the calling thread. */
    public fun warmUpBlocking(): Unit = runs.run { call -> warmUp(call) }

    private fun warmUp(call: CallBuffer) {
        classify(Frame.gray(1, 1, ByteBuffer.allocateDirect(1)), 1, call)
        resetState()
    }

    /** Stops the current run, which then throws [SkipstoneException.Cancelled]; does nothing if there is none. */
    public fun cancel(): Unit = native.cancel()

    /**
     * Sets a setting of the model, such as the threshold of an early exit, for all later runs; or its state, for the
     * next one. Waits for the runs before it, off the caller's thread.
     *
     * @param name an input that the model's metadata assigns to the session.
     * @throws SkipstoneException.Input for another name (code `setting.unknown`; the message lists the names), and for
     * a [value] that does not fit the input's shape and element type (`setting.value`). Nothing is changed then.
     */
    public suspend fun set(name: String, value: Setting): Unit = runs.await { native.set(name, value.numbers) }

    /** The same on the calling thread. */
    public fun setBlocking(name: String, value: Setting): Unit = runs.run { native.set(name, value.numbers) }

    /**
     * Resets the state that is carried from run to run, as before the first run; settings keep their values. Waits for
     * the runs before it, off the caller's thread.
     */
    public suspend fun reset(): Unit = runs.await { resetState() }

    /** The same on the calling thread. */
    public fun resetBlocking(): Unit = runs.run { resetState() }

    private fun resetState() = native.set(null, emptyList())

    /** Limits every later run to this many milliseconds; null for no limit. Waits for the current run. */
    public fun setDeadline(milliseconds: Double?): Unit = runs.run { limit.set(milliseconds) }

    /** Statistics of the latest runs, from frame to classes. */
    public val latency: Latency get() = Latency.of(native.latency())

    /** What the model and this classifier hold in memory. */
    public val memory: Memory get() = Memory.of(native.memory())

    /** Starts or restarts the profile, which adds up the time of every step. */
    public fun startProfile(): Unit = native.startProfile()

    /** The time of every step since the profile was started, in order; empty if it was not started. */
    public fun profile(): List<StepTime> = native.profile().list(StepTime::of)

    override fun close(): Unit = native.close()

    public companion object {
        /** Number of classes returned if `top` is not given. */
        public const val DEFAULT_TOP: Int = 5

        /** A classifier of the package file [file], opened off the caller's thread; see [Model.open]. */
        public suspend fun open(
            file: File,
            config: Config = Config(),
            options: ClassifierOptions = ClassifierOptions(),
        ): Classifier = opening { openBlocking(file, config, options) }

        /** The same on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun openBlocking(
            file: File,
            config: Config = Config(),
            options: ClassifierOptions = ClassifierOptions(),
        ): Classifier = Model.open(file, config).use { Classifier(it, options) }

        /** A classifier of the package [asset] among the app's assets, opened off the caller's thread. */
        public suspend fun open(
            context: Context,
            asset: String,
            config: Config = Config(),
            options: ClassifierOptions = ClassifierOptions(),
        ): Classifier = opening { openBlocking(context, asset, config, options) }

        /** The same on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun openBlocking(
            context: Context,
            asset: String,
            config: Config = Config(),
            options: ClassifierOptions = ClassifierOptions(),
        ): Classifier = Model.open(context, asset, config).use { Classifier(it, options) }
    }
}

/**
 * A class that a frame may show.
 *
 * @property index its index in the model's output.
 * @property label its name; `class 7` if the model has no names.
 * @property score its score: a probability, unless the model or the options say otherwise.
 * @property displayName its name in the requested language; the label if the model has no other.
 */
@ConsistentCopyVisibility
public data class Prediction internal constructor(
    val index: Int,
    val label: String,
    val score: Float,
    val displayName: String = label,
)

/**
 * The classes of a frame, and the time it took.
 *
 * @property predictions the best classes, best first; fewer than requested if others are not allowed.
 * @property prepareMs milliseconds from the frame to the model's input.
 * @property runMs milliseconds from the model's input to the classes.
 * @property timestampNs when the frame was captured ([Frame.timestampNs]); null if unknown.
 */
@ConsistentCopyVisibility
public data class Classification internal constructor(
    val predictions: List<Prediction>,
    val prepareMs: Double,
    val runMs: Double,
    val timestampNs: Long?,
) {
    /** The best class; null if none was requested or allowed. */
    public val best: Prediction? get() = predictions.firstOrNull()
}
