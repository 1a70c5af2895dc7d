"""The size of libskipstone.so for phones, by crate and family.

Builds the library for Linux with the options of `cargo xtask android native`: the device profile, a standard library
built from source, relocations packed and identical functions merged by lld, as with the NDK. Every build is compared
with its limit, and its bytes by crate and family with the table in `bindings/size.md`: a row that differs by more than
TOLERANCE fails.

    cargo xtask python devices.size                      every build
    cargo xtask python devices.size --only full onnx     some of them
    cargo xtask python devices.size --write              write the table of the chosen builds

The bytes of code and constants come from the symbols, which the phone's copy does not have: generic code counts where
it is written, and functions that the linker merged count once.
"""

import argparse
import gzip
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness import driver

FOLDER = driver.ROOT / "build" / "size"
# Where `cargo xtask cross phone` builds.
PHONES = driver.ROOT / "build" / "phones"
TABLE = driver.ROOT / "bindings" / "size.md"
LINK = ["-fuse-ld=lld", "-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"]
# As in xtask/src/android.rs.
FLAGS = (
    "-Zlocation-detail=none -Zfmt-debug=none -Cforce-frame-pointers=yes -Cllvm-args=-inline-threshold=20 "
    '--cfg curve25519_dalek_backend="serial" --cfg sha2_backend="soft" --cfg sha2_backend_soft="compact" '
    '--cfg feature="no_avx512" --cfg feature="no_avx2" --cfg feature="no_sse2"'
)
STANDARD_LIBRARY = "-Zbuild-std-features=panic-unwind,optimize_for_size,backtrace-trace-only"
# A row may differ by this fraction, or by this many bytes.
TOLERANCE = 0.03, 3_000
# Smaller rows are summed up.
LEAST = 4_000
NETWORK = driver.ROOT / "models" / "pretrained" / "simplenet-310k-cifar10.onnx"


@dataclass
class Build:
    """One build of the library."""

    what: str
    limit: int
    architecture: str = "x86_64"
    features: list[str] = field(default_factory=list)
    # Only the operators of NETWORK.
    subset: bool = False


BUILDS = {
    "full": Build("every operator, x86-64", 1_562_000),
    "aarch64": Build("every operator, aarch64", 1_570_000, architecture="aarch64"),
    "network": Build(
        "the operators of SimpleNet, without signatures, x86-64", 860_000, features=["--no-default-features"], subset=True
    ),
    "onnx": Build("every operator, opens ONNX files too, x86-64", 3_345_000, features=["--features", "onnx"]),
}


def linker() -> str:
    """The folder in which rustup keeps its lld, under the name that gcc looks for."""
    run = subprocess.run(["rustc", "--print", "sysroot"], cwd=driver.ROOT, capture_output=True, text=True, check=True)
    return f"-B{run.stdout.strip()}/lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld"


def operators() -> str:
    """The operators that a package of NETWORK needs."""
    skipstone = driver.Skipstone(driver.TARGET / "release" / "skipstone")
    package = FOLDER / "network.skip"
    skipstone.call("compile", NETWORK, "-o", package)
    return skipstone.call("operators", package).strip()


def build(name: str) -> tuple[Path, Path]:
    """The library with and without its symbols: NAME.symbols.so and NAME.so."""
    it = BUILDS[name]
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = f"{it.architecture}-unknown-linux-gnu"
    command = ["cross", "phone", target, "rustc", "--quiet", "--profile", "device"]
    command += ["-p", "skipstone-jni", *it.features, STANDARD_LIBRARY, "--"]
    command += [f"-Clink-arg={argument}" for argument in [linker(), *LINK]]
    environment = os.environ | {"RUSTFLAGS": FLAGS, "CARGO_PROFILE_DEVICE_STRIP": "none"}
    environment["SKIPSTONE_OPERATORS"] = operators() if it.subset else ""
    driver.xtask(*command, environment=environment)
    symbols, stripped = FOLDER / f"{name}.symbols.so", FOLDER / f"{name}.so"
    symbols.write_bytes((PHONES / target / "device" / "libskipstone.so").read_bytes())
    strip = "strip" if it.architecture == "x86_64" else f"{it.architecture}-linux-gnu-strip"
    subprocess.run([strip, "-o", stripped, symbols], check=True)
    return symbols, stripped


def family(symbol: str) -> str:
    """The crate of a symbol, and for our crates also the module."""
    path = re.search(r"\b([a-z][a-z0-9_]*)((?:::[a-z][a-z0-9_]*)*)::", symbol)
    if not path:
        return "without a name"
    crate, modules = path[1], path[2].split("::")[1:]
    depth = {"skipstone": 2, "skipstone_kernels": 1, "skipstone_onnx": 1}.get(crate, 0)
    # Two levels for modules with many submodules.
    modules = modules[: depth if modules[:1] in (["ops"], ["onnx"]) else min(depth, 1)]
    return "::".join([crate, *modules])


def rows(library: Path) -> Counter[str]:
    """Bytes by family, and of sections that belong to none."""
    table = subprocess.run(["nm", "-S", "-C", library], capture_output=True, text=True, check=True).stdout
    sizes: Counter[str] = Counter()
    seen = set()
    for line in table.splitlines():
        # Symbols without a size, or not in a section of the file, are not counted.
        entry = re.fullmatch(r"([0-9a-f]+) ([0-9a-f]+) [tTrRdDwWvV] (.*)", line)
        if entry and entry[1] not in seen:
            seen.add(entry[1])
            sizes[family(entry[3])] += int(entry[2], 16)
    headers = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    for name, size in re.findall(r"\] (\.\S+) +\w+ +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+)", headers):
        if name in (".eh_frame", ".eh_frame_hdr", ".gcc_except_table"):
            sizes["unwind tables"] += int(size, 16)
        elif name in (".rel.dyn", ".rela.dyn", ".relr.dyn", ".dynsym", ".dynstr"):
            sizes["relocations and exported names"] += int(size, 16)
    return sizes


def summed(sizes: Counter[str]) -> dict[str, int]:
    """The large rows by name, and the rest of each crate in one row."""
    summed: Counter[str] = Counter()
    for row, size in sizes.items():
        crate, _, module = row.partition("::")
        summed[row if size >= LEAST else f"{crate}, the rest" if module else "other crates"] += size
    return dict(summed)


def text(tables: dict[str, dict[str, int]], totals: dict[str, tuple[int, int]]) -> str:
    """The table as Markdown."""
    lines = ["# What the device library holds", ""]
    lines += ["Bytes of `libskipstone.so`, stripped; written by `cargo xtask python devices.size --write` and checked by the tests.", ""]
    lines += ["| build | | bytes | gzip |", "|---|---|---:|---:|"]
    lines += [f"| {name} | {BUILDS[name].what} | {size:,} | {zipped:,} |" for name, (size, zipped) in totals.items()]
    lines += ["", f"By crate and family; of at least {LEAST:,} bytes.", ""]
    lines += ["| | " + " | ".join(tables) + " |", "|---|" + "---:|" * len(tables)]
    largest = {row: max(table.get(row, 0) for table in tables.values()) for table in tables.values() for row in table}
    for row in sorted(largest, key=lambda row: -largest[row]):
        cells = [f"{table[row]:,}" if row in table else "" for table in tables.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def stored() -> dict[str, dict[str, int]]:
    """The rows of TABLE for each build."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    grid = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    at = next((i for i, cells in enumerate(grid) if cells[0] == "" and set(cells[1:]) & set(BUILDS)), len(grid))
    if at == len(grid):
        return {}
    builds, rows = grid[at][1:], grid[at + 2 :]
    return {build: {row[0]: int(row[i].replace(",", "") or 0) for row in rows} for i, build in enumerate(builds, 1)}


def outdated(tables: dict[str, dict[str, int]]) -> list[str]:
    """The rows of the table that are out of date."""
    wrong = []
    for build, then in stored().items():
        now = tables.get(build, then)
        for row in sorted(now.keys() | then.keys()):
            new, old = now.get(row, 0), then.get(row, 0)
            # A small row may have been summed up in one of the two.
            if abs(new - old) > max(TOLERANCE[0] * old, TOLERANCE[1]) and max(new, old) > LEAST + TOLERANCE[1]:
                wrong.append(f"{build}, {row}: {new:,} now, {old:,} in {TABLE.name}; size.py --write updates it")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BUILDS, nargs="+", default=list(BUILDS))
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(driver.ROOT)}")
    args = parser.parse_args()
    tables, totals = {}, {}
    for name in args.only:
        symbols, stripped = build(name)
        tables[name] = summed(rows(symbols))
        totals[name] = stripped.stat().st_size, len(gzip.compress(stripped.read_bytes(), 9))
        print(f"{name} ({BUILDS[name].what}): {totals[name][0]:,} bytes, of at most {BUILDS[name].limit:,}", flush=True)
    failed = [f"{name} is larger than its limit" for name, (size, _) in totals.items() if size > BUILDS[name].limit]
    written = text(tables, totals)
    print(written)
    if args.write:
        TABLE.write_text(written)
    failed += outdated(tables)
    for reason in failed:
        print(f"size: {reason}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
