package dev.skipstone

import java.io.File
import java.nio.file.Files
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.Assume.assumeFalse
import org.junit.Assume.assumeTrue

/** ONNX files on the phone, with a library built with the feature `onnx` and with one without it. */
class OnnxTest {
    private val onnx = File(System.getProperty("skipstone.onnx"))
    private val hasFeature = System.getProperty("skipstone.features") == "onnx"
    private val folder = Files.createTempDirectory("onnx").toFile()
    private val target = File(folder, "model.skip")

    @AfterTest
    fun clean() {
        folder.deleteRecursively()
    }

    private fun names(model: Model) = model.use(::Classifier).use { classifier ->
        for (sample in SAMPLES) assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label)
    }

    @Test
    fun `a file is opened, and converted to a package`() {
        assumeTrue(hasFeature)
        names(Model.open(onnx))
        names(Model.convert(onnx, target))
        names(Model.open(target))
        assertEquals(listOf("model.skip"), folder.list()?.toList())
    }

    @Test
    fun `a failed conversion leaves the target unchanged`() {
        assumeTrue(hasFeature)
        target.writeText("the old one")
        val cut = File(folder, "cut.onnx")
        cut.writeBytes(onnx.readBytes().let { it.copyOf(it.size / 2) })
        assertFailsWith<SkipstoneException.Model> { Model.convert(cut, target) }
        assertFailsWith<SkipstoneException.Io> { Model.convert(File(folder, "none"), target) }
        assertFailsWith<SkipstoneException.Input> { Model.convert(onnx, target, Config(publicKey = ByteArray(32))) }
        assertFailsWith<SkipstoneException.Package> { Model.open(onnx, Config(publicKey = ByteArray(32))) }
        val other = Config(shapes = mapOf("input" to listOf(1, 3, 64, 64)))
        assertFailsWith<SkipstoneException.Input> { Model.convert(onnx, target, other) }
        assertFailsWith<SkipstoneException.Input> { Config(shapes = mapOf("input" to listOf(-1))) }
        assertEquals("the old one", target.readText())
    }

    @Test
    fun `a file above a limit is refused with its name, and opens once it is raised`() {
        assumeTrue(hasFeature)
        for (name in listOf("nodes", "file", "elements", "name")) {
            val low = Config(limits = mapOf(name to 3L))
            for (open in listOf({ Model.open(onnx, low) }, { Model.convert(onnx, target, low) })) {
                val above = assertFailsWith<SkipstoneException.Model> { open() }
                assertTrue("'$name'" in above.toString(), above.toString())
            }
            Model.open(onnx, Config(limits = mapOf(name to (1L shl 30)))).close()
        }
        Model.convert(onnx, target, Config(limits = mapOf("nodes" to 1000L))).close()
    }

    @Test
    fun `a library without the importer says so`() {
        assumeFalse(hasFeature)
        assertEquals("package.magic", assertFailsWith<SkipstoneException.Package> { Model.open(onnx) }.code)
        assertEquals("onnx", assertFailsWith<SkipstoneException.Unsupported> { Model.convert(onnx, target) }.code)
        assertTrue(folder.list().isNullOrEmpty())
    }
}
