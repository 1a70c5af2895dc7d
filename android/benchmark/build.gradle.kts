plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "dev.skipstone.benchmark"
    compileSdk = 36
    defaultConfig {
        applicationId = "dev.skipstone.benchmark"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
    }
    // Packages are mapped from the APK: they must not be compressed in it.
    androidResources { noCompress += "skip" }
    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
            signingConfig = signingConfigs.getByName("debug")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

dependencies {
    implementation(project(":skipstone"))
    implementation(libs.coroutines.android)
}
