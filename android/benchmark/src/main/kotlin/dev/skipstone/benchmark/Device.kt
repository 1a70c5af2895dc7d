package dev.skipstone.benchmark

import android.content.Context
import android.os.Build
import android.os.Debug
import android.os.PowerManager

/** What the device reports while a model runs. */
internal class Device(context: Context) {
    private val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager

    val name: String = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}"

    /** Proportional set size (PSS) of the process, in bytes. */
    fun pssBytes(): Long = Debug.getPss() * 1024

    /** Thermal status, from `none` to `shutdown`; null if the system does not report it (before Android 10). */
    fun thermalStatus(): String? =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) null else THERMAL.getOrNull(power.currentThermalStatus)

    private companion object {
        /** Indexed by the values of `PowerManager.THERMAL_STATUS_*`. */
        val THERMAL = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    }
}
