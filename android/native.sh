#!/usr/bin/env bash
# Builds libskipstone.so for the phone's instruction sets into DIR/<abi>: native.sh DIR
#
# Needs the NDK (ANDROID_NDK_HOME), `cargo install cargo-ndk`, `rustup component add rust-src` and
# `rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android`.
#
# The standard library is built along, which takes the flag for unstable options: small, and without what turns
# addresses of a panic into names, a tenth of the library. Panics, which are caught and reported as bugs, go without
# their lines, values are printed for debugging by name only, and signatures are checked by the smallest code: once a
# package, of a hundred bytes, a tenth of a millisecond. With frame pointers the unwind tables of x86-64 are a fifth smaller.
#
# SKIPSTONE_OPERATORS leaves out what no package needs (`skipstone operators`). SKIPSTONE_FEATURES, where it is set, takes
# the place of the default, "signatures": "" opens packages that are not signed, "signatures onnx" ONNX files too.
set -euo pipefail
mkdir -p "${1:?a folder to write to}"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

export RUSTC_BOOTSTRAP=1
RUSTFLAGS='-Zlocation-detail=none -Zfmt-debug=shallow -Cforce-frame-pointers=yes'
RUSTFLAGS+=' --cfg curve25519_dalek_backend="serial" --cfg sha2_backend="soft" --cfg sha2_backend_soft="compact"'
export RUSTFLAGS
cargo ndk --platform 24 --target arm64-v8a --target armeabi-v7a --target x86_64 --output-dir "$folder" \
    build --profile device -p skipstone-jni ${SKIPSTONE_FEATURES+--no-default-features --features "$SKIPSTONE_FEATURES"} \
    -Zbuild-std=std,panic_unwind -Zbuild-std-features=panic-unwind,optimize_for_size,backtrace-trace-only

# Every segment that is loaded must start at a multiple of 16 KB. Macs have no readelf; the NDK has.
readelf=$(echo "${ANDROID_NDK_HOME:?the folder of the NDK}"/toolchains/llvm/prebuilt/*/bin/llvm-readelf)
for library in "$folder"/*/libskipstone.so; do
    for at in $("$readelf" -lW "$library" | awk '$1 == "LOAD" { print $NF }'); do
        [ $((at)) -ge 16384 ] || { printf '%s has a segment at multiples of %d\n' "$library" $((at)) >&2; exit 1; }
    done
done
