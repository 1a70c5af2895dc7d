package dev.skipstone

import dev.skipstone.internal.ffi.openObjects as nativeOpenObjects
import dev.skipstone.internal.ffi.version as nativeVersion

/** The library itself. */
public object Skipstone {
    /** Version of the native library. */
    public val version: String get() = nativeVersion()

    /** Classifiers and sessions that are open in the whole process. If this grows, they are not being closed. */
    public val openObjects: Long get() = nativeOpenObjects().toLong()
}
