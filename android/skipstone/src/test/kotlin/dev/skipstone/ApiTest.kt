package dev.skipstone

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import org.jetbrains.kotlin.abi.tools.AbiFilters
import org.jetbrains.kotlin.abi.tools.AbiTools

/**
 * What apps compile against is in `skipstone/api`, as Kotlin's own tools print it: a change of it is made on purpose, and
 * reviewed as text. `cargo xtask android api` writes the file.
 */
class ApiTest {
    private val file = File(System.getProperty("skipstone.api"))

    @Test
    fun `the public declarations are those of the file`() {
        val classes = File(System.getProperty("skipstone.classes")).walk().filter { it.extension == "class" }.sorted()
        val now = StringBuilder().also { AbiTools.getInstance().printJvmDump(it, classes.asIterable(), AbiFilters.EMPTY) }.toString()
        if (System.getenv("SKIPSTONE_WRITE_API") != null) file.writeText(now)
        assertEquals(file.readText(), now, "`cargo xtask android api` writes what is public now")
    }
}
