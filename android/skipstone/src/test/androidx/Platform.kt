/**
 * Robolectric starts Android through classes of AndroidX Test, which are not on Maven Central. It reports every
 * activity to them; no test here needs that, so these stand-ins, here and in the files beside this one, do nothing.
 */
package androidx.test.platform.app

import android.app.Instrumentation
import android.os.Bundle

object InstrumentationRegistry {
    @JvmStatic
    fun registerInstance(instrumentation: Instrumentation?, arguments: Bundle?) = Unit
}
