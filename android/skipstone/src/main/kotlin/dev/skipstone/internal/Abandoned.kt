package dev.skipstone.internal

import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.util.concurrent.ConcurrentHashMap
import kotlin.concurrent.thread

/** Closes native objects that were garbage-collected. Java's own class for this needs Android 13. */
internal object Abandoned {
    private val queue = ReferenceQueue<Any>()

    /** A reference that is not reachable itself is never queued. */
    private val watches = ConcurrentHashMap.newKeySet<Watch>()

    init {
        thread(isDaemon = true, name = "skipstone-abandoned") {
            while (true) (queue.remove() as Watch).close()
        }
    }

    /** Watches [it], which holds the native object of [handle]. */
    fun watch(it: Any, handle: Long): Watch = Watch(it, handle).also(watches::add)

    /** The end of an object: closed by its owner or, if nobody can reach it, by the thread above. */
    class Watch(it: Any, private val handle: Long) : PhantomReference<Any>(it, queue), AutoCloseable {
        override fun close() {
            if (watches.remove(this)) Native.close(handle)
        }
    }
}
