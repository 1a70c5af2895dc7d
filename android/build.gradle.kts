buildscript {
    dependencies {
        // AGP compiles Kotlin itself; this is the version it takes, and that of the tests (pom.xml).
        classpath(libs.kotlin.gradle)
    }
}

plugins {
    alias(libs.plugins.android.library) apply false
    alias(libs.plugins.android.application) apply false
}
