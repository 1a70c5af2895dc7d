package dev.skipstone.sample

import android.Manifest
import android.os.Bundle
import android.view.Gravity
import android.widget.FrameLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.ImageAnalysis
import androidx.camera.view.LifecycleCameraController
import androidx.camera.view.PreviewView
import androidx.lifecycle.lifecycleScope
import dev.skipstone.Classifier
import dev.skipstone.FrameAnalyzer
import dev.skipstone.SkipstoneException
import dev.skipstone.camerax.asImageAnalyzer
import java.util.concurrent.Executors
import kotlinx.coroutines.launch

/** Shows the camera's preview, and the classes that `assets/model.skip` finds in it. */
class CameraActivity : ComponentActivity() {
    private var classifier: Classifier? = null
    private var analyzer: FrameAnalyzer? = null
    private val cameraThread = Executors.newSingleThreadExecutor()

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        val preview = PreviewView(this)
        val label = TextView(this).apply { textSize = 20f }
        setContentView(
            FrameLayout(this).apply {
                fitsSystemWindows = true
                addView(preview)
                addView(label, FrameLayout.LayoutParams(-1, -2, Gravity.BOTTOM))
            },
        )

        val analyzer = try {
            val classifier = Classifier.openBlocking(this, "model.skip").also { classifier = it }
            FrameAnalyzer(classifier, top = 3).also { analyzer = it }
        } catch (refused: SkipstoneException) {
            label.text = refused.message
            return
        }
        lifecycleScope.launch { analyzer.failures.collect { label.text = it.message } }
        lifecycleScope.launch {
            analyzer.results.collect { seen ->
                val names = seen.predictions.joinToString("\n") { "%s  %.0f %%".format(it.displayName, it.score * 100) }
                label.text = "%s\n%.1f + %.1f ms".format(names, seen.prepareMs, seen.runMs)
            }
        }

        val camera = LifecycleCameraController(this).apply {
            imageAnalysisBackpressureStrategy = ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST
            setImageAnalysisAnalyzer(cameraThread, analyzer.asImageAnalyzer())
        }
        preview.controller = camera
        registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
            if (granted) camera.bindToLifecycle(this) else label.text = getString(R.string.no_camera)
        }.launch(Manifest.permission.CAMERA)
    }

    override fun onDestroy() {
        super.onDestroy()
        cameraThread.shutdown()
        analyzer?.close()
        classifier?.close()
    }
}
