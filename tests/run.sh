#!/usr/bin/env bash
# The test command: everything that has to hold, from formatting to aarch64 under an emulator.
#
#   tests/run.sh               all sections; stops at the first that fails. Behind the builds, two lanes of sections
#                              run at the same time: the output of each comes in one piece when it is done
#   tests/run.sh parity zoo    only these sections
#
# Needs cargo (through rustup), Python 3.11 with venv, and for the aarch64 sections root, since
# they install a cross linker and qemu. Packages come from the registries that cargo, pip and
# apt are set up for.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
python=$PWD/build/venv/bin/python
skipstone=$CARGO_TARGET_DIR/release/skipstone
aarch64_target=aarch64-unknown-linux-gnu
export PYTHONDONTWRITEBYTECODE=1

environment() {
    [ -x "$python" ] || python3 -m venv build/venv
    "$python" -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
}

format() { cargo fmt --all --check; }

lint() { cargo clippy --quiet --workspace --all-targets -- -D warnings; }

rust() { cargo test --quiet --workspace; }

# What a device ships: the libraries that have never heard of ONNX.
device() {
    cargo clippy --quiet -p skipstone --no-default-features --all-targets -- -D warnings
    cargo test --quiet -p skipstone --no-default-features --lib package::
    cargo test --quiet -p skipstone --no-default-features --features signatures
    cargo test --quiet -p skipstone-ffi -p skipstone-jni
    cargo test --quiet -p skipstone-ffi --features onnx onnx_tests::
}

release() { cargo build --quiet --release -p skipstone-cli; }

zoo() {
    "$python" tests/layers.py --check
    "$python" tests/parity/zoo.py
    "$python" tests/parity/definitions.py
}

operators() { "$python" tests/parity/operators.py; }

architectures() { "$python" tests/architectures/check.py; }

conformance() { "$python" tests/conformance/nodes.py; }

malformed() { "$python" tests/malformed.py; }

# Small files that ask for much, and what SECURITY.md says of unsafe code.
bombs() { "$python" tests/bombs.py; }

security() { python3 tests/security.py; }

samples() { "$python" tests/samples.py; }

# The pretrained models: the manifest, agreement on real images, accuracy.
pretrained() { "$python" tests/pretrained.py; }

# The first of them on the whole test set.
accuracy() { "$python" tests/accuracy.py; }

# Quantized models: ONNX Runtime's and those of `skipstone quantize`.
int8() { "$python" tests/parity/int8.py; }

aarch64() {
    tests/cross.sh test --quiet -p skipstone-kernels
    tests/cross.sh test --quiet -p skipstone --no-default-features --features signatures
}

# The programs that are run under an emulator, at once: what they share is built once.
cross_programs() {
    tests/cross.sh build --quiet --profile cross --no-default-features -p skipstone-cli --bin skipstone \
        -p skipstone-kernels --example instructions
}

aarch64_zoo() {
    cross_programs
    local program=build/cross/target/$aarch64_target/cross/skipstone cpu
    for cpu in cortex-a53 max; do
        "$python" tests/parity/zoo.py --binary "$program" --runner "$(tests/cross.sh emulator $cpu)" --isa neon \
            --only skipnet_m simplenet_310k simplenet_5m simplenet_small_m1_05 mobilenetv3_large resnet18
    done
}

# Packages: of all versions of the format; on this machine and by a program without a parser on emulated phones.
package() {
    "$python" tests/golden.py
    tests/cross.sh build --quiet -p skipstone --no-default-features --example classify
    "$python" tests/package.py --device build/cross/target/$aarch64_target/debug/examples/classify
}

# Instructions of single kernels and of whole networks on aarch64, against the tables in tests/instructions.
instructions() {
    cross_programs
    "$python" tests/instructions/kernels.py --check
    "$python" tests/instructions/count.py --check
}

# The Android library on the desktop's JVM; needs the release build of the command.
android() { tests/android.sh; }

# The native library as phones get it, by the byte.
size() { "$python" tests/size.py; }

# The Swift package on Linux, and the library that it links on an iPhone.
ios() { tests/ios.sh; }

# What everything else needs, one after another.
builds=(environment format lint rust device release)
# Neither lane keeps two cores busy: one waits for the interpreter, the other for the linker, downloads and an emulator.
desktop=(zoo operators architectures conformance malformed bombs security samples pretrained accuracy int8)
phones=(android size aarch64 aarch64_zoo package instructions ios)
sections=("${builds[@]}" "${desktop[@]}" "${phones[@]}")

# `set -e` does not reach into a function that is part of a condition: hence the subshell.
section() {
    local began=$SECONDS status=0
    printf '\n== %s\n' "$1"
    set +e
    (set -e; "$1")
    status=$?
    set -e
    if [ $status -ne 0 ]; then
        printf -- '-- %s failed after %d s\n' "$1" $((SECONDS - began))
        exit 1
    fi
    printf -- '-- %s: %d s\n' "$1" $((SECONDS - began))
}

# Runs sections one after another, and shows the output of each when it is done.
lane() {
    local name output status
    for name in "$@"; do
        output=build/output/$name.txt
        status=0
        "$0" "$name" >"$output" 2>&1 || status=$?
        cat "$output"
        [ $status -eq 0 ] || return 1
    done
}

everything() {
    local name lanes
    for name in "${builds[@]}"; do
        section "$name"
    done
    mkdir -p build/output
    # Job control gives each lane a process group, so that all of it can be ended.
    set -m
    lane "${desktop[@]}" &
    lanes=-$!
    lane "${phones[@]}" &
    lanes+=" -$!"
    trap "kill -- $lanes 2>/dev/null" EXIT
    wait -n
    wait -n
    trap - EXIT
    printf '\n%d sections passed\n' ${#sections[@]}
}

if [ $# -eq 0 ]; then
    everything
    exit
fi
for name in "$@"; do
    if [[ " ${sections[*]} " != *" $name "* ]]; then
        printf 'no section "%s"; there are: %s\n' "$name" "${sections[*]}" >&2
        exit 2
    fi
done
for name in "$@"; do
    section "$name"
done
