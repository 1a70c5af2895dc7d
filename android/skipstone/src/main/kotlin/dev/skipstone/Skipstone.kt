package dev.skipstone

import dev.skipstone.internal.ffi.openObjects as nativeOpenObjects
import dev.skipstone.internal.ffi.version as nativeVersion

/** The library itself. */
public object Skipstone {
    /** Version of the native library. */
    public val version: String get() = nativeVersion()

    /** Classifiers and sessions that are open now, in the whole process: what grows here is not being closed. */
    public val openObjects: Long get() = nativeOpenObjects().toLong()
}
