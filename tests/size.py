"""The size of libskipstone.so as a phone gets it, for x86-64 and aarch64, and what takes it.

Builds the library for Linux with the options of `android/native.sh`: the device profile, a standard library of its own,
relocations packed and like functions merged by lld, as with the NDK. Prints a table by crate, from the symbols that a
phone's copy is stripped of. Fails where a library is larger than LIMIT.

    python3 tests/size.py [--only x86_64]
"""

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1_500_000
ARCHITECTURES = {"x86_64": "", "aarch64": "aarch64-linux-gnu-"}
LINK = ["-fuse-ld=lld", "-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"]


def linker() -> str:
    """Where rustup keeps its lld, under the name by which gcc looks for it."""
    run = subprocess.run(["rustc", "--print", "sysroot"], cwd=ROOT, capture_output=True, text=True, check=True)
    return f"-B{run.stdout.strip()}/lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld"


def build(architecture: str) -> Path:
    """The library with its symbols."""
    target = f"{architecture}-unknown-linux-gnu"
    folder = ROOT / "build" / "size"
    command = [ROOT / "tests" / "cross.sh", "phone", target, "rustc", "--profile", "device"]
    command += ["-p", "skipstone-jni", "-Zbuild-std-features=panic-unwind,optimize_for_size", "--"]
    command += [f"-Clink-arg={argument}" for argument in [linker(), *LINK]]
    flags = '-Zlocation-detail=none -Zfmt-debug=shallow --cfg curve25519_dalek_backend="serial"'
    environment = os.environ | {"RUSTFLAGS": flags, "CARGO_PROFILE_DEVICE_STRIP": "none", "SKIPSTONE_CROSS_TARGET": str(folder)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder / target / "device" / "libskipstone.so"


def crates(library: Path) -> Counter[str]:
    """Bytes of code and constants by the crate that a symbol is of; generic code counts where it is written."""
    table = subprocess.run(["nm", "-S", "-C", library], capture_output=True, text=True, check=True).stdout
    sizes: Counter[str] = Counter()
    for line in table.splitlines():
        # Without a size, or in no section of a file: not counted.
        entry = re.fullmatch(r"[0-9a-f]+ ([0-9a-f]+) [tTrRdDwWvV] (.*)", line)
        if entry:
            crate = re.search(r"\b([a-z][a-z0-9_]*)::", entry[2])
            sizes[crate[1] if crate else "without a name"] += int(entry[1], 16)
    return sizes


def report(architecture: str, prefix: str) -> int:
    library = build(architecture)
    stripped = library.with_name("stripped.so")
    subprocess.run([f"{prefix}strip", "-o", stripped, library], check=True)
    size = stripped.stat().st_size
    print(f"\n{architecture}: {size:,} bytes stripped, of at most {LIMIT:,}")
    for crate, taken in crates(library).most_common(12):
        print(f"  {taken:>9,}  {crate}")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARCHITECTURES)
    only = parser.parse_args().only
    sizes = {name: report(name, prefix) for name, prefix in ARCHITECTURES.items() if only in (None, name)}
    sys.exit(any(size > LIMIT for size in sizes.values()))


if __name__ == "__main__":
    main()
