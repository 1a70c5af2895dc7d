package dev.skipstone.benchmark

import android.app.Activity
import android.content.Intent
import android.os.BatteryManager
import android.os.Looper
import android.os.PowerManager
import android.view.View
import dev.skipstone.Session
import java.io.File
import kotlin.math.abs
import kotlin.math.pow
import kotlin.math.roundToInt
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull
import kotlin.test.assertSame
import kotlin.test.assertTrue
import kotlinx.coroutines.runBlocking
import org.json.JSONArray
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
        shadowOf(context.getSystemService(BatteryManager::class.java)).setIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY, 42)
        var clock = 0L
        // A clock that advances by a second whenever it is read: a moment is recorded every few runs.
        val benchmark = Benchmark(Device(context)) { clock += 1_000_000_000L; clock }
        val report = benchmark.run(Amount.Runs(20)) { Session.openBlocking(model) }
        val json = JSONObject(report.json().toString())
        assertEquals(20, json.getInt("runs"))
        assertEquals(1000.0, json.getDouble("load_ms"), 1e-6)
        assertEquals(1000.0, json.getJSONObject("latency_ms").getDouble("p99"), 1e-6)
        assertTrue(json.getJSONObject("native_ms").getDouble("p50") < 1000)
        assertEquals(2000.0, json.getJSONObject("frames").getJSONObject("latency_ms").getDouble("max"), 1e-6)
        assertEquals(20, json.objects("histogram").single().getInt("runs"))
        val moments = json.objects("moments")
        assertTrue(moments.size > 3)
        assertEquals(20, moments.sumOf { it.getInt("runs") })
        assertEquals("moderate", moments[0].getString("thermal"))
        assertEquals(0.42, moments[0].getDouble("battery"))
        assertEquals(1.0, json.objects("steps").sumOf { it.getDouble("share") }, 1e-6)
        assertTrue("p50 1000.00" in report.text())
        // The app for iOS is compared with the same list.
        val keys = File(System.getProperty("skipstone.report")).readLines().toSet()
        assertEquals(keys, json.paths().toSet())
    }

    private fun JSONObject.objects(key: String) = getJSONArray(key).let { list -> List(list.length(), list::getJSONObject) }

    /** The paths of all values, without the indices of arrays. */
    private fun JSONObject.paths(): List<String> = keys().asSequence().toList().flatMap { key ->
        when (val value = get(key)) {
            is JSONObject -> value.paths().map { "$key.$it" }
            is JSONArray -> if (value.opt(0) is JSONObject) objects(key).flatMap { it.paths() }.map { "$key[].$it" } else listOf(key)
            else -> listOf(key)
        }
    }

    @Test
    fun `a benchmark may be given a time instead of a count of runs`(): Unit = runBlocking {
        var clock = 0L
        val benchmark = Benchmark(Device(context)) { clock += 1_000_000L; clock }
        val report = benchmark.run(Amount.Time(50), warmUp = 0) { Session.openBlocking(model) }
        assertTrue(report.json().getInt("runs") in 10..50)
    }

    @Test
    fun `percentiles are those of the sorted times`() {
        val random = Random(1)
        for (count in listOf(1, 2, 10, 999, 5000)) {
            val statistics = Statistics()
            val sorted = List(count) { 10.0.pow(random.nextDouble(-2.0, 3.0)) }.onEach(statistics::add).sorted()
            val got = statistics.times
            assertEquals(sorted.first(), got.min)
            assertEquals(sorted.last(), got.max)
            assertEquals(sorted.average(), got.mean, 1e-9 * sorted.last())
            for ((share, percentile) in listOf(0.5 to got.p50, 0.9 to got.p90, 0.99 to got.p99)) {
                val want = sorted[(share * (count - 1)).roundToInt()]
                assertTrue(abs(percentile - want) <= want * 0.0051, "$share of $count: $percentile, not $want")
            }
            assertEquals(count, statistics.histogram.sumOf { it.second })
            assertTrue(statistics.histogram.first().first <= sorted.first() * (1 + 1e-9))
        }
        assertEquals(0.0, Statistics().times.max)
        val extremes = Statistics().apply { add(0.0) }.apply { add(1e9) }
        assertEquals(listOf(0.0, 1e9), extremes.times.run { listOf(min, max) })
    }

    /** Regression: a list of all times grew without bound. */
    @Test
    fun `moments are bounded, and lose no run`() {
        val moments = Moments(limit = 4)
        val state = DeviceState(1, null, null, null)
        var (clock, recorded) = 0L to 0
        for (run in 1..1000) {
            clock += 1_000
            moments.add(run.toDouble())
            if (moments.isDue(clock)) {
                moments.end(clock, state.copy(memoryBytes = clock))
                recorded = run
            }
        }
        val all = moments.all
        assertTrue(all.size in 2..4, "${all.size}")
        assertEquals(recorded, all.sumOf { it.runs })
        assertEquals((1..recorded).average(), all.sumOf { it.runs * it.meanMs } / recorded, 1e-6)
        assertEquals(recorded.toDouble(), all.last().maxMs)
        all.forEach { assertEquals(it.atMs, it.state.memoryBytes) }
    }

    @Test
    fun `frequencies are those of all cores, or unknown`() {
        val folder = createTempDirectory()
        val device = Device(context, folder)
        assertNull(device.state().mhz)
        for (core in 0 until device.cores) {
            File(folder, "cpu$core/cpufreq").mkdirs()
            File(folder, "cpu$core/cpufreq/scaling_cur_freq").writeText("${1_800_000 + 1000 * core}\n")
        }
        assertEquals(List(device.cores) { 1800 + it }, device.state().mhz)
        folder.deleteRecursively()
    }

    private fun createTempDirectory() = kotlin.io.path.createTempDirectory("processors").toFile()

    private fun intent(model: String, runs: Int) =
        Intent(context, BenchmarkActivity::class.java).putExtra("model", model).putExtra("runs", runs)

    /** Waits for a text that contains [text]. */
    private fun await(activity: Activity, text: String) {
        val found = ArrayList<View>()
        while (found.isEmpty()) {
            shadowOf(Looper.getMainLooper()).idle()
            activity.window.decorView.findViewsWithText(found, text, View.FIND_VIEWS_WITH_TEXT)
        }
    }

    @Test
    fun `the activity says what is wrong with a package`() {
        val intent = intent("/nowhere/model.skip", 1)
        await(Robolectric.buildActivity(BenchmarkActivity::class.java, intent).setup().get(), "io: ")
    }

    /** Regression: a rotation cancelled the benchmark. */
    @Test
    fun `a benchmark runs on when the device is rotated, and ends with its activity`() {
        val controller = Robolectric.buildActivity(BenchmarkActivity::class.java, intent(model.path, 300)).setup()
        val job = Running.job!!
        val rotated = controller.recreate()
        assertSame(job, Running.job, "it began anew")
        await(rotated.get(), " 300 runs")
        runBlocking { job.join() }
        assertTrue(!job.isCancelled)

        val endless = Robolectric.buildActivity(BenchmarkActivity::class.java, intent(model.path, Int.MAX_VALUE)).setup()
        endless.get().finish()
        endless.destroy()
        assertTrue(Running.job!!.isCancelled)
    }
}
