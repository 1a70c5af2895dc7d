package dev.skipstone

import android.content.Context
import android.content.res.AssetFileDescriptor
import dev.skipstone.internal.Native
import dev.skipstone.internal.NativeObject
import dev.skipstone.internal.Reply
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

/**
 * An open package: its weights are mapped, not read, and shared by every [Classifier] and [Session] made from
 * it. Those keep what they need: a model may be closed as soon as they are made.
 *
 * Any thread may call. [close] frees the memory; a model that was not closed frees it when it is garbage-collected.
 */
public class Model private constructor(internal val native: NativeObject) : AutoCloseable {
    /** What the model says about itself. */
    public val info: ModelInfo = ModelInfo.of(native.info())

    override fun close(): Unit = native.close()

    public companion object {
        /**
         * Opens a package file, which must not change while it is open: use [install] to replace one. If it was changed
         * nevertheless, the next run throws [SkipstoneException.Package] with the code `package.changed`.
         * A library with the feature `onnx` opens ONNX files too, and plans them each time: [convert] does it once.
         *
         * @throws SkipstoneException.Io if it cannot be read.
         * @throws SkipstoneException.Package if it is damaged, truncated, or not signed as [config] requires.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(file: File, config: Config = Config()): Model =
            made(Native.open(config.request().text(file.path).bytes()))

        /**
         * Opens a package among the app's assets, directly from the APK. It must be stored uncompressed: see
         * `noCompress` in the guide.
         *
         * @throws SkipstoneException.Io if there is no such asset, or it is compressed.
         * @throws SkipstoneException.Package as for a file.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(context: Context, asset: String, config: Config = Config()): Model {
            val descriptor = try {
                context.assets.openFd(asset)
            } catch (refused: IOException) {
                throw noDescriptor(context, asset, refused)
            }
            return descriptor.use { open(it, config) }
        }

        /** Compressed assets exist, but have no descriptor. */
        private fun noDescriptor(context: Context, asset: String, refused: IOException): SkipstoneException.Io {
            val isThere = try {
                context.assets.open(asset).use { true }
            } catch (missing: IOException) {
                false
            }
            val extension = asset.substringAfterLast('.', "")
            val advice = "the asset '$asset' is compressed in the APK: androidResources { noCompress += \"$extension\" }"
            return SkipstoneException.Io("io", if (isThere) advice else "there is no asset '$asset' (${refused.message})")
        }

        /**
         * Opens a package that is part of an open file. The caller keeps the descriptor, and may close it at once.
         *
         * @throws SkipstoneException.Io for a closed descriptor, or one of unknown length.
         * @throws SkipstoneException.Package as for a file.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(descriptor: AssetFileDescriptor, config: Config = Config()): Model {
            val fd = try {
                descriptor.parcelFileDescriptor.fd
            } catch (closed: IllegalStateException) {
                throw SkipstoneException.Io("io", "the descriptor is closed")
            }
            if (descriptor.length < 0) throw SkipstoneException.Io("io", "the length of the descriptor's part is not known")
            return made(Native.openDescriptor(fd, descriptor.startOffset, descriptor.length, config.request().bytes()))
        }

        /**
         * Opens a package in memory, which is copied: from the position to the limit of a direct buffer.
         *
         * @throws SkipstoneException.Input for a buffer that is not direct.
         * @throws SkipstoneException.Package as for a file.
         */
        @JvmStatic
        @JvmOverloads
        public fun of(bytes: ByteBuffer, config: Config = Config()): Model =
            made(Native.openBytes(direct(bytes), config.request().bytes()))

        /**
         * Copies the package file [from] to [to] and opens it there. It is written beside [to], checked completely, and
         * then
         * renamed: at any time [to] is the old file or the new one, and models that have the old one open keep it.
         *
         * @throws SkipstoneException.Io if reading or writing fails.
         * @throws SkipstoneException.Package as for [open]; [to] is then unchanged.
         */
        @JvmStatic
        @JvmOverloads
        public fun install(from: File, to: File, config: Config = Config()): Model =
            made(Native.install(config.request().text(from.path).text(to.path).bytes()))

        /** The same for a package in memory: from the position to the limit of a direct buffer. */
        @JvmStatic
        @JvmOverloads
        public fun install(bytes: ByteBuffer, to: File, config: Config = Config()): Model =
            made(Native.installBytes(direct(bytes), config.request().text(to.path).bytes()))

        /**
         * Converts the ONNX file [from] to a package at [to], for this phone, and opens it there. It is planned and
         * packed
         * once: from then on [open] takes milliseconds. [to] is put in place as by [install]. The library must be
         * built with the feature `onnx`: see the guide.
         *
         * @throws SkipstoneException.Io if reading or writing fails.
         * @throws SkipstoneException.Model for a malformed file.
         * @throws SkipstoneException.Unsupported for operators without a kernel in this library, or for a library
         * without the feature (code `onnx`); [to] is then unchanged.
         * @throws SkipstoneException.Input for a [config] with a key: converted packages are not signed.
         */
        @JvmStatic
        @JvmOverloads
        public fun convert(from: File, to: File, config: Config = Config()): Model =
            made(Native.convert(config.request().text(from.path).text(to.path).bytes()))

        private fun made(reply: ByteArray) = Model(NativeObject(reply))

        private fun direct(bytes: ByteBuffer): ByteBuffer {
            if (!bytes.isDirect) {
                throw SkipstoneException.Input("input.buffer", "a buffer is not direct: ByteBuffer.allocateDirect makes one")
            }
            return bytes.slice()
        }
    }
}

/**
 * What a model says about itself.
 *
 * @property name the name of its file, without folder and extension.
 * @property parameters number of weights.
 * @property weightsBytes bytes of the weights as the file stores them.
 * @property arenaBytes bytes that each classifier or session takes.
 * @property isa the instruction set that it runs on.
 * @property threads threads per run.
 * @property inputs its inputs, in order.
 * @property outputs its outputs, in order.
 * @property labels names of its classes, in the order of the first output; empty if the model has none.
 * @property metadata all metadata stored in the file beside the graph.
 */
@ConsistentCopyVisibility
public data class ModelInfo internal constructor(
    val name: String,
    val parameters: Long,
    val weightsBytes: Long,
    val arenaBytes: Long,
    val isa: String,
    val threads: Int,
    val inputs: List<TensorInfo>,
    val outputs: List<TensorInfo>,
    val labels: List<String>,
    val metadata: Map<String, String>,
) {
    internal companion object {
        fun of(reply: Reply): ModelInfo = ModelInfo(
            name = reply.text(),
            parameters = reply.long(),
            weightsBytes = reply.long(),
            arenaBytes = reply.long(),
            isa = reply.text(),
            threads = reply.int(),
            inputs = reply.list(TensorInfo::of),
            outputs = reply.list(TensorInfo::of),
            labels = reply.list(Reply::text),
            metadata = reply.list { text() to text() }.toMap(),
        )
    }
}

/**
 * An input or output of a model.
 *
 * @property name its name.
 * @property element its element type, such as `f32`; elements are in native byte order.
 * @property shape its dimensions, outermost first.
 */
@ConsistentCopyVisibility
public data class TensorInfo internal constructor(val name: String, val element: String, val shape: List<Int>) {
    /** Bytes of all elements. */
    public val bytes: Int get() = shape.fold(ELEMENT_BYTES.getValue(element), Math::multiplyExact)

    internal companion object {
        private val ELEMENT_BYTES = mapOf(
            "i8" to 1, "u8" to 1, "bool" to 1,
            "f16" to 2, "bf16" to 2, "i16" to 2, "u16" to 2,
            "f32" to 4, "i32" to 4, "u32" to 4,
            "f64" to 8, "i64" to 8, "u64" to 8,
        )

        fun of(reply: Reply): TensorInfo =
            TensorInfo(reply.text(), reply.text(), reply.list { Math.toIntExact(long()) })
    }
}
