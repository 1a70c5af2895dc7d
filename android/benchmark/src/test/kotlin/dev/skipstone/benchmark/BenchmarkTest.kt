package dev.skipstone.benchmark

import android.app.Activity
import android.content.Intent
import android.os.Looper
import android.os.PowerManager
import android.view.View
import dev.skipstone.Session
import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlinx.coroutines.runBlocking
import org.json.JSONObject
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], manifest = Config.NONE)
class BenchmarkTest {
    private val model = File(System.getProperty("skipstone.models"), "cifar10.skip")
    private val context = RuntimeEnvironment.getApplication()

    @Test
    fun `a report holds what was measured`(): Unit = runBlocking {
        shadowOf(context.getSystemService(PowerManager::class.java)).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_MODERATE)
        var clock = 0L
        Session.openBlocking(model).use { session ->
            // A clock that advances by a second whenever it is read: a moment is recorded every few runs.
            val report = Benchmark(session, Device(context)) { clock += 1_000_000_000L; clock }.run(Amount.Runs(20))
            val json = JSONObject(report.json().toString())
            assertEquals(20, json.getInt("runs"))
            assertEquals(1000.0, json.getJSONObject("latency_ms").getDouble("p99"), 1e-6)
            val moments = json.getJSONArray("moments")
            assertTrue(moments.length() > 3)
            assertEquals("moderate", moments.getJSONObject(0).getString("thermal"))
            val steps = json.getJSONArray("steps")
            assertEquals(1.0, (0 until steps.length()).sumOf { steps.getJSONObject(it).getDouble("share") }, 1e-6)
            assertTrue("p50 1000.00" in report.text())
        }
    }

    @Test
    fun `a benchmark may be given a time instead of a count of runs`(): Unit = runBlocking {
        var clock = 0L
        Session.openBlocking(model).use { session ->
            val report = Benchmark(session, Device(context)) { clock += 1_000_000L; clock }.run(Amount.Time(50), warmUp = 0)
            assertTrue(report.json().getInt("runs") in 10..50)
        }
    }

    @Test
    fun `percentiles are those of numpy`() {
        // numpy.percentile([1, 2, 3, 4, 10], [50, 90, 99]) is [3, 7.6, 9.76].
        val got = Percentiles.of(listOf(4.0, 1.0, 10.0, 2.0, 3.0))
        val want = listOf(1.0, 3.0, 7.6, 9.76, 10.0, 4.0)
        listOf(got.min, got.p50, got.p90, got.p99, got.max, got.mean).zip(want).forEach { (a, b) -> assertEquals(b, a, 1e-9) }
        assertEquals(0, Percentiles.of(emptyList()).runs)
    }

    @Test
    fun `the activity says what is wrong with a package`() {
        val intent = Intent(context, BenchmarkActivity::class.java).putExtra("model", "/nowhere/model.skip").putExtra("runs", 1)
        val activity: Activity = Robolectric.buildActivity(BenchmarkActivity::class.java, intent).setup().get()
        val found = ArrayList<View>()
        while (found.isEmpty()) {
            shadowOf(Looper.getMainLooper()).idle()
            activity.window.decorView.findViewsWithText(found, "io: ", View.FIND_VIEWS_WITH_TEXT)
        }
    }
}
