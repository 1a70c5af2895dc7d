#!/usr/bin/env bash
# The Android library on this machine: its Kotlin is compiled for the desktop's JVM and tested against the library that
# ships, built for this machine; Robolectric stands in for Android. Then what needs no linker is checked for phones.
#
#   tests/android.sh            the tests
#   tests/android.sh overhead   what a call takes beyond the native library's own time
#   tests/android.sh races [N]  the races between coroutines with N runs each (100,000) instead of some thousands
#
# Needs Maven and a JDK (installed, as root, where they are missing) and the `skipstone` command.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
skipstone=${SKIPSTONE:-$CARGO_TARGET_DIR/release/skipstone}
python=$PWD/build/venv/bin/python
build=$PWD/build/android
maven="mvn --batch-mode --quiet --file android/pom.xml"

say() { printf 'android: %s\n' "$*" >&2; }

install_packages() {
    command -v mvn >/dev/null && command -v javac >/dev/null && return
    say "installing Maven and a JDK"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends maven default-jdk-headless >/dev/null
}

# The library that ships, built for this machine.
library() {
    local built=build/size
    say "building the library"
    "$python" tests/size.py --only full onnx
    mkdir -p "$build/native" "$build/native-onnx"
    cp $built/full.so "$build/native/libskipstone.so"
    cp $built/onnx.so "$build/native-onnx/libskipstone.so"
    # The bindings are generated from what the library says of itself, which stripping takes away.
    android/bindings.sh "$build/kotlin" $built/full.symbols.so
}

# A package, and what the command line sees in the sample pictures: the truth for the library's answers.
models() {
    local model=models/pretrained/simplenet-310k-cifar10.onnx
    mkdir -p "$build/models"
    "$skipstone" compile $model -o "$build/models/cifar10.skip" --target "$(uname -m)"
    "$skipstone" classify $model models/samples --top 1 --json | python3 -c '
import json, sys
for image in json.load(sys.stdin)["images"]:
    print(image["file"].rpartition("/")[2], image["top"][0]["label"])' >"$build/models/samples.txt"
}

# Android 15 and later load no library whose segments begin between pages of 16 KB.
alignment() {
    local at
    for at in $(readelf -lW "$1" | awk '$1 == "LOAD" { print $NF }'); do
        [ $((at)) -ge 16384 ] || { say "$1 has a segment at multiples of $((at))"; return 1; }
    done
    say "$(basename "$1"): segments at multiples of 16 KB"
}

tests() {
    say "compiling the library and running its tests"
    $maven test
    grep -h "Tests run" android/target/surefire-reports/*.txt
    say "running the tests of ONNX files with the library that opens them"
    $maven surefire:test -Dtest=OnnxTest -Dfeatures=onnx -Dnative="$build/native-onnx"
    grep -h "Tests run" android/target/surefire-reports/*OnnxTest.txt
    grep -h "rounds:" android/target/surefire-reports/*-output.txt
}

# Everything but the linking, which takes the NDK.
phones() {
    local target
    for target in aarch64-linux-android armv7-linux-androideabi x86_64-linux-android; do
        say "checking for $target"
        tests/cross.sh phone $target check --quiet -p skipstone-jni
    done
}

install_packages
library
models
case ${1:-tests} in
    tests)
        alignment "$build/native/libskipstone.so"
        tests
        phones
        ;;
    races) SKIPSTONE_RACES=${2:-100000} $maven test -Dtest=RaceTest ;;
    overhead)
        $maven test-compile dependency:build-classpath -Dmdep.outputFile="$build/classpath"
        java -Djava.library.path="$build/native" -Djna.library.path="$build/native" \
            -cp "android/target/classes:android/target/test-classes:$(cat "$build/classpath")" \
            dev.skipstone.OverheadKt "$build/models/cifar10.skip"
        ;;
    *)
        sed -n '2,/^set/{s/^# \{0,1\}//p}' tests/android.sh >&2
        exit 2
        ;;
esac
