/** Overhead of a call from Kotlin beyond the native library's own time: the median of many calls, in microseconds. */

package dev.skipstone

import java.io.File
import java.nio.ByteBuffer

fun main(arguments: Array<String>) {
    val (model, calls) = File(arguments[0]) to 20_000
    Classifier.openBlocking(model).use { classifier ->
        val frame = Frame.rgb(32, 32, ByteBuffer.allocateDirect(32 * 32 * 3))
        report("classify, 5 classes", calls) {
            val shown = classifier.classifyBlocking(frame)
            shown.prepareMs + shown.runMs
        }
    }
    Session.openBlocking(model).use { session ->
        val (inputs, outputs) = session.inputs() to session.outputs()
        // The session's latency is measured on the native side; the medians are compared.
        val whole = median(List(calls) { timed { session.runBlocking(inputs, outputs) } }.drop(calls / 2))
        println("session: %.2f us of %.1f us".format(whole - 1e3 * session.latency.p50, whole))
    }
    val closed = Classifier.openBlocking(model).apply { close() }
    val nothing = median(List(calls) { timed { runCatching { closed.classifyBlocking(FRAME) } } }.drop(calls / 2))
    println("classify, refused: %.2f us".format(nothing))
}

private val FRAME = Frame.rgb(32, 32, ByteBuffer.allocateDirect(32 * 32 * 3))

private fun report(what: String, calls: Int, call: () -> Double) {
    val beyond = ArrayList<Double>(calls)
    val whole = ArrayList<Double>(calls)
    repeat(calls) {
        var native = 0.0
        val took = timed { native = call() }
        whole += took
        beyond += took - 1e3 * native
    }
    println("$what: %.2f us of %.1f us".format(median(beyond.drop(calls / 2)), median(whole.drop(calls / 2))))
}

private inline fun timed(body: () -> Unit): Double {
    val began = System.nanoTime()
    body()
    return (System.nanoTime() - began) / 1e3
}

private fun median(values: List<Double>): Double = values.sorted()[values.size / 2]
