package dev.skipstone.camerax

import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import dev.skipstone.Frame
import dev.skipstone.FrameAnalyzer
import dev.skipstone.Plane

/**
 * A frame over the planes of this image, upright, with its crop and its time. Closing the frame closes the image.
 *
 * @throws dev.skipstone.SkipstoneException.Frame for a format other than `YUV_420_888` and `RGBA_8888`.
 */
public fun ImageProxy.toFrame(): Frame =
    Frame.planes(
        format,
        width,
        height,
        planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) },
        cropRect,
        imageInfo.rotationDegrees,
    ).capturedAt(imageInfo.timestamp).onClose(::close)

/**
 * This analyzer as CameraX expects it. Use it with [ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST]: the camera's thread never
 * waits, and the newest frame wins. An image that cannot be read is closed and reported in the analyzer's failures.
 */
public fun FrameAnalyzer.asImageAnalyzer(): ImageAnalysis.Analyzer = ImageAnalysis.Analyzer { image ->
    analyze {
        try {
            image.toFrame()
        } catch (refused: RuntimeException) {
            image.close()
            throw refused
        }
    }
}
