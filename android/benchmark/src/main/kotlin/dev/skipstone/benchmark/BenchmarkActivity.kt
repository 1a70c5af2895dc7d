package dev.skipstone.benchmark

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.view.WindowManager
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import dev.skipstone.Config
import dev.skipstone.Session
import java.io.File
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/**
 * Runs a package and shows its time. The last report is in the app's external files as `report.json`, where adb
 * can read it even for a release build.
 *
 * It can also be started by a command, for example in a device farm:
 *
 *     adb shell am start -n dev.skipstone.benchmark/.BenchmarkActivity --es model model.skip --ei minutes 30 --ei threads 2
 *     adb pull /sdcard/Android/data/dev.skipstone.benchmark/files/report.json
 *
 * `model` is an asset or a path; `runs` can replace `minutes`.
 */
class BenchmarkActivity : Activity() {
    private val scope = CoroutineScope(Dispatchers.Main.immediate)
    private val report get() = File(getExternalFilesDir(null) ?: filesDir, "report.json")

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val text = TextView(this).apply { setTextIsSelectable(true) }
        val buttons = LinearLayout(this)
        buttons.addView(button("1000 runs") { start(Amount.Runs(1000)) })
        buttons.addView(button("30 minutes") { start(Amount.Time(30 * 60_000L)) })
        buttons.addView(button("Share") { share() })
        val page = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        page.fitsSystemWindows = true
        page.addView(buttons)
        page.addView(ScrollView(this).apply { addView(text) })
        setContentView(page)
        scope.launch { Running.text.collect { text.text = it } }
        // Only once: after a rotation the benchmark is still running.
        if (state == null) amount(intent)?.let(::start)
    }

    override fun onDestroy() {
        scope.cancel()
        if (isFinishing) Running.stop()
        super.onDestroy()
    }

    private fun amount(intent: Intent): Amount? = when {
        intent.hasExtra("runs") -> Amount.Runs(intent.getIntExtra("runs", 1000))
        intent.hasExtra("minutes") -> Amount.Time(intent.getIntExtra("minutes", 10) * 60_000L)
        else -> null
    }

    private fun start(amount: Amount) {
        val (context, name) = applicationContext to (intent.getStringExtra("model") ?: "model.skip")
        val config = Config(threads = intent.getIntExtra("threads", 1))
        Running.start(Device(context), amount, report) {
            if (File(name).isAbsolute) Session.openBlocking(File(name), config) else Session.openBlocking(context, name, config)
        }
    }

    private fun share() {
        if (!report.exists()) return
        val send = Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_TEXT, report.readText())
        startActivity(Intent.createChooser(send, null))
    }

    private fun button(label: String, action: () -> Unit) = Button(this).apply {
        text = label
        setOnClickListener { action() }
    }
}
