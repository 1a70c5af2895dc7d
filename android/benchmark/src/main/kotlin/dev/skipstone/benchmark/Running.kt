package dev.skipstone.benchmark

import dev.skipstone.Session
import dev.skipstone.SkipstoneException
import java.io.File
import java.io.IOException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.launch

/** The benchmark of this process: it outlives the activity, which the system makes anew when the device is rotated. */
internal object Running {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    private val shown = MutableStateFlow("")

    /** What is to be shown: progress, the result, or why there is none. */
    val text: StateFlow<String> = shown.asStateFlow()

    /** The benchmark that runs, or ran last. */
    var job: Job? = null
        private set

    /** Starts a benchmark and writes its report to [file], unless one is running. Call it on the main thread. */
    fun start(device: Device, amount: Amount, file: File, open: () -> Session) {
        if (job?.isActive == true) return
        shown.value = "…"
        job = scope.launch {
            try {
                val progress = { it: Moment -> shown.value = "%d s, mean %.2f ms".format(it.atMs / 1000, it.meanMs) }
                val report = Benchmark(device, System::nanoTime).run(amount, progress = progress, open = open)
                file.writeText(report.json().toString(2))
                shown.value = report.text()
            } catch (failure: SkipstoneException) {
                shown.value = "${failure.code}: ${failure.message}"
            } catch (failure: IOException) {
                shown.value = "${failure.message}"
            }
        }
    }

    /** Stops it. */
    fun stop() {
        job?.cancel()
    }
}
