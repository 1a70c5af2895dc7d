"""Count the instructions that single kernels take on aarch64.

`cargo xtask python instructions.kernels` counts one call of every NEON kernel on a layer or two of its kind, under an
emulator and with one thread, and writes kernels.md; `--check` compares with it and fails if a kernel takes more than 2
% more, or is missing in either.

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
BINARY = driver.ROOT / "build/cross/target/aarch64-unknown-linux-gnu/cross/examples/instructions"


def count(binary: Path) -> list[Row]:
    """The counts of all calls."""
    with tempfile.NamedTemporaryFile(prefix="instructions-") as log:
        runner = driver.xtask("cross", "counter", log.name)
        calls = [line.split("\t") for line in driver.Skipstone(binary, runner).call("neon").splitlines()]
        marks = [int(line.removeprefix("instructions: ")) for line in Path(log.name).read_text().splitlines()]
    # Two per call, and one at the end of the program.
    if len(marks) != 2 * len(calls) + 1:
        sys.exit(f"instructions: {len(marks)} marks for {len(calls)} calls")
    ends = zip(marks[0::2], marks[1::2])
    return [Row((kernel, layer), end - start, int(work)) for (kernel, layer, work), (start, end) in zip(calls, ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    parser.add_argument("--binary", type=Path, default=BINARY, help="the program to count")
    args = parser.parse_args()

    rows, failures = count(args.binary), 0
    if args.check:
        before = TABLE.stored()
        failures += sum(not compare(row, before) for row in rows if row.executed != before.get(row.name))
        gone = before.keys() - {row.name for row in rows}
        for name in sorted(gone):
            print(*name, "is only in the table")
        failures += len(gone)
    else:
        TABLE.write(rows)
    print(f"instructions: {len(rows)} calls of kernels, {failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
