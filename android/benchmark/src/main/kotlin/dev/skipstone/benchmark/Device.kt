package dev.skipstone.benchmark

import android.content.Context
import android.os.Build
import android.os.Debug
import android.os.PowerManager

/** What the device says of itself while a model runs. */
internal class Device(context: Context) {
    private val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager

    val name: String = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}"

    /** Memory that the process has for itself, shared pages in proportion, in bytes. */
    fun pssBytes(): Long = Debug.getPss() * 1024

    /** How hot it is, from `none` to `shutdown`; null where the system does not tell (before Android 10). */
    fun thermalStatus(): String? =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) null else THERMAL.getOrNull(power.currentThermalStatus)

    private companion object {
        /** By the numbers of `PowerManager.THERMAL_STATUS_*`. */
        val THERMAL = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    }
}
