plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "dev.skipstone"
    compileSdk = 36
    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
        ndk { abiFilters += setOf("arm64-v8a", "armeabi-v7a", "x86_64") }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin {
    explicitApi()
    jvmToolchain(17)
}

dependencies {
    api(libs.coroutines.core)
    implementation(libs.coroutines.android)
}

// One of the repository's commands builds the native library.
val libraries = layout.buildDirectory.dir("native")

val native by tasks.registering(Exec::class) {
    inputs.dir("../../runtime")
    inputs.dir("../../bindings")
    inputs.dir("../../xtask/src")
    inputs.files("../../Cargo.toml", "../../Cargo.lock", "../../rust-toolchain.toml")
    // Environment variables that the command reads.
    inputs.property("operators", providers.environmentVariable("SKIPSTONE_OPERATORS").orElse(""))
    inputs.property("features", providers.environmentVariable("SKIPSTONE_FEATURES").orElse("signatures"))
    inputs.property("ndk", providers.environmentVariable("ANDROID_NDK_HOME").orElse(""))
    outputs.dir(libraries)
    workingDir("../..")
    commandLine("cargo", "xtask", "android", "native", libraries.get().asFile.path)
}

// As a file: AGP 9 takes no providers here.
android.sourceSets["main"].jniLibs.srcDir(libraries.get().asFile)

tasks.named("preBuild") { dependsOn(native) }
