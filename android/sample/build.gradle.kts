plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "dev.skipstone.sample"
    compileSdk = 36
    defaultConfig {
        applicationId = "dev.skipstone.sample"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        // CameraX supports 32-bit x86, but Skipstone does not: without this, the app would install there and fail.
        ndk { abiFilters += setOf("arm64-v8a", "armeabi-v7a", "x86_64") }
    }
    // Packages are mapped from the APK: they must not be compressed in it.
    androidResources { noCompress += "skip" }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(project(":camerax"))
    implementation(libs.activity)
    implementation(libs.camera.camera2)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
    implementation(libs.coroutines.android)
}
