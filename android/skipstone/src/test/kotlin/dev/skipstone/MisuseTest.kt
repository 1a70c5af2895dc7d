package dev.skipstone

import java.io.File
import java.nio.ByteBuffer
import java.nio.file.Files
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicBoolean
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Misuse by an app: each case throws a named exception and never ends the process. */
class MisuseTest {
    private val sample = SAMPLES.first()

    @Test
    fun `closed objects are errors`() {
        val classifier = open()
        classifier.close()
        classifier.close()
        classifier.cancel()
        assertFailsWith<SkipstoneException.Closed> { classifier.classifyBlocking(sample.rgb()) }
        assertFailsWith<SkipstoneException.Closed> { classifier.latency }
        assertFailsWith<SkipstoneException.Closed> { classifier.profile() }
        assertFailsWith<SkipstoneException.Closed> { classifier.setDeadline(1.0) }
        val session = Session.openBlocking(PACKAGE)
        session.close()
        assertFailsWith<SkipstoneException.Closed> { session.runBlocking(session.inputs(), session.outputs()) }
        val model = Model.open(PACKAGE)
        model.close()
        assertFailsWith<SkipstoneException.Closed> { Classifier(model) }
    }

    @Test
    fun `frames that contradict themselves are refused`() {
        val pixels = sample.bytes(listOf(0, 1, 2))
        val plane = { bytes: Int, stride: Int -> Plane(ByteBuffer.allocateDirect(bytes), stride) }
        val broken = listOf(
            Frame.rgb(0, 32, pixels),
            Frame.rgb(-32, 32, pixels),
            Frame.rgb(32, Int.MAX_VALUE, pixels),
            Frame.rgb(Int.MAX_VALUE, Int.MAX_VALUE, pixels),
            Frame.rgb(33, 32, pixels),
            Frame.rgb(32, 32, pixels, rowStride = 95),
            Frame.rgb(32, 32, pixels, rowStride = -96),
            Frame.rgb(32, 32, pixels, rowStride = Int.MAX_VALUE),
            Frame.rgb(32, 32, ByteBuffer.allocateDirect(0)),
            sample.rgb().rotated(45),
            Frame.yuv420(32, 32, plane(1024, 32), plane(255, 16), plane(256, 16)),
            Frame.yuv420(32, 32, plane(1023, 32), plane(256, 16), plane(256, 16)),
        )
        for (crop in listOf(
            Region(16, 16, 17, 1),
            Region(-1, 0, 4, 4),
            Region(0, 0, 0, 4),
            Region(0, 0, 4, 33),
            Region(Int.MAX_VALUE, 0, Int.MAX_VALUE, 1),
            Region(Int.MIN_VALUE, 0, Int.MIN_VALUE, 1),
        )) {
            assertFailsWith<SkipstoneException.Frame>("$crop") { sample.rgb().cropped(crop) }
            assertFailsWith<SkipstoneException.Frame>("$crop") { sample.rgb().cropped(Region(4, 4, 28, 28)).cropped(crop) }
        }
        open().use { classifier ->
            broken.forEachIndexed { index, frame ->
                val refused = assertFailsWith<SkipstoneException>("$index") { classifier.classifyBlocking(frame) }
                assertTrue(refused is SkipstoneException.Frame, "$index: $refused")
            }
            val onHeap = Frame.rgb(32, 32, ByteBuffer.allocate(3072))
            assertEquals("input.buffer", assertFailsWith<SkipstoneException.Input> { classifier.classifyBlocking(onHeap) }.code)
            assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label)
        }
    }

    @Test
    fun `a package that was damaged is refused`() {
        // With the first bytes cut, a library with the feature `onnx` takes it for a broken ONNX file.
        val refused = { what: String, open: () -> Unit ->
            val error = assertFailsWith<SkipstoneException>(what) { open() }
            assertTrue(error is SkipstoneException.Package || error is SkipstoneException.Model, "$what: $error")
        }
        val whole = PACKAGE.readBytes()
        val file = File.createTempFile("damaged", ".skip")
        try {
            for (part in 0 until 64) {
                val at = part * whole.size / 64
                file.writeBytes(whole.copyOf(at))
                refused("cut at $at") { Model.open(file) }
                file.writeBytes(whole.clone().also { it[at] = (it[at].toInt() xor 64).toByte() })
                refused("changed at $at") { Model.open(file) }
            }
            file.writeBytes(whole + 0)
            assertFailsWith<SkipstoneException.Package> { Model.open(file) }
        } finally {
            file.delete()
        }
        assertFailsWith<SkipstoneException.Io> { Model.open(File("/nowhere/model.skip")) }
        refused("zeros") { Model.of(ByteBuffer.allocateDirect(100)) }
        val key = Config(publicKey = ByteArray(32))
        assertFailsWith<SkipstoneException.Package> { Model.open(PACKAGE, key) }
        assertFailsWith<SkipstoneException.Input> { Model.open(PACKAGE, Config(publicKey = ByteArray(31))) }
    }

    /** Regression: a package that was truncated or overwritten while mapped ended the process. */
    @Test
    fun `a package that changes while it is open is an error`() {
        val folder = Files.createTempDirectory("packages").toFile()
        val file = File(folder, "model.skip")
        try {
            val old = Model.install(PACKAGE, file).use { Classifier(it) }
            val copied = Classifier.openBlocking(file, Config(copy = true))
            val bytes = PACKAGE.readBytes()
            val direct = ByteBuffer.allocateDirect(bytes.size).put(bytes).flip()
            Model.install(direct, file).close()
            assertFailsWith<SkipstoneException.Package> { Model.install(direct.duplicate().limit(bytes.size - 1), file) }
            assertFailsWith<SkipstoneException.Io> { Model.install(File(folder, "none"), file) }
            assertEquals(sample.label, old.classifyBlocking(sample.rgb()).best?.label)
            val new = Classifier.openBlocking(file)
            assertEquals(sample.label, new.classifyBlocking(sample.rgb()).best?.label)
            assertEquals(listOf("model.skip"), folder.list()?.toList())
            file.writeBytes(ByteArray(10))
            assertEquals("package.changed", assertFailsWith<SkipstoneException.Package> { new.classifyBlocking(sample.rgb()) }.code)
            for (classifier in listOf(old, copied)) assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label)
            for (classifier in listOf(old, copied, new)) classifier.close()
        } finally {
            folder.deleteRecursively()
        }
    }

    @Test
    fun `a model above a limit is refused with its name, and opens once it is raised`() {
        for (name in listOf("memory", "work")) {
            val above = assertFailsWith<SkipstoneException.Model> { Model.open(PACKAGE, Config(limits = mapOf(name to 1000L))) }
            assertEquals("model.limit", above.code)
            assertTrue("'$name'" in above.toString(), above.toString())
            Model.open(PACKAGE, Config(limits = mapOf(name to (1L shl 40)))).close()
        }
        // Limits of ONNX files are known to every library.
        Model.open(PACKAGE, Config(limits = mapOf("nodes" to 1L))).close()
        for ((name, value) in listOf("frobs" to 1L, "" to 1L, "Memory" to 1L, "memory" to -1L)) {
            val wrong = Config(limits = mapOf(name to value))
            val refused = assertFailsWith<SkipstoneException.Input> { Model.open(PACKAGE, wrong) }
            assertEquals("input.limit", refused.code)
            assertTrue("memory" in refused.toString(), refused.toString())
        }
    }

    @Test
    fun `a budget for experts changes nothing where there are none`() {
        Model.open(PACKAGE, Config(expertBudget = 1L shl 40)).close()
        Model.open(PACKAGE, Config(expertBudget = 0)).close()
    }

    @Test
    fun `impossible arguments are refused by name`() {
        assertFailsWith<SkipstoneException.Input> { Config(threads = -1) }
        assertEquals("input.budget", assertFailsWith<SkipstoneException.Input> { Config(expertBudget = -1) }.code)
        assertFailsWith<SkipstoneException.Input> { Model.of(ByteBuffer.allocate(100)) }
        assertFailsWith<SkipstoneException.Input> { Model.install(ByteBuffer.allocate(100), File("/nowhere")) }
    }

    @Test
    fun `eight threads may use one classifier`() {
        open().use { classifier ->
            val threads = Executors.newFixedThreadPool(8)
            val right = (0 until 8).map { first ->
                threads.submit(Callable {
                    (0 until 200).count { run ->
                        val picture = SAMPLES[(first + run) % SAMPLES.size]
                        classifier.classifyBlocking(picture.rgb()).best?.label == picture.label
                    }
                })
            }.sumOf { it.get() }
            threads.shutdown()
            assertEquals(1600, right)
        }
    }

    @Test
    fun `a classifier may be closed while eight threads use it`() {
        repeat(20) {
            val classifier = open()
            val begun = AtomicBoolean()
            val threads = Executors.newFixedThreadPool(8)
            val ends = (0 until 8).map {
                threads.submit(Callable {
                    while (true) {
                        try {
                            classifier.classifyBlocking(sample.rgb())
                        } catch (stopped: SkipstoneException.Cancelled) {
                            // Thrown because of the close that follows.
                        } catch (closed: SkipstoneException.Closed) {
                            break
                        }
                        begun.set(true)
                    }
                })
            }
            while (!begun.get()) Thread.onSpinWait()
            classifier.close()
            ends.forEach { it.get() }
            threads.shutdown()
        }
    }

    @Test
    fun `another thread cancels`() {
        open().use { classifier ->
            val done = AtomicBoolean()
            val canceller = thread { while (!done.get()) classifier.cancel() }
            assertFailsWith<SkipstoneException.Cancelled> { while (true) classifier.classifyBlocking(sample.rgb()) }
            done.set(true)
            canceller.join()
            assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label)
        }
    }

    @Test
    fun `a run that exceeds its deadline ends`() {
        open().use { classifier ->
            classifier.setDeadline(0.0001)
            assertFailsWith<SkipstoneException.Deadline> { classifier.classifyBlocking(sample.rgb()) }
            assertFailsWith<SkipstoneException.Input> { classifier.setDeadline(Double.NaN) }
            assertFailsWith<SkipstoneException.Deadline> { classifier.classifyBlocking(sample.rgb()) }
            // A run's own deadline replaces it, for this run only.
            classifier.classifyBlocking(sample.rgb(), deadlineMs = 1e6)
            assertFailsWith<SkipstoneException.Deadline> { classifier.classifyBlocking(sample.rgb()) }
            classifier.setDeadline(null)
            assertFailsWith<SkipstoneException.Deadline> { classifier.classifyBlocking(sample.rgb(), deadlineMs = 0.0) }
            assertFailsWith<SkipstoneException.Input> { classifier.classifyBlocking(sample.rgb(), deadlineMs = -1.0) }
            classifier.classifyBlocking(sample.rgb())
        }
        Session.openBlocking(PACKAGE).use { session ->
            val (inputs, outputs) = session.inputs() to session.outputs()
            assertFailsWith<SkipstoneException.Deadline> { session.runBlocking(inputs, outputs, deadlineMs = 0.0) }
            session.runBlocking(inputs, outputs)
        }
    }
}
