package dev.skipstone.internal

import dev.skipstone.SkipstoneException

/**
 * The right to read pixels that belong to somebody else, shared by all frames over them. Once it is closed it cannot be
 * used again, so that no call reads memory that its owner has taken back; the owner gets the pixels when it is closed and
 * no call is reading them any more.
 *
 * @param outer a lease of the same pixels, which is used and closed with this one.
 */
internal class Lease(private val outer: Lease? = null, private val release: () -> Unit = {}) {
    private var readers = 0
    private var isClosed = false

    /**
     * Runs [body], during which the pixels stay in place.
     *
     * @throws SkipstoneException.Frame if it is closed.
     */
    fun <T> reading(body: () -> T): T = if (outer == null) own(body) else outer.reading { own(body) }

    private fun <T> own(body: () -> T): T {
        synchronized(this) {
            if (isClosed) throw SkipstoneException.Frame("frame.closed", "the frame is closed: its owner has its pixels back")
            readers += 1
        }
        try {
            return body()
        } finally {
            val isOver = synchronized(this) {
                readers -= 1
                isClosed && readers == 0
            }
            if (isOver) release()
        }
    }

    /** Never waits: while a call is reading the pixels, they are released at its end. */
    fun close() {
        val isOver = synchronized(this) {
            if (isClosed) return
            isClosed = true
            readers == 0
        }
        try {
            if (isOver) release()
        } finally {
            outer?.close()
        }
    }
}
