package dev.skipstone

import dev.skipstone.internal.Native
import dev.skipstone.internal.Reply

/** The library itself. */
public object Skipstone {
    /** Version of the native library. */
    public val version: String get() = Reply(Native.version()).text()

    /** Classifiers and sessions that are open in the whole process. If this grows, they are not being closed. */
    public val openObjects: Long get() = Native.openObjects()
}
