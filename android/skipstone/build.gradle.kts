import javax.inject.Inject
import org.gradle.process.ExecOperations

plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
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
    publishing {
        singleVariant("release") {
            withSourcesJar()
            // From KDoc, by Dokka.
            withJavadocJar()
        }
    }
}

kotlin {
    compilerOptions { freeCompilerArgs.add("-Xexplicit-api=strict") }
}

dependencies {
    api(libs.coroutines.core)
    implementation(libs.coroutines.android)
}

/** Builds the native library by one of the repository's commands, whose inputs are declared here. */
abstract class NativeLibraries @Inject constructor(private val processes: ExecOperations) : DefaultTask() {
    @get:InputFiles
    @get:PathSensitive(PathSensitivity.RELATIVE)
    abstract val sources: ConfigurableFileCollection

    /** Environment variables that the command reads. */
    @get:Input
    abstract val variables: MapProperty<String, String>

    @get:Internal
    abstract val repository: DirectoryProperty

    @get:OutputDirectory
    abstract val libraries: DirectoryProperty

    /** The same libraries with symbols and line tables, for `ndk-stack` and crash reports. */
    @get:OutputDirectory
    abstract val symbols: DirectoryProperty

    @TaskAction
    fun build() {
        processes.exec {
            workingDir(repository.get().asFile)
            commandLine("cargo", "xtask", "android", "native", libraries.get().asFile.path, "--symbols", symbols.get().asFile.path)
        }
    }
}

fun native(variant: String) = tasks.register<NativeLibraries>("native${variant.replaceFirstChar(Char::uppercase)}") {
    repository.set(layout.projectDirectory.dir("../.."))
    sources.from(
        listOf("runtime", "bindings", "xtask", ".cargo").map { fileTree("../../$it") { include("**/*.rs", "**/*.toml") } },
        "../../Cargo.toml",
        "../../Cargo.lock",
        "../../rust-toolchain.toml",
    )
    for (name in listOf("SKIPSTONE_OPERATORS", "SKIPSTONE_FEATURES", "ANDROID_NDK_HOME", "CARGO_TARGET_DIR")) {
        variables.put(name, providers.environmentVariable(name).orElse("not set"))
    }
    symbols.set(layout.buildDirectory.dir("symbols/$variant"))
}

val release = native("release")
val debug = native("debug")

androidComponents {
    onVariants { variant ->
        val task = if (variant.name == "release") release else debug
        variant.sources.jniLibs?.addGeneratedSourceDirectory(task, NativeLibraries::libraries)
    }
}

val symbols by tasks.registering(Zip::class) {
    from(release.flatMap { it.symbols })
    archiveClassifier = "symbols"
}

publishing {
    publications {
        register<MavenPublication>("release") {
            groupId = "dev.skipstone"
            artifactId = "skipstone"
            version = "0.1.0-SNAPSHOT"
            artifact(symbols)
            pom {
                name = "Skipstone"
                description = "An inference runtime for compact classifiers, for Android"
                licenses {
                    license { name = "MIT" }
                    license { name = "Apache-2.0" }
                }
            }
            // The component exists once AGP has read this file.
            afterEvaluate { from(components["release"]) }
        }
    }
    repositories {
        maven {
            name = "folder"
            url = uri(layout.buildDirectory.dir("repository"))
        }
    }
}
