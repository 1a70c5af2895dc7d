"""Count the instructions that networks of the zoo take on aarch64.

`cargo xtask python instructions.count` counts, under an emulator and with one thread, and writes counts.md; `--check`
compares with it and fails if a network takes more than 2 % more.

The count of a run is half of what `skipstone bench` executes for two additional runs, which excludes loading. The count
of a model with the same input that reads one element of it is subtracted, which excludes generating the input.
Instructions are not cycles, but they distinguish two versions of a kernel even on a busy machine, and show how close
a kernel is to the minimum. One NEON instruction does four multiply-adds.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness import driver, fill
from instructions.table import Row, Table, compare

TABLE = Table(
    Path(__file__).with_name("counts.md"),
    "Instructions of one run on aarch64 with NEON, one thread. Written by `tests/instructions/count.py`.",
    ("model", "instructions", "multiply-adds", "instructions for 4 multiply-adds"),
)
BINARY = driver.ROOT / "build/cross/target/aarch64-unknown-linux-gnu/cross/skipstone"
MODELS = ("skipnet_m", "mobilenetv3_large", "simplenet_310k", "resnet18")


def instructions(model: Path, runs: int) -> tuple[int, int]:
    """The instructions that `bench` executes in total, and the multiply-adds of one run."""
    with tempfile.NamedTemporaryFile(prefix="instructions-") as count:
        runner = driver.xtask("cross", "counter", count.name)
        skipstone = driver.Skipstone(BINARY, runner)
        options = ("--isa", "neon", "--warmup", 0, "--runs", runs, "--json", "-")
        report = json.loads(skipstone.call("bench", model, *options))
        return int(Path(count.name).read_text().removeprefix("instructions: ")), report["macs"]


def of_a_run(model: Path) -> tuple[int, int]:
    """Instructions and multiply-adds of one run, including generating its input."""
    (one, macs), (three, _) = driver.in_parallel(lambda runs: instructions(model, runs), (1, 3))
    return (three - one) // 2, macs


def of_the_input(model: Path, folder: Path) -> int:
    """Instructions for generating a run's input."""
    entry = onnx.load(model, load_external_data=False).graph.input[0]
    zeros, ones = (numpy_helper.from_array(np.full(4, value, np.int64), name) for name, value in (("from", 0), ("to", 1)))
    slice_one = helper.make_node("Slice", [entry.name, "from", "to"], ["y"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 1, 1))
    graph = helper.make_graph([slice_one], "input", [entry], [result], [zeros, ones])
    path = folder / "input.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return of_a_run(path)[0]


def count(name: str) -> Row:
    """Instructions and multiply-adds of a network of the zoo."""
    model = fill.FILLED / f"{name}.onnx"
    model = model if model.exists() else fill.fill(name)
    with tempfile.TemporaryDirectory() as folder:
        total, macs = of_a_run(model)
        return Row((name,), total - of_the_input(model, Path(folder)), macs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=MODELS, help="networks of the zoo")
    args = parser.parse_args()
    if args.only != MODELS and not args.check:
        parser.error("--only is for --check: the table holds all")

    before = TABLE.stored() if args.check else {}
    rows, failures = [], 0
    for name in args.only:
        rows.append(count(name))
        failures += not compare(rows[-1], before) and args.check
    if not args.check:
        TABLE.write(rows)
    print(f"instructions: {len(rows)} models, {failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
