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
 * Classifies a stream of frames, of which the newest wins: a frame that comes while another is being classified
 * replaces the one that waits. Every frame is closed, whatever becomes of it.
 *
 * ```
 * val analyzer = FrameAnalyzer(classifier)
 * lifecycleScope.launch { analyzer.results.collect { show(it.best) } }
 * // for every frame of the camera, on its thread:
 * analyzer.analyze(frame)
 * ```
 *
 * The classifier stays the caller's: close the analyzer first.
 *
 * @param classifier what names the frames.
 * @param top how many classes are wanted.
 * @param context where the frames are handed on; runs are made off the caller's thread in any case.
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

    /** What the frames show. A collector that is slow misses all but the latest. */
    public val results: SharedFlow<Classification> = shown.asSharedFlow()

    /** Why frames were not classified: a deadline that was missed, a format that is not read. */
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
                    // The owner's, from the frame's close: the frames behind it are none the worse.
                    failed.emit(SkipstoneException.Frame("frame.close", "closing a frame failed: $failure"))
                }
            }
        }
    }

    /** Hands a frame over, to be closed when it is done with; never waits. */
    public fun analyze(frame: Frame) {
        // What a closed analyzer does not take is not its to close.
        if (frames.trySend(frame).isFailure) frame.close()
    }

    /**
     * Hands over the frame that [make] gives. What it throws instead is one of the [failures], and not thrown at the
     * camera's thread.
     */
    public fun analyze(make: () -> Frame) {
        val frame = try {
            make()
        } catch (refused: SkipstoneException) {
            failed.tryEmit(refused)
            return
        } catch (refused: RuntimeException) {
            // The owner's: of an image that is closed already.
            failed.tryEmit(SkipstoneException.Frame("frame", "no frame can be made: $refused"))
            return
        }
        analyze(frame)
    }

    /** Stops the run that is going on and closes the frames that wait. */
    override fun close() {
        frames.cancel()
        scope.cancel()
    }

    private fun <T> latest() = MutableSharedFlow<T>(replay = 1, onBufferOverflow = BufferOverflow.DROP_OLDEST)
}
