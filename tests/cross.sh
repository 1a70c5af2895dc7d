#!/usr/bin/env bash
# Runs the tests for aarch64 on an x86-64 machine, under qemu: the NEON kernels are executed,
# not just compiled.
#
#   tests/cross.sh setup                      fetch the toolchain (also done by the others)
#   tests/cross.sh test  [cargo test args]    cargo test, once for each CPU in SKIPSTONE_QEMU_CPUS
#   tests/cross.sh build [cargo build args]   cargo build
#   tests/cross.sh phone TARGET [cargo args]  cargo for a phone's target, with the standard library built from source
#   tests/cross.sh emulator CPU               the command that runs an aarch64 program on that CPU
#   tests/cross.sh counter FILE               the command that runs one and writes the number of its instructions, and
#                                             those at the marks that it makes (tests/instructions/count.c)
#
# rustup has no aarch64 standard library here, so compiler and library both come from Debian
# (package rustc-web), unpacked under build/cross and never installed: the system keeps its
# own Rust. gcc's cross linker and qemu are installed as packages, which needs root.
# `cortex-a53` is plain NEON; `max` has every extension that qemu knows.
# For phones there is no library at all, and no linker: what needs none (check, static libraries)
# is built with the library's own source.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
cross=$PWD/build/cross
cpus=${SKIPSTONE_QEMU_CPUS:-cortex-a53 max}

say() { printf 'cross: %s\n' "$*" >&2; }

install_packages() {
    local missing=()
    command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# apt with a state of its own: it knows both architectures without telling the system's.
private_apt() {
    local state=$cross/apt
    mkdir -p "$state"/{lists/partial,cache/archives/partial}
    touch "$state/status"
    cat >"$state/apt.conf" <<CONF
Dir::State "$state";
Dir::State::status "$state/status";
Dir::Cache "$state/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
    local tool=$1
    shift
    APT_CONFIG=$state/apt.conf "$tool" "$@"
}

# The packages that `$1` depends on and whose name matches `$2`: their names hold versions.
depends_on() {
    private_apt apt-cache depends "$1" | sed -n 's/.*Depends: //p' | grep -E "^$2" | sort -u
}

unpack_rust() {
    [ -e "$cross/rust/.complete" ] && return
    say "reading the package lists"
    private_apt apt-get update -qq
    local library llvm
    library=$(depends_on libstd-rust-web-dev 'libstd-rust-web-[0-9.]+$')
    llvm=$(depends_on "$library" 'libllvm[0-9]+$')
    local packages=(rustc-web "$library" libstd-rust-web-dev libstd-rust-web-dev:arm64 "$llvm")
    say "fetching ${packages[*]}"
    rm -rf "$cross/debs" "$cross/rust"
    mkdir -p "$cross/debs" "$cross/rust"
    (cd "$cross/debs" && private_apt apt-get download -qq "${packages[@]}")
    local deb
    for deb in "$cross"/debs/*.deb; do
        say "unpacking $(basename "$deb")"
        dpkg -x "$deb" "$cross/rust"
    done
    rm -r "$cross/debs"
    touch "$cross/rust/.complete"
}

# The source of the standard library, without the compiler's that comes with it.
unpack_library() {
    [ -e "$cross/rust/.library" ] && return
    say "fetching rust-web-src"
    mkdir -p "$cross/debs"
    (cd "$cross/debs" && private_apt apt-get download -qq rust-web-src)
    dpkg --fsys-tarfile "$cross"/debs/rust-web-src_*.deb |
        tar -x -C "$cross/rust" --wildcards './usr/lib/rustlib/src' './usr/src/rustc-*/library' './usr/src/rustc-*/Cargo.*'
    rm -r "$cross/debs"
    touch "$cross/rust/.library"
}

# One set-up at a time; the ones that wait find it done.
setup() {
    mkdir -p "$cross"
    exec 9>"$cross/lock"
    flock 9
    install_packages
    unpack_rust
    if [ "${1:-}" = library ]; then unpack_library; fi
    exec 9>&-
}

# rustc is a wrapper because LD_LIBRARY_PATH must not reach cargo's other children.
environment() {
    local tool
    mkdir -p "$cross/bin"
    for tool in rustc rustdoc; do
        [ -x "$cross/bin/$tool" ] && continue
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
            "$cross/rust/usr/lib/x86_64-linux-gnu" "$cross/rust/usr/bin/$tool" >"$cross/bin/$tool.$$"
        chmod +x "$cross/bin/$tool.$$"
        mv "$cross/bin/$tool.$$" "$cross/bin/$tool"
    done
    export RUSTC=$cross/bin/rustc RUSTDOC=$cross/bin/rustdoc
    export CARGO_TARGET_DIR=${SKIPSTONE_CROSS_TARGET:-$cross/target}
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
}

# The plain emulator takes plugins, the static one does not.
counter() {
    local plugin=$cross/count.so source=tests/instructions/count.c
    if ! command -v qemu-aarch64 >/dev/null; then
        say "installing qemu-user"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user >/dev/null
    fi
    if [ "$source" -nt "$plugin" ]; then
        gcc -O1 -Wall -Wextra -Werror -shared -fPIC -o "$plugin.$$" "$source"
        mv "$plugin.$$" "$plugin"
    fi
    echo "qemu-aarch64 -cpu max -plugin $plugin -d plugin -D $1 -L /usr/aarch64-linux-gnu"
}

emulator() { echo "qemu-aarch64-static -cpu $1 -L /usr/aarch64-linux-gnu"; }

command=${1:-}
[ $# -gt 0 ] && shift
case $command in
    setup) setup ;;
    build)
        setup
        environment
        cargo build --target $target "$@"
        ;;
    test)
        setup
        environment
        for cpu in $cpus; do
            say "cargo test on $cpu"
            SKIPSTONE_EMULATED=1 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$(emulator "$cpu") cargo test --target $target "$@"
        done
        ;;
    phone)
        target=${1:?a target, such as aarch64-apple-ios}
        subcommand=${2:?a cargo command}
        shift 2
        setup library
        environment
        # Apple's targets ask for an SDK even where nothing is linked.
        mkdir -p "$cross/iPhoneOS.sdk"
        export SDKROOT=$cross/iPhoneOS.sdk IPHONEOS_DEPLOYMENT_TARGET=16.0 RUSTC_BOOTSTRAP=1
        # The part of blake3 that is in C wants a compiler and headers for the phone: the one in Rust instead.
        [[ $target == *-linux-gnu ]] || export CARGO_FEATURE_PURE=1
        cargo "$subcommand" -Zbuild-std=std,panic_unwind --target "$target" "$@"
        ;;
    emulator) emulator "${1:?a CPU, such as max}" ;;
    counter)
        setup
        counter "${1:?a file to write to}"
        ;;
    *)
        sed -n '2,/^set/{s/^# \{0,1\}//p}' tests/cross.sh >&2
        exit 2
        ;;
esac
