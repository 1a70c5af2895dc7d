#!/usr/bin/env bash
# Generates the Kotlin side of the facade: bindings.sh DIR [LIBRARY]
#
# LIBRARY is a build of libskipstone.so for any machine that was not stripped; without it, one is made for this machine.
# What is generated is made internal: apps see the library that is written above it, and nothing else.
set -euo pipefail
folder=$(realpath -m "${1:?a folder to write to}")
library=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."

if [ -z "$library" ]; then
    cargo build --quiet -p skipstone-jni
    library=${CARGO_TARGET_DIR:-target}/debug/libskipstone.so
fi
cargo run --quiet -p skipstone-bindgen -- generate --language kotlin --no-format --out-dir "$folder" "$library"
sed -i -E \
    -e 's/^(public )?((open |data |sealed |enum |abstract |inline |fun )*(class|interface|object|typealias|fun) )/internal \2/' \
    -e 's/^( +\*\/) fun /\1 internal fun /' \
    "$folder"/dev/skipstone/internal/ffi/skipstone.kt
