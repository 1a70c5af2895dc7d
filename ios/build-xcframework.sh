#!/usr/bin/env bash
# Builds what the Swift package links on Apple platforms: skipstoneFFI.xcframework, with a static
# framework for devices, one for the simulator and one for macOS (which `swift test` runs on).
#
#   ios/build-xcframework.sh
#
# SKIPSTONE_FEATURES, where it is set, takes the place of the default, "signatures": "" opens packages that are not signed,
# "signatures onnx" ONNX files too. SKIPSTONE_OPERATORS leaves out what no package needs (`skipstone operators`).
#
# Needs a Mac with Xcode, and Rust through rustup, which fetches the targets.
set -euo pipefail
cd "$(dirname "$0")/.."

name=skipstoneFFI
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
version=$(cargo pkgid -p skipstone-ffi)
version=${version##*[#@]}
export IPHONEOS_DEPLOYMENT_TARGET=16.0 MACOSX_DEPLOYMENT_TARGET=13.0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# slice NAME MINIMUM_VERSION TARGET...: one framework, of the same library for each architecture.
slice() {
    local framework=$work/$1/$name.framework minimum=$2 platform=$1 target entry libraries=()
    shift 2
    rustup target add "$@"
    for target in "$@"; do
        cargo build --profile device -p skipstone-ffi --target "$target" \
            ${SKIPSTONE_FEATURES+--no-default-features --features "$SKIPSTONE_FEATURES"}
        libraries+=("$target_dir/$target/device/libskipstone_ffi.a")
    done
    # On a Mac a framework is a bundle with versions, and what is at its top are links into the current one.
    local contents=$framework resources=$framework
    if [ "$platform" = MacOSX ]; then
        contents=$framework/Versions/A
        resources=$contents/Resources
    fi
    mkdir -p "$contents/Headers" "$contents/Modules" "$resources"
    lipo -create "${libraries[@]}" -output "$contents/$name"
    cp "ios/Sources/$name/$name.h" "$contents/Headers/"
    cp ios/Sources/Skipstone/PrivacyInfo.xcprivacy "$resources/"
    cat >"$contents/Modules/module.modulemap" <<MAP
framework module $name {
    header "$name.h"
    export *
}
MAP
    # The App Store refuses a framework that does not say which system it needs.
    cat >"$resources/Info.plist" <<PLIST
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>CFBundleDevelopmentRegion</key><string>en</string>
	<key>CFBundleExecutable</key><string>$name</string>
	<key>CFBundleIdentifier</key><string>dev.skipstone.ffi</string>
	<key>CFBundleInfoDictionaryVersion</key><string>6.0</string>
	<key>CFBundleName</key><string>$name</string>
	<key>CFBundlePackageType</key><string>FMWK</string>
	<key>CFBundleShortVersionString</key><string>$version</string>
	<key>CFBundleVersion</key><string>$version</string>
	<key>CFBundleSupportedPlatforms</key><array><string>$platform</string></array>
	<key>$([ "$platform" = MacOSX ] && echo LSMinimumSystemVersion || echo MinimumOSVersion)</key><string>$minimum</string>
</dict>
</plist>
PLIST
    plutil -lint -s "$resources/Info.plist"
    if [ "$platform" = MacOSX ]; then
        ln -s A "$framework/Versions/Current"
        for entry in "$name" Headers Modules Resources; do ln -s "Versions/Current/$entry" "$framework/$entry"; done
    fi
}

# The bindings are read off any build of the library.
cargo build --release -p skipstone-ffi
ios/generate.sh "$target_dir/release/libskipstone_ffi.a"

slice iPhoneOS $IPHONEOS_DEPLOYMENT_TARGET aarch64-apple-ios
slice iPhoneSimulator $IPHONEOS_DEPLOYMENT_TARGET aarch64-apple-ios-sim x86_64-apple-ios
slice MacOSX $MACOSX_DEPLOYMENT_TARGET aarch64-apple-darwin x86_64-apple-darwin

rm -rf "ios/$name.xcframework"
xcodebuild -create-xcframework -output "ios/$name.xcframework" \
    -framework "$work/iPhoneOS/$name.framework" \
    -framework "$work/iPhoneSimulator/$name.framework" \
    -framework "$work/MacOSX/$name.framework"
