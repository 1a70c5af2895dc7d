#!/usr/bin/env bash
# Writes the generated half of the Swift package: the C header of the Rust library, and the
# Swift that calls it. Both are read off a built library, and neither is committed.
#
#   ios/generate.sh LIBRARY        such as target/release/libskipstone_ffi.a
set -euo pipefail
cd "$(dirname "$0")/.."

library=${1:?a built skipstone-ffi library}
sources=$PWD/ios/Sources
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo run --quiet -p skipstone-bindgen -- generate --language swift --no-format \
    --config ios/uniffi.toml --out-dir "$work" "$library"
# A file that stays the same keeps its date, and what was compiled of it stays valid.
place() { cmp -s "$1" "$2" || cp "$1" "$2"; }
mkdir -p "$sources/SkipstoneBindings"
place "$work/skipstone.swift" "$sources/SkipstoneBindings/skipstone.swift"
place "$work/skipstoneFFI.h" "$sources/skipstoneFFI/skipstoneFFI.h"
