package dev.skipstone

import dev.skipstone.internal.CallBuffer
import dev.skipstone.internal.Native
import dev.skipstone.internal.NativeObject
import dev.skipstone.internal.Reply
import java.io.File
import java.lang.reflect.InvocationTargetException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicInteger
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** The border to the native library: handles, text, buffers and threads as no careful app would use them. */
class NativeTest {
    private val sample = SAMPLES.first()

    /** An object of this handle, as if a call had returned it. */
    private fun named(handle: Long) = NativeObject(ByteBuffer.allocate(12).putInt(0).putLong(handle).array())

    private fun refused(it: NativeObject) {
        val call = CallBuffer()
        val pixel = ByteBuffer.allocateDirect(1)
        assertFailsWith<SkipstoneException.Closed> { it.latency() }
        assertFailsWith<SkipstoneException.Closed> { it.memory() }
        assertFailsWith<SkipstoneException.Closed> { it.startProfile() }
        assertFailsWith<SkipstoneException.Closed> { it.profile() }
        assertFailsWith<SkipstoneException.Closed> { it.limit(1.0) }
        assertFailsWith<SkipstoneException.Closed> { it.set("gain", listOf(1.0)) }
        call.describe(Frame.gray(1, 1, pixel), 1)
        assertTrue(call.error(it.classify(pixel, null, null, call)) is SkipstoneException.Closed)
        assertTrue(call.error(it.run(emptyArray(), emptyArray(), call)) is SkipstoneException.Closed)
        it.cancel()
        it.forgetCancel()
    }

    @Test
    fun `handles that stand for nothing are refused`() {
        for (handle in listOf(0L, -1L, Long.MAX_VALUE, Long.MIN_VALUE)) {
            Native.close(handle)
            val nothing = named(handle)
            refused(nothing)
            assertFailsWith<SkipstoneException.Closed> { nothing.info() }
            assertFailsWith<SkipstoneException.Closed> { nothing.session() }
            assertFailsWith<SkipstoneException.Closed> { nothing.classifier(ClassifierOptions().request()) }
            nothing.close()
            nothing.close()
        }
    }

    @Test
    fun `handles of another kind are refused`() {
        Model.open(PACKAGE).use { model ->
            refused(model.native)
            val (session, classifier) = model.native.session() to model.native.classifier(ClassifierOptions().request())
            for (other in listOf(session, classifier)) {
                assertFailsWith<SkipstoneException.Closed> { other.session() }
                assertFailsWith<SkipstoneException.Closed> { other.classifier(ClassifierOptions().request()) }
            }
            assertFailsWith<SkipstoneException.Closed> { session.info() }
            val call = CallBuffer()
            assertTrue(call.error(classifier.run(emptyArray(), emptyArray(), call)) is SkipstoneException.Closed)
            val pixel = ByteBuffer.allocateDirect(1)
            call.describe(Frame.gray(1, 1, pixel), 1)
            assertTrue(call.error(session.classify(pixel, null, null, call)) is SkipstoneException.Closed)
            session.close()
            classifier.close()
            refused(session)
            refused(classifier)
        }
    }

    @Test
    fun `closing twice closes once`() {
        val before = Skipstone.openObjects
        val model = Model.open(PACKAGE)
        val (first, second) = Classifier(model) to Session(model)
        model.close()
        model.close()
        assertEquals(before + 2, Skipstone.openObjects)
        repeat(3) { first.close() }
        assertEquals(before + 1, Skipstone.openObjects)
        repeat(3) { second.close() }
        assertEquals(before, Skipstone.openObjects)
        assertFailsWith<SkipstoneException.Closed> { model.let(::Session) }
    }

    @Test
    fun `objects that nobody can reach are closed`() {
        val before = Skipstone.openObjects
        fun abandon() = Model.open(PACKAGE).let { model ->
            Session(model)
            Classifier(model).classifyBlocking(sample.rgb())
        }
        repeat(10) { abandon() }
        while (Skipstone.openObjects > before) {
            System.gc()
            Thread.onSpinWait()
        }
        assertEquals(before, Skipstone.openObjects)
    }

    @Test
    fun `requests that end early are errors`() {
        val internal = { call: () -> ByteArray -> assertFailsWith<SkipstoneException.Internal> { Reply(call()) } }
        val shapes = mapOf("image" to listOf(1, 3))
        val config = Config(publicKey = ByteArray(32), shapes = shapes, limits = mapOf("memory" to 1L), expertBudget = 1)
        val whole = config.request().text("a").bytes()
        for (length in whole.indices) internal { Native.open(whole.copyOf(length)) }
        internal { Native.install(Config().request().text("from").bytes()) }
        internal { Native.convert(Config().request().bytes()) }
        assertFailsWith<SkipstoneException.Io> { Reply(Native.open(Config().request().text("/nowhere").bytes())) }
    }

    @Test
    fun `a cancellation before a run stops it unless it is forgotten`() {
        Model.open(PACKAGE).use { model ->
            Session(model).use { session ->
                val (inputs, outputs) = session.inputs().toTypedArray() to session.outputs().toTypedArray()
                val (native, call) = model.native.session() to CallBuffer()
                native.cancel()
                native.limit(null)
                assertTrue(call.error(native.run(inputs, outputs, call)) is SkipstoneException.Cancelled)
                assertEquals(0, native.run(inputs, outputs, call))
                native.cancel()
                native.forgetCancel()
                assertEquals(0, native.run(inputs, outputs, call))
                native.close()
                native.forgetCancel()
            }
        }
    }

    @Test
    fun `any text is taken as it is or refused`() {
        val folder = Files.createTempDirectory("texts").toFile()
        try {
            // With the name that a phone would give it, whatever this JVM's own encoding of names is.
            for (name in listOf("möwe", "\uD83D\uDE00 x", "中文", "a'b\"c")) {
                val file = File(folder, "$name.skip")
                Model.install(PACKAGE, file).use { assertEquals(name, it.info.name) }
                Model.open(file).use { assertEquals(name, it.info.name) }
            }
            assertFailsWith<SkipstoneException.Io> { Model.open(File("a\u0000b")) }
            for (half in listOf("\uD83D", "\uDE00", "a\uDE00\uD83Db")) {
                val file = File(folder, half)
                assertEquals("input.text", assertFailsWith<SkipstoneException.Input> { Model.open(file) }.code)
                assertFailsWith<SkipstoneException.Input> { Model.install(PACKAGE, file) }
                open().use { classifier ->
                    assertFailsWith<SkipstoneException.Input> { classifier.setBlocking(half, Setting(1)) }
                    assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label)
                }
            }
        } finally {
            ProcessBuilder("rm", "-r", folder.path).start().waitFor()
        }
    }

    @Test
    fun `labels are any text`() {
        val labels = List(10) { listOf("ä", "\uD83D\uDE00", "a\u0000b", "\uFFFD", "𝄞" + "x".repeat(100_000))[it % 5] + it }
        val options = ClassifierOptions(labels = labels.joinToString("\n"))
        Classifier.openBlocking(PACKAGE, options = options).use { classifier ->
            assertEquals(labels, classifier.labels)
            val shown = classifier.classifyBlocking(sample.rgb(), top = 10).predictions
            for (prediction in shown) assertEquals(labels[prediction.index], prediction.label)
        }
        Classifier.openBlocking(PACKAGE, options = ClassifierOptions(labels = options.labels, allow = listOf(labels[1]))).use {
            assertEquals(labels[1], it.classifyBlocking(sample.rgb()).predictions.single().label)
        }
        assertFailsWith<SkipstoneException.Input> {
            Classifier.openBlocking(PACKAGE, options = ClassifierOptions(deny = listOf("\uD83D\uDE00 no such class")))
        }
    }

    @Test
    fun `buffers that cannot be used are refused`() {
        Session.openBlocking(PACKAGE).use { session ->
            val (inputs, outputs) = session.inputs() to session.outputs()
            val code = { i: List<ByteBuffer>, o: List<ByteBuffer> ->
                assertFailsWith<SkipstoneException.Input> { session.runBlocking(i, o) }.code
            }
            assertEquals("input.buffer", code(inputs, outputs.map(ByteBuffer::asReadOnlyBuffer)))
            assertEquals("input.size", code(inputs, listOf(ByteBuffer.allocateDirect(0))))
            assertEquals("input.size", code(inputs, listOf(outputs.single().duplicate().position(4))))
            // So many that their references would not fit if they were kept.
            assertEquals("input.missing", code(List(100_000) { inputs.single() }, outputs))
            session.runBlocking(inputs.map(ByteBuffer::asReadOnlyBuffer), outputs)
        }
        val file = Files.createTempFile("mapped", ".bin")
        try {
            Files.write(file, PACKAGE.readBytes())
            FileChannel.open(file).use { channel ->
                val mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
                Classifier(Model.of(mapped)).use { assertEquals(sample.label, it.classifyBlocking(sample.rgb()).best?.label) }
            }
        } finally {
            Files.delete(file)
        }
        assertFailsWith<SkipstoneException> { Model.of(ByteBuffer.allocateDirect(0)) }
        assertFailsWith<SkipstoneException.Input> { Reply(Native.openBytes(ByteBuffer.allocate(8), Config().request().bytes())) }
    }

    @Test
    fun `a call buffer that is not one is refused`() {
        val buffers = Array<ByteBuffer>::class.java
        val run = NativeObject::class.java.getDeclaredMethod("run", Long::class.java, buffers, buffers, ByteBuffer::class.java)
        run.isAccessible = true
        for (call in listOf(ByteBuffer.allocate(1024), ByteBuffer.allocateDirect(1023), null)) {
            val thrown = assertFailsWith<InvocationTargetException> {
                run.invoke(named(0), 0L, emptyArray<ByteBuffer>(), emptyArray<ByteBuffer>(), call)
            }
            assertTrue(thrown.targetException is IllegalArgumentException, "${thrown.targetException}")
        }
    }

    /** Runs [body] on that many threads at once; throws what one of them throws. */
    private fun threads(count: Int, body: (Int) -> Unit) {
        val pool = Executors.newFixedThreadPool(count)
        val done = List(count) { number -> pool.submit(Callable { body(number) }) }
        pool.shutdown()
        done.forEach { it.get() }
    }

    /** Whatever sixteen threads do to one classifier, each call returns its own result or a named error. */
    @Test
    fun `sixteen threads may classify, cancel, set, measure and close`() {
        val before = Skipstone.openObjects
        repeat(50) { round ->
            val classifier = open()
            val answered = AtomicInteger()
            fun act(random: Random) {
                when (random.nextInt(12)) {
                    0 -> classifier.cancel()
                    1 -> classifier.setDeadline(if (random.nextBoolean()) 1e6 else null)
                    2 -> assertTrue(classifier.latency.runs >= 0)
                    3 -> classifier.startProfile()
                    4 -> assertTrue(classifier.profile().all { it.ms >= 0 })
                    5 -> assertTrue(classifier.memory.arenaBytes > 0)
                    6 -> classifier.resetBlocking()
                    7 -> if (answered.get() > 100) classifier.close()
                    else -> {
                        val picture = SAMPLES[random.nextInt(SAMPLES.size)]
                        assertEquals(picture.label, classifier.classifyBlocking(picture.rgb()).best?.label)
                        answered.incrementAndGet()
                    }
                }
            }
            threads(16) { number ->
                val random = Random(16 * round + number)
                var isOpen = true
                while (isOpen) {
                    try {
                        act(random)
                    } catch (stopped: SkipstoneException.Cancelled) {
                        // By another thread.
                    } catch (closed: SkipstoneException.Closed) {
                        isOpen = false
                    }
                }
            }
        }
        assertEquals(before, Skipstone.openObjects)
    }

    /** Models are closed while classifiers and sessions of them are made and used. */
    @Test
    fun `a model may be closed while it is used`() {
        val before = Skipstone.openObjects
        repeat(100) {
            val model = Model.open(PACKAGE)
            threads(4) { number ->
                try {
                    when (number) {
                        0 -> model.close()
                        1 -> Session(model).use { it.runBlocking(it.inputs(), it.outputs()) }
                        else -> Classifier(model).use {
                            assertEquals(sample.label, it.classifyBlocking(sample.rgb()).best?.label)
                        }
                    }
                } catch (closed: SkipstoneException.Closed) {
                    assertEquals("the model is closed", closed.message)
                }
            }
        }
        assertEquals(before, Skipstone.openObjects)
    }
}
