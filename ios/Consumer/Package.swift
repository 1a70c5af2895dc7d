// swift-tools-version: 6.0

import PackageDescription

// A program that knows nothing of this repository but the published package (`cargo xtask ios publish`).
let package = Package(
    name: "Consumer",
    platforms: [.iOS(.v16), .macOS(.v13)],
    dependencies: [.package(path: "../../build/swift/published/Skipstone")],
    targets: [
        .executableTarget(name: "consumer", dependencies: [.product(name: "Skipstone", package: "Skipstone")])
    ],
    swiftLanguageModes: [.v6]
)
