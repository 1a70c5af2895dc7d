#!/usr/bin/env bash
# Builds libskipstone.so for the phone's instruction sets into DIR/<abi>: native.sh DIR
#
# Needs the NDK (ANDROID_NDK_HOME), `cargo install cargo-ndk` and
# `rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android`.
set -euo pipefail
folder=$(realpath -m "${1:?a folder to write to}")
cd "$(dirname "$0")/.."

cargo ndk --platform 24 --target arm64-v8a --target armeabi-v7a --target x86_64 --output-dir "$folder" \
    build --profile device -p skipstone-jni

# Every segment that is loaded must start at a multiple of 16 KB.
for library in "$folder"/*/libskipstone.so; do
    if readelf -lW "$library" | awk '$1 == "LOAD" && strtonum($NF) < 16384 { narrow = 1 } END { exit !narrow }'; then
        printf '%s is not aligned to pages of 16 KB\n' "$library" >&2
        exit 1
    fi
done
