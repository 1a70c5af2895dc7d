"""Count the instructions that single kernels take on ARM.

`cargo xtask python instructions.kernels` counts one call of every NEON kernel on a layer or two of its kind, under an
emulator and with one thread, and writes kernels.md; `--check` compares with it and fails if a kernel takes more than 2
% more, or is missing in either. With `--arm` the kernels are those of 32-bit ARM, and the scalar ones that ran there
before, and the table is kernels32.md; the program that is counted is then built as well.

The program that is counted, runtime/kernels/examples/instructions.rs, chooses the kernels and shapes: it iterates over
the kernels' tables, and marks the start and end of each call. Results are not checked here, but in the tests of each
kernel family.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from harness import driver
from instructions.table import Row, Table, compare

TABLE = Table(
    Path(__file__).with_name("kernels.md"),
    "Instructions of one call of each kernel on aarch64 with NEON, one thread. A layer is rows x columns, channels in and\n"
    "out, kernel / stride. Winograd's multiply-adds are the plain convolution's; a bottleneck's are of all its parts.\n"
    "Kernels without any are per element of the larger of input and output. Written by `tests/instructions/kernels.py`.",
    ("kernel", "layer", "instructions", "multiply-adds or elements", "instructions for 4"),
)
ARM_TABLE = Table(
    Path(__file__).with_name("kernels32.md"),
    "Instructions of one call of each kernel on 32-bit ARM, one thread: with NEON, then the scalar kernels. The rest as in\n"
    "[kernels.md](kernels.md). Written by `tests/instructions/kernels.py --arm`.",
    TABLE.columns,
)
BINARY = driver.ROOT / "build/cross/target/aarch64-unknown-linux-gnu/cross/examples/instructions"
ARM = "armv7-unknown-linux-gnueabihf"
ARM_BINARY = driver.ROOT / f"build/phones/{ARM}/cross/examples/instructions"


def build_arm() -> None:
    """Build the program for 32-bit ARM."""
    what = ("--quiet", "--profile", "cross", "--no-default-features", "-p", "skipstone-kernels", "--example", "instructions")
    driver.xtask("cross", "phone", ARM, "build", *what)


def count(binary: Path, isa: str, *options: str) -> list[Row]:
    """The counts of all calls of an instruction set's kernels."""
    with tempfile.NamedTemporaryFile(prefix="instructions-") as log:
        runner = driver.xtask("cross", "counter", log.name, *options)
        calls = [line.split("\t") for line in driver.Skipstone(binary, runner).call(isa).splitlines()]
        marks = [int(line.removeprefix("instructions: ")) for line in Path(log.name).read_text().splitlines()]
    # Two per call, and one at the end of the program.
    if len(marks) != 2 * len(calls) + 1:
        sys.exit(f"instructions: {len(marks)} marks for {len(calls)} calls")
    ends = zip(marks[0::2], marks[1::2])
    return [Row((kernel, layer), end - start, int(work)) for (kernel, layer, work), (start, end) in zip(calls, ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    parser.add_argument("--arm", action="store_true", help="the kernels of 32-bit ARM")
    parser.add_argument("--binary", type=Path, help="the program to count")
    args = parser.parse_args()

    table, failures = ARM_TABLE if args.arm else TABLE, 0
    if args.arm:
        if args.binary is None:
            build_arm()
        binary = args.binary or ARM_BINARY
        rows = [row for isa in ("neon32", "scalar") for row in count(binary, isa, "--arm")]
    else:
        rows = count(args.binary or BINARY, "neon")
    if args.check:
        before = table.stored()
        failures += sum(not compare(row, before) for row in rows if row.executed != before.get(row.name))
        gone = before.keys() - {row.name for row in rows}
        for name in sorted(gone):
            print(*name, "is only in the table")
        failures += len(gone)
    else:
        table.write(rows)
    print(f"instructions: {len(rows)} calls of kernels, {failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
