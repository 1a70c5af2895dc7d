#!/usr/bin/env bash
# Swift on a machine that has none: a Debian trixie root under build/swift, and commands run in it.
#
#   tests/swift.sh setup              make the root (also done by `run`): half a minute, 2.5 GB
#   tests/swift.sh run COMMAND ...    run a command in it, in this working tree
#
# The packages come from the Debian archive that this machine's own apt uses, and nothing is
# installed on the machine itself but the tool that makes the root. Needs root.
# A command runs in a mount and process namespace of its own: whatever ends it, its mounts and
# its children go with it, and a root can be removed without looking for what is bound there.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD/build/swift/root
release=trixie
packages=swiftlang,libc6-dev

say() { printf 'swift: %s\n' "$*" >&2; }

# The archive of the running release serves the others too. apt knows it once it has lists.
mirror() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016 # apt fills it in
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $codename" | head -n 1
}

install_tool() {
    command -v mmdebstrap >/dev/null && return
    say "installing mmdebstrap"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
}

# One set-up at a time; the ones that wait find it done. A set-up cut short starts anew.
setup() {
    mkdir -p "$(dirname "$root")"
    exec 9>"$root.lock"
    flock 9
    if [ ! -e "$root" ]; then
        install_tool
        local archive
        archive=$(mirror)
        if [ -z "$archive" ]; then
            apt-get update -qq
            archive=$(mirror)
        fi
        say "making a Debian $release root with $packages"
        rm -rf "$root.partial"
        mmdebstrap --mode=root --variant=essential --include="$packages" \
            --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            "$release" "$root.partial" "${archive:?no Debian archive in the sources of apt}" </dev/null
        mv "$root.partial" "$root"
        say "done: $(du -sh "$root" | cut -f1)"
    fi
    exec 9>&-
}

run() {
    mkdir -p "$root$PWD"
    # HOME is kept in the root: the compilers' caches are of no use outside it.
    unshare --mount --propagation private --pid --fork --kill-child \
        sh -euc '
            root=$1 tree=$2
            shift 2
            mount -t proc proc "$root/proc"
            mount --rbind /dev "$root/dev"
            mount --bind "$tree" "$root$tree"
            exec chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
                sh -c '\''cd "$0" && exec "$@"'\'' "$tree" "$@"
        ' sh "$root" "$PWD" "$@" </dev/null &
    # Init of a namespace hears no signal but this one, and its children go with it.
    child=$!
    trap 'kill -KILL $child 2>/dev/null || true' EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    wait $child
}

command=${1:-}
[ $# -gt 0 ] && shift
case $command in
    setup) setup ;;
    run)
        setup
        run "${@:?a command}"
        ;;
    *)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' tests/swift.sh >&2
        exit 2
        ;;
esac
