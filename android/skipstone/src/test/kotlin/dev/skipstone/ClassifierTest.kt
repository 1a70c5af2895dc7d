package dev.skipstone

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class ClassifierTest {
    @Test
    fun `every sample is named`() {
        open().use { classifier ->
            assertTrue(SAMPLES.size >= 20)
            for (sample in SAMPLES) assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label, sample.name)
            assertEquals(SAMPLES.size.toLong(), classifier.latency.runs)
            assertTrue(SAMPLES.count { it.name.startsWith(it.label) } >= 18, "most labels from the command line are right")
        }
    }

    @Test
    fun `the order of the channels and the stride of the rows change nothing`() {
        open().use { classifier ->
            for (sample in SAMPLES) {
                val (width, height) = sample.width to sample.height
                val want = classifier.classifyBlocking(sample.rgb(), top = 10).predictions
                val same = mapOf(
                    "rgba" to Frame.rgba(width, height, sample.bytes(listOf(0, 1, 2, 3))),
                    "bgra" to Frame.bgra(width, height, sample.bytes(listOf(2, 1, 0, 3))),
                    "wide" to Frame.rgb(width, height, sample.bytes(listOf(0, 1, 2), 128), 128),
                    "turned about" to Frame.rgb(width, height, sample.bytes(listOf(0, 1, 2))).rotated(720),
                )
                for ((how, frame) in same) assertEquals(want, classifier.classifyBlocking(frame, 10).predictions, how)
            }
        }
    }

    @Test
    fun `a plane begins at the position of its buffer`() {
        open().use { classifier ->
            val sample = SAMPLES.first()
            val pixels = sample.bytes(listOf(0, 1, 2))
            val shifted = java.nio.ByteBuffer.allocateDirect(pixels.capacity() + 7)
            shifted.position(7)
            shifted.put(pixels.duplicate())
            shifted.position(7)
            val frame = Frame.rgb(sample.width, sample.height, shifted)
            shifted.position(0)
            assertEquals(classifier.classifyBlocking(sample.rgb()).predictions, classifier.classifyBlocking(frame).predictions)
        }
    }

    @Test
    fun `the requested number of classes is returned, best first`() {
        open().use { classifier ->
            for (top in listOf(0, 1, 3, 10)) {
                val found = classifier.classifyBlocking(SAMPLES.first().rgb(), top).predictions
                assertEquals(top, found.size)
                assertEquals(found.sortedByDescending { it.score }, found)
            }
            val all = classifier.classifyBlocking(SAMPLES.first().rgb(), top = Int.MAX_VALUE).predictions
            assertEquals(10, all.size)
            assertEquals(1f, all.map { it.score }.sum(), 1e-4f)
        }
    }

    @Test
    fun `scores and names follow the options`() {
        Model.open(PACKAGE).use { model ->
            val found = { options: ClassifierOptions ->
                Classifier(model, options).use { it.classifyBlocking(SAMPLES.first().rgb(), 10).predictions }
            }
            val all = found(ClassifierOptions())
            assertEquals(all.take(3), found(ClassifierOptions(threshold = all[2].score)))
            assertEquals(setOf("frog", all.single { it.index == 3 }.label), found(ClassifierOptions(allow = listOf("frog", "class 3"))).map { it.label }.toSet())
            assertEquals(all.drop(1), found(ClassifierOptions(deny = listOf(all[0].label))))
            val logits = found(ClassifierOptions(Activation.NONE))
            val sigmoids = found(ClassifierOptions(Activation.SIGMOID))
            for ((logit, sigmoid) in logits.zip(sigmoids)) assertEquals(1 / (1 + kotlin.math.exp(-logit.score)), sigmoid.score, 1e-6f)
            val names = (0 until 10).joinToString("\n") { "name $it" }
            assertEquals("name ${all[0].index}", found(ClassifierOptions(labels = names))[0].label)
            assertEquals("input.label", assertFailsWith<SkipstoneException.Input> { found(ClassifierOptions(allow = listOf("wolf"))) }.code)
            Classifier(model).use {
                assertTrue(it.info.scores.startsWith("softmax, assumed"), it.info.scores)
                assertTrue(it.info.normalization.origin.contains("metadata"), it.info.normalization.origin)
            }
        }
    }

    @Test
    fun `a model describes itself`() {
        Model.open(PACKAGE).use { model ->
            assertEquals("cifar10", model.info.name)
            assertEquals(listOf(1, 3, 32, 32), model.info.inputs.single().shape)
            assertEquals(4 * 3 * 32 * 32, model.info.inputs.single().bytes)
            assertEquals(SAMPLES.map { it.name.substringBefore('_') }.toSet(), model.info.labels.toSet())
            assertTrue(model.info.parameters > 300_000)
            assertTrue(model.info.arenaBytes > 0)
        }
    }

    @Test
    fun `a package in memory equals the package on disk`() {
        val bytes = PACKAGE.readBytes()
        val direct = java.nio.ByteBuffer.allocateDirect(bytes.size + 3)
        direct.position(3)
        direct.put(bytes).position(3)
        Model.of(direct).use(::Classifier).use { classifier ->
            val sample = SAMPLES.first()
            assertEquals(sample.label, classifier.classifyBlocking(sample.rgb()).best?.label)
        }
    }

    @Test
    fun `a profile names the steps and shares out the time`() {
        open().use { classifier ->
            assertEquals(emptyList(), classifier.profile())
            classifier.startProfile()
            repeat(10) { classifier.classifyBlocking(SAMPLES.first().rgb()) }
            val steps = classifier.profile()
            assertTrue(steps.any { it.op == "Conv" })
            assertEquals(1.0, steps.sumOf { it.share }, 1e-9)
            assertTrue(classifier.memory.residentBytes!! > classifier.memory.arenaBytes)
        }
    }
}
