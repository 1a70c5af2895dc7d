#!/usr/bin/env bash
# Generates the Kotlin side of the facade: bindings.sh DIR [LIBRARY]
#
# LIBRARY is a build of libskipstone.so for any machine that was not stripped; without it, one is made for this machine.
# What is generated is made internal: apps see the library that is written above it, and nothing else.
set -euo pipefail
mkdir -p "${1:?a folder to write to}"
folder=$(cd "$1" && pwd)
library=${2:+$(cd "$(dirname "$2")" && pwd)/$(basename "$2")}
cd "$(dirname "$0")/.."

if [ -z "$library" ]; then
    cargo build --quiet -p skipstone-jni
    library=${CARGO_TARGET_DIR:-target}/debug/libskipstone.so
fi
cargo run --quiet -p skipstone-bindgen -- generate --language kotlin --no-format --out-dir "$folder" "$library"
# A Mac's sed edits no file in place as others do.
file=$folder/dev/skipstone/internal/ffi/skipstone.kt
sed -E \
    -e 's/^(public )?((open |data |sealed |enum |abstract |inline |fun )*(class|interface|object|typealias|fun) )/internal \2/' \
    -e 's/^( +(\*\/|@Throws\(.*\))) fun /\1 internal fun /' \
    "$file" >"$file.internal"
mv "$file.internal" "$file"
