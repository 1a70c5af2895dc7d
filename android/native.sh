#!/usr/bin/env bash
# Builds libskipstone.so for the phone's instruction sets into DIR/<abi>: native.sh DIR
#
# Needs the NDK (ANDROID_NDK_HOME), `cargo install cargo-ndk`, `rustup component add rust-src` and
# `rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android`.
#
# The standard library is built along, which takes the flag for unstable options: small, and without what turns
# addresses of a panic into names, a tenth of the library. Panics, which are caught and reported as bugs, go without
# their lines, values are printed for debugging by name only, and signatures are checked without vector instructions:
# once a package, a tenth of a millisecond. SKIPSTONE_OPERATORS leaves out what no package needs (`skipstone operators`).
set -euo pipefail
mkdir -p "${1:?a folder to write to}"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zlocation-detail=none -Zfmt-debug=shallow --cfg curve25519_dalek_backend="serial"'
cargo ndk --platform 24 --target arm64-v8a --target armeabi-v7a --target x86_64 --output-dir "$folder" \
    build --profile device -p skipstone-jni -Zbuild-std=std,panic_unwind -Zbuild-std-features=panic-unwind,optimize_for_size

# Every segment that is loaded must start at a multiple of 16 KB. Macs have no readelf; the NDK has.
readelf=$(echo "${ANDROID_NDK_HOME:?the folder of the NDK}"/toolchains/llvm/prebuilt/*/bin/llvm-readelf)
for library in "$folder"/*/libskipstone.so; do
    for at in $("$readelf" -lW "$library" | awk '$1 == "LOAD" { print $NF }'); do
        [ $((at)) -ge 16384 ] || { printf '%s has a segment at multiples of %d\n' "$library" $((at)) >&2; exit 1; }
    done
done
