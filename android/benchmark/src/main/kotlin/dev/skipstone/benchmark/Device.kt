package dev.skipstone.benchmark

import android.content.Context
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import java.io.File
import java.io.IOException

/** What the device reports while a model runs. */
internal class Device(context: Context, private val processors: File = File("/sys/devices/system/cpu")) {
    private val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
    private val battery = context.getSystemService(Context.BATTERY_SERVICE) as BatteryManager

    val name: String = "${Build.MANUFACTURER} ${Build.MODEL}"
    val system: String = "Android ${Build.VERSION.RELEASE}"
    val cores: Int = Runtime.getRuntime().availableProcessors()

    fun state(): DeviceState = DeviceState(Debug.getPss() * 1024, thermal(), charge(), frequencies())

    private fun thermal(): String? =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) null else THERMAL.getOrNull(power.currentThermalStatus)

    /** A device without a battery reports zero, or a number that is no percentage. */
    private fun charge(): Double? =
        battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY).takeIf { it in 1..100 }?.let { it / 100.0 }

    private fun frequencies(): List<Int>? = try {
        (0 until cores).map { core ->
            // In kHz.
            File(processors, "cpu$core/cpufreq/scaling_cur_freq").readText().trim().toInt() / 1000
        }
    } catch (refused: IOException) {
        null
    }

    private companion object {
        /** Indexed by the values of `PowerManager.THERMAL_STATUS_*`. */
        val THERMAL = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    }
}
