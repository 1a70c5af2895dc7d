package dev.skipstone

/**
 * Why a call failed.
 *
 * The class says what an app can do about it, [code] is stable (the same as the command line's `error[code]: ...`),
 * and [message] is for people and logs.
 */
public sealed class SkipstoneException(public val code: String, override val message: String) : RuntimeException(message) {
    /** The package file is damaged, truncated, signed with another key, or made for another machine. */
    public class Package internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** The package is intact, but its model cannot be used this way. */
    public class Model internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** An argument, or a tensor given to a session, does not fit. */
    public class Input internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** A camera frame whose sizes, strides or planes contradict each other. */
    public class Frame internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** The run was cancelled. */
    public class Cancelled internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** The run took longer than its deadline. */
    public class Deadline internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** The object was closed. */
    public class Closed internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** This build or this machine does not support what the model or the caller requested. */
    public class Unsupported internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** The operating system reported an error for a file. */
    public class Io internal constructor(code: String, message: String) : SkipstoneException(code, message)

    /** A bug in Skipstone, worth reporting. */
    public class Internal internal constructor(code: String, message: String) : SkipstoneException(code, message)

    internal companion object {
        /** The exception for an error's number in the native library. */
        fun of(number: Int, code: String, message: String): SkipstoneException = when (number) {
            1 -> Package(code, message)
            2 -> Model(code, message)
            3 -> Input(code, message)
            4 -> Frame(code, message)
            5 -> Cancelled(code, message)
            6 -> Deadline(code, message)
            7 -> Closed(code, message)
            8 -> Unsupported(code, message)
            9 -> Io(code, message)
            else -> Internal(code, message)
        }
    }
}
