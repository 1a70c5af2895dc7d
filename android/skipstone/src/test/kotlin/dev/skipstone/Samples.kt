package dev.skipstone

import java.awt.image.BufferedImage
import java.io.File
import java.nio.ByteBuffer
import javax.imageio.ImageIO

/** A package of the CIFAR-10 model, made by `skipstone compile`. */
internal val PACKAGE = File(System.getProperty("skipstone.models"), "cifar10.skip")

/** A package of a small model with settings and state: see `tests/devices/variables.py`. */
internal val VARIABLES = File(System.getProperty("skipstone.models"), "variables.skip")

/** The label that the command line gives each image. */
private val NAMED: Map<String, String> =
    File(System.getProperty("skipstone.models"), "samples.txt").readLines().associate { line ->
        line.split(' ', limit = 2).let { (name, label) -> name to label }
    }

/** The repository's sample images, of 32 by 32 pixels. */
internal val SAMPLES: List<Sample> =
    File(System.getProperty("skipstone.samples")).listFiles { file -> file.extension == "png" }!!.sorted().map(::Sample)

/** An image, with the label that `skipstone classify` gives it. */
internal class Sample private constructor(file: File, image: BufferedImage) :
    Pixels(image.width, image.height, image::getRGB) {
    constructor(file: File) : this(file, ImageIO.read(file))

    val name: String = file.name
    val label: String = NAMED.getValue(name)

    fun rgb(): Frame = frame()
}

/** A plain image: [color] returns a pixel's red, green and blue as 0xRRGGBB. */
internal open class Pixels(val width: Int, val height: Int, val color: (x: Int, y: Int) -> Int) {
    fun color(x: Int, y: Int): Int = color.invoke(x, y)

    fun part(left: Int, top: Int, width: Int, height: Int): Pixels = Pixels(width, height) { x, y -> color(left + x, top + y) }

    fun mirrored(): Pixels = Pixels(width, height) { x, y -> color(width - 1 - x, y) }

    /** Rotated clockwise by a multiple of 90 degrees. */
    fun turned(degrees: Int): Pixels = when {
        degrees == 0 -> this
        else -> Pixels(height, width) { x, y -> color(y, height - 1 - x) }.turned(degrees - 90)
    }

    /** The given channels of each pixel (0 is red, 2 is blue) as interleaved bytes, in this order and with this row
     * stride. */
    fun bytes(channels: List<Int>, rowStride: Int = width * channels.size): ByteBuffer {
        val bytes = ByteBuffer.allocateDirect(rowStride * height)
        for (y in 0 until height) for (x in 0 until width) channels.forEachIndexed { at, channel ->
            val value = if (channel < 3) color(x, y) shr (16 - 8 * channel) else 255
            bytes.put(y * rowStride + x * channels.size + at, value.toByte())
        }
        return bytes
    }

    fun frame(): Frame = Frame.rgb(width, height, bytes(listOf(0, 1, 2)))
}

internal fun open(): Classifier = Classifier.openBlocking(PACKAGE)
