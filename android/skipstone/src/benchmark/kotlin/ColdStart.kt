/** Time from the first use of the library's classes in a new process to the first answer, in milliseconds. */

package dev.skipstone

import java.io.File
import java.nio.ByteBuffer

fun main(arguments: Array<String>) {
    val (model, pixels) = File(arguments[0]) to ByteBuffer.allocateDirect(32 * 32 * 3)
    val began = System.nanoTime()
    Classifier.openBlocking(model).use { it.classifyBlocking(Frame.rgb(32, 32, pixels)) }
    println("%.2f".format((System.nanoTime() - began) / 1e6))
}
