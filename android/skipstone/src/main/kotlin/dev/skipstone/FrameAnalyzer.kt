package dev.skipstone

import kotlin.coroutines.CoroutineContext
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.channels.BufferOverflow
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.MutableSharedFlow
import kotlinx.coroutines.flow.SharedFlow
import kotlinx.coroutines.flow.asSharedFlow
import kotlinx.coroutines.launch

/**
 * Classifies a stream of frames, the newest first: a frame that arrives while another is being classified
 * replaces the one that is waiting. Every frame is closed in the end.
 *
 * ```
 * val analyzer = FrameAnalyzer(classifier)
 * lifecycleScope.launch { analyzer.results.collect { show(it.best) } }
 * // for every frame of the camera, on its thread:
 * analyzer.analyze(frame)
 * ```
 *
 * The caller owns the classifier: close the analyzer first.
 *
 * @param classifier the classifier for the frames.
 * @param top how many classes to report.
 * @param context where frames are dispatched; the runs are always off the caller's thread.
 */
public class FrameAnalyzer @JvmOverloads constructor(
    private val classifier: Classifier,
    private val top: Int = Classifier.DEFAULT_TOP,
    context: CoroutineContext = Dispatchers.Default,
) : AutoCloseable {
    private val scope = CoroutineScope(context + SupervisorJob())
    private val frames = Channel<Frame>(Channel.CONFLATED, onUndeliveredElement = Frame::close)
    private val shown = latest<Classification>()
    private val failed = latest<SkipstoneException>()

    /** The classes of the frames. A slow collector misses all but the latest. */
    public val results: SharedFlow<Classification> = shown.asSharedFlow()

    /** Why frames were not classified: for example a missed deadline or an unsupported format. */
    public val failures: SharedFlow<SkipstoneException> = failed.asSharedFlow()

    init {
        scope.launch {
            for (frame in frames) {
                try {
                    shown.emit(frame.use { classifier.classify(it, top) })
                } catch (failure: SkipstoneException) {
                    failed.emit(failure)
                } catch (cancelled: CancellationException) {
                    throw cancelled
                } catch (failure: RuntimeException) {
                    // Thrown by the owner's release function: the following frames are not affected.
                    failed.emit(SkipstoneException.Frame("frame.close", "closing a frame failed: $failure"))
                }
            }
        }
    }

    /** Hands over a frame, which is closed afterwards; never waits. */
    public fun analyze(frame: Frame) {
        // A closed analyzer does not take the frame, so it is closed here.
        if (frames.trySend(frame).isFailure) frame.close()
    }

    /**
     * Hands over the frame that [make] returns. If it throws, that is reported in [failures] and not thrown on the
     * camera's thread.
     */
    public fun analyze(make: () -> Frame) {
        val frame = try {
            make()
        } catch (refused: SkipstoneException) {
            failed.tryEmit(refused)
            return
        } catch (refused: RuntimeException) {
            // Thrown by the owner, for example because the image is already closed.
            failed.tryEmit(SkipstoneException.Frame("frame", "no frame can be made: $refused"))
            return
        }
        analyze(frame)
    }

    /** Stops the current run and closes the waiting frames. */
    override fun close() {
        frames.cancel()
        scope.cancel()
    }

    private fun <T> latest() = MutableSharedFlow<T>(replay = 1, onBufferOverflow = BufferOverflow.DROP_OLDEST)
}
