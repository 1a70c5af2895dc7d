package dev.skipstone.internal

import dev.skipstone.SkipstoneException
import java.io.ByteArrayOutputStream
import java.io.DataOutputStream
import java.nio.ByteBuffer
import java.nio.CharBuffer
import java.nio.charset.CharacterCodingException

/** The arguments of a native call, in order. The native library's `message.rs` describes the bytes. */
internal class Request {
    private val written = ByteArrayOutputStream()
    private val out = DataOutputStream(written)

    fun bytes(): ByteArray = written.toByteArray()

    fun int(value: Int): Request = apply { out.writeInt(value) }

    fun long(value: Long): Request = apply { out.writeLong(value) }

    fun flag(value: Boolean): Request = int(if (value) 1 else 0)

    fun float(value: Float): Request = apply { out.writeFloat(value) }

    fun number(value: Double): Request = apply { out.writeDouble(value) }

    fun bytes(value: ByteArray): Request = apply { int(value.size).out.write(value) }

    /** @throws SkipstoneException.Input for a half of a surrogate pair, which no file name, label or setting holds. */
    fun text(value: String): Request {
        val encoded = try {
            Charsets.UTF_8.newEncoder().encode(CharBuffer.wrap(value))
        } catch (refused: CharacterCodingException) {
            throw SkipstoneException.Input("input.text", "a text holds half of a surrogate pair")
        }
        return bytes(ByteArray(encoded.remaining()).also(encoded::get))
    }

    fun <T> list(values: Collection<T>, write: Request.(T) -> Unit): Request = apply {
        int(values.size)
        for (value in values) write(value)
    }

    fun <T : Any> optional(value: T?, write: Request.(T) -> Unit): Request = apply {
        flag(value != null)
        if (value != null) write(value)
    }
}

/**
 * The result of a native call, in order.
 *
 * @throws SkipstoneException if the call has returned an error instead.
 */
internal class Reply(bytes: ByteArray) {
    private val rest = ByteBuffer.wrap(bytes)

    init {
        val number = int()
        if (number != 0) throw SkipstoneException.of(number, text(), text())
    }

    fun int(): Int = rest.int

    fun long(): Long = rest.long

    fun float(): Float = rest.float

    fun number(): Double = rest.double

    fun text(): String = String(ByteArray(int()).also(rest::get), Charsets.UTF_8)

    fun <T> list(item: Reply.() -> T): List<T> = List(int()) { item() }

    fun <T> optional(value: Reply.() -> T): T? = if (int() == 0) null else value()
}
