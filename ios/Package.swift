// swift-tools-version: 6.0

import PackageDescription

// The Rust library: an XCFramework on Apple platforms (made by `cargo xtask ios xcframework`), and a
// static library elsewhere, so that the package can be tested on Linux (`cargo xtask ios test`).
#if os(Linux)
    let library = Target.systemLibrary(name: "skipstoneFFI")
#else
    let library = Target.binaryTarget(name: "skipstoneFFI", path: "skipstoneFFI.xcframework")
#endif

let package = Package(
    name: "Skipstone",
    platforms: [.iOS(.v16), .macOS(.v13), .macCatalyst(.v16), .tvOS(.v16), .visionOS(.v1)],
    products: [
        .library(name: "Skipstone", targets: ["Skipstone"]),
        .library(name: "SkipstoneBenchmark", targets: ["SkipstoneBenchmark"]),
    ],
    targets: [
        library,
        .target(name: "SkipstoneBindings", dependencies: ["skipstoneFFI"]),
        .target(name: "Skipstone", dependencies: ["SkipstoneBindings"], resources: [.copy("PrivacyInfo.xcprivacy")]),
        .target(name: "SkipstoneBenchmark", dependencies: ["Skipstone"]),
        .testTarget(name: "SkipstoneTests", dependencies: ["Skipstone", "SkipstoneBenchmark"]),
    ],
    swiftLanguageModes: [.v6]
)
