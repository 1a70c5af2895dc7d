package androidx.camera.core

import android.graphics.Rect
import java.nio.ByteBuffer

/** What the adapter for CameraX (`android/camerax`) uses of it, so that it is compiled and run here. */
interface ImageProxy : AutoCloseable {
    val format: Int
    val width: Int
    val height: Int
    val cropRect: Rect
    val imageInfo: ImageInfo

    val planes: Array<PlaneProxy>

    interface PlaneProxy {
        val buffer: ByteBuffer
        val rowStride: Int
        val pixelStride: Int
    }
}

interface ImageInfo {
    val rotationDegrees: Int
    val timestamp: Long
}

class ImageAnalysis private constructor() {
    fun interface Analyzer {
        fun analyze(image: ImageProxy)
    }

    companion object {
        const val STRATEGY_KEEP_ONLY_LATEST = 0
    }
}
