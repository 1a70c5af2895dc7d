plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "dev.skipstone.camerax"
    compileSdk = 36
    defaultConfig { minSdk = 24 }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin {
    compilerOptions { freeCompilerArgs.add("-Xexplicit-api=strict") }
}

dependencies {
    api(project(":skipstone"))
    api(libs.camera.core)
}
