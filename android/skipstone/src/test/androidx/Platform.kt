/**
 * Robolectric starts Android through classes of AndroidX Test, which Maven Central does not hold. It tells them of
 * every activity; no test here asks them, so these, and those in the files beside this one, only listen.
 */
package androidx.test.platform.app

import android.app.Instrumentation
import android.os.Bundle

object InstrumentationRegistry {
    @JvmStatic
    fun registerInstance(instrumentation: Instrumentation?, arguments: Bundle?) = Unit
}
