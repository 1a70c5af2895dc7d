#!/usr/bin/env bash
# Tests the Swift package on Linux, and builds the library that it links on an iPhone.
#
#   tests/ios.sh            both
#   tests/ios.sh swift      the package: bindings, build without warnings, tests
#   tests/ios.sh races [N]  the races between tasks with N runs each (100,000) instead of some thousands
#   tests/ios.sh library    the static library for aarch64-apple-ios, and a check for the simulator's
#
# Code behind `canImport` of Apple's frameworks, and the apps, are parsed here and compiled on a Mac only.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
python=$PWD/build/venv/bin/python
host=$PWD/build/swift/lib

say() { printf 'ios: %s\n' "$*" >&2; }

# swift_test ARGUMENTS...: `swift test` of the package, for which what it needs is made.
swift_test() {
    tests/swift.sh run env "SKIPSTONE_RACES=${SKIPSTONE_RACES:-4000}" \
        swift test --package-path ios --scratch-path build/swift/build --configuration release \
        -Xswiftc -enable-testing -Xswiftc -warnings-as-errors -Xlinker "-L$host" "$@"
}

prepare() {
    say "the library for this machine"
    cargo build --quiet --release -p skipstone-ffi --features onnx
    # The root sees this tree alone, wherever cargo's target folder may be.
    mkdir -p "$host"
    cp "$CARGO_TARGET_DIR/release/libskipstone_ffi.a" "$host/"
    say "the bindings"
    ios/generate.sh "$host/libskipstone_ffi.a"
    "$python" tests/swift_fixtures.py
    tests/swift.sh setup
}

package() {
    prepare
    say "format, and the apps' syntax"
    tests/swift.sh run swift format lint --strict --recursive --configuration ios/.swift-format \
        ios/Package.swift ios/Sources/Skipstone ios/Sources/SkipstoneBenchmark ios/Tests ios/Apps
    tests/swift.sh run swiftc -parse -swift-version 6 ios/Apps/*/*.swift
    say "the package"
    swift_test
}

library() {
    # Where tests/size.py builds with the same profile: what runs on this machine is built once.
    local folder=build/size
    say "the library for iOS"
    SKIPSTONE_CROSS_TARGET=$PWD/$folder \
        tests/cross.sh phone aarch64-apple-ios rustc --quiet --profile device -p skipstone-ffi --lib --crate-type staticlib
    say "$(stat -c '%n: %s bytes' $folder/aarch64-apple-ios/device/libskipstone_ffi.a)"
    say "a check for the simulator"
    tests/cross.sh phone aarch64-apple-ios-sim check --quiet -p skipstone-ffi
}

case ${1:-all} in
    all)
        package
        library
        ;;
    swift) package ;;
    races)
        prepare
        SKIPSTONE_RACES=${2:-100000} swift_test --filter Race
        ;;
    library) library ;;
    *)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' tests/ios.sh >&2
        exit 2
        ;;
esac
