package dev.skipstone.internal

/**
 * The longest that a run of an object may take: a limit for every run, and another for a single one. Used by one call
 * at a time, since [Runs] runs them one after the other.
 *
 * @param apply sets the native object's limit in milliseconds; null for none.
 */
internal class Limit(private val apply: (Double?) -> Unit) {
    private var usual: Double? = null

    /** Limits every later run. */
    fun set(milliseconds: Double?) {
        apply(milliseconds)
        usual = milliseconds
    }

    /** Runs [body] with a limit of its own, if there is one. */
    fun <T> during(milliseconds: Double?, body: () -> T): T {
        if (milliseconds == null) return body()
        apply(milliseconds)
        try {
            return body()
        } finally {
            // If the object was closed during the run, there is nothing left to limit.
            runCatching { apply(usual) }
        }
    }
}
