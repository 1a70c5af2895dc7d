// swift-tools-version: 6.0

import PackageDescription

// The library with stand-ins for the frameworks of Apple that it uses, so that Linux compiles and runs all of it:
// `cargo xtask ios test` puts it together with the library's sources.
let frameworks: [String: [String]] = [
    "CoreGraphics": [], "CoreVideo": ["CoreGraphics"], "CoreMedia": ["CoreVideo"], "ImageIO": ["CoreGraphics"],
    "AVFoundation": ["CoreMedia"], "UIKit": ["CoreGraphics"], "AppKit": ["CoreGraphics"],
]

let package = Package(
    name: "Apple",
    targets: frameworks.map { name, others in
        .target(name: name, dependencies: others.map { .target(name: $0) }, path: name)
    } + [
        .systemLibrary(name: "skipstoneFFI", path: "Sources/skipstoneFFI"),
        .target(name: "SkipstoneBindings", dependencies: ["skipstoneFFI"]),
        .target(
            name: "Skipstone",
            dependencies: [.target(name: "SkipstoneBindings")] + frameworks.keys.map { .target(name: $0) },
            exclude: ["PrivacyInfo.xcprivacy", "Skipstone.docc"]),
        .executableTarget(name: "Checks", dependencies: ["Skipstone"], path: "Checks"),
    ],
    swiftLanguageModes: [.v6]
)
