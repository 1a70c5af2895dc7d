"""Runs the test cases of the `onnx` package with `skipstone run`.

There are four suites: `node` (one operator each), `simple`, `pytorch-converted`, `pytorch-operator`.
A case passes if every data set in it gives the expected outputs. passing.txt lists the passing
cases. If one of them fails, that is a regression and this command fails; any crash fails it too.
New passes are reported. `--update` adds them to passing.txt and rewrites failures.md, which
explains every failure with the reasons of reasons.toml.

ONNX's cases pass every operand of an operator as a graph input, including axes, shapes and scales.
Skipstone plans memory before the run, so operands that determine a shape must be in the file, where
exporters put them. A case that is refused is therefore tried again with all operands but the first
as initializers, and counted in a separate column. If the first operand determines the shape too, it
also becomes an initializer.
"""

import re
import sys
import tempfile
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from harness import driver

HERE = Path(__file__).resolve().parent
PASSING, FAILURES, REASONS = HERE / "passing.txt", HERE / "failures.md", HERE / "reasons.toml"
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
SUITES = ("node", "simple", "pytorch-converted", "pytorch-operator")

# Suffix in passing.txt of a case that passes only with operands as initializers.
CONSTANT = "with-constant-operands"

# Operators whose first operand determines the shape of the result.
SHAPED_BY_FIRST = {"BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow", "MelWeightMatrix", "Unique"}

# The tolerances of ONNX's own runner; f16 carries 11 bits.
TOLERANCE = {"float16": (1e-2, 1e-3)}
DEFAULT_TOLERANCE = (1e-3, 1e-7)


class NotATensor(Exception):
    """A case whose inputs or outputs are not npy arrays."""


@dataclass
class Outcome:
    """The result of a case: `failure` is None if it passed."""

    name: str
    failure: str | None
    crashed: bool = False
    # Whether it passed only with operands as initializers.
    constant: bool = False

    @property
    def entry(self) -> str:
        """The line of a pass in passing.txt."""
        return f"{self.name} {CONSTANT}" if self.constant else self.name


def load(path: Path, value: onnx.ValueInfoProto) -> np.ndarray:
    """The tensor at `path`, declared as `value`."""
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", None):
        raise NotATensor(kind)
    tensor = onnx.TensorProto.FromString(path.read_bytes())
    type_name = onnx.TensorProto.DataType.Name(tensor.data_type)
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "biufc" or array.dtype.isbuiltin != 1:
        raise NotATensor(type_name)
    return array


def is_dynamic(value: onnx.ValueInfoProto) -> bool:
    """Whether an input's shape is not fully specified. A size of 0 means one that is not known, as some exporters write."""
    kind = value.type.tensor_type
    return not kind.HasField("shape") or any(dim.dim_value <= 0 for dim in kind.shape.dim)


def mismatch(got: np.ndarray, want: np.ndarray) -> str | None:
    """The difference between an output and the expected one; None if there is none."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"wrong type or shape: {got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    rtol, atol = TOLERANCE.get(want.dtype.name, DEFAULT_TOLERANCE)
    if want.dtype == bool:
        close = np.array_equal(got, want)
    else:
        close = np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
    return None if close else "wrong values"


def with_constants(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model with these inputs turned into initializers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    kept = [value for value in made.graph.input if value.name not in values]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    return made


def run(skipstone: driver.Skipstone, folder: Path, constant: bool) -> str | None:
    """The failure of the first failing data set of the case; with `constant`, all operands but the first are in the
    file."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    initialized = {tensor.name for tensor in model.graph.initializer}
    values = [v for v in model.graph.input if v.name not in initialized]
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = {v.name: load(file, v) for i, v in enumerate(values) if (file := data / f"input_{i}.pb").exists()}
        wanted = {v.name: load(data / f"output_{i}.pb", v) for i, v in enumerate(model.graph.output)}
        with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
            path = folder / "model.onnx"
            if constant:
                first = 0 if SHAPED_BY_FIRST & {node.op_type for node in model.graph.node} else 1
                constants = {v.name: inputs.pop(v.name) for v in values[first:] if v.name in inputs}
                path = Path(scratch) / "model.onnx"
                onnx.save(with_constants(model, constants), path)
            dynamic = [value.name for value in values if value.name in inputs and is_dynamic(value)]
            options = [f"--shape={name}={'x'.join(map(str, inputs[name].shape))}" for name in dynamic]
            got = skipstone.run(path, inputs, list(wanted), *options)
        for output, (name, want) in zip(got, wanted.items()):
            wrong = mismatch(output, want)
            if wrong:
                return f"output: {wrong} in '{name}'"
    return None


def attempt(skipstone: driver.Skipstone, folder: Path, constant: bool) -> Outcome:
    """Run one case; every kind of failure becomes one line."""
    name = f"{folder.parent.name}/{folder.name}"
    try:
        return Outcome(name, run(skipstone, folder, constant), constant=constant)
    except NotATensor as kind:
        return Outcome(name, f"npy: {kind}")
    except driver.Refused as refusal:
        return Outcome(name, f"{refusal.code}: {refusal.message}")
    except driver.Crashed as crash:
        return Outcome(name, f"crash: {crash}", crashed=True)


def outcome(skipstone: driver.Skipstone, folder: Path) -> Outcome:
    """Run one case unchanged, and with constant operands if it is refused."""
    plain = attempt(skipstone, folder, constant=False)
    if plain.failure is None or plain.crashed or not plain.failure.startswith("model."):
        return plain
    # Of two refusals, the second is about the operator.
    return attempt(skipstone, folder, constant=True)


def counts(results: list[Outcome]) -> tuple[int, int]:
    """The number that pass unchanged, and with constant operands."""
    passed = [r for r in results if r.failure is None]
    constant = sum(r.constant for r in passed)
    return len(passed) - constant, constant


def explain(outcomes: list[Outcome]) -> str:
    """failures.md: every failure in the first class of reasons.toml whose pattern it matches."""
    classes = tomllib.loads(REASONS.read_text())["class"]
    members = defaultdict(list)
    for result in outcomes:
        if result.failure:
            kind = next(c["title"] for c in classes if re.search(c["pattern"], f"{result.failure} [{result.name}]"))
            members[kind].append(result)
    lines = [
        "# Why cases of ONNX's test suites fail",
        "",
        "Written by `cargo xtask python conformance.nodes --update`; the reasons are in `reasons.toml`.",
        "",
        "| suite | cases | pass | pass with constant operands | fail |",
        "|---|---|---|---|---|",
    ]
    for suite in SUITES:
        results = [r for r in outcomes if r.name.startswith(f"{suite}/")]
        passed, constant = counts(results)
        lines.append(f"| {suite} | {len(results)} | {passed} | {constant} | {len(results) - passed - constant} |")
    for entry in classes:
        cases = members.get(entry["title"], [])
        if cases:
            lines += ["", f"## {entry['title']} ({len(cases)})", "", entry["reason"].strip(), ""]
            lines += [f"- {r.name.removeprefix('node/')}: {r.failure[:160]}" for r in cases]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--update", action="store_true", help="rewrite passing.txt and failures.md")
    parser.add_argument("--only", help="cases whose name contains this; compared, never written")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)

    folders = [model.parent for suite in SUITES for model in sorted((DATA / suite).glob("*/model.onnx"))]
    if args.only:
        folders = [folder for folder in folders if args.only in str(folder)]
    outcomes = list(driver.in_parallel(lambda folder: outcome(skipstone, folder), folders))

    kept = set(PASSING.read_text().splitlines()) if PASSING.exists() else set()
    known = {entry.split()[0] for entry in kept}
    # A case that passed unchanged must not start to need constant operands.
    regressions = [r for r in outcomes if r.name in (known if r.failure else kept) and (r.failure or r.constant)]
    crashes = [r for r in outcomes if r.crashed]
    new = [r.entry for r in outcomes if not r.failure and r.name not in kept and r.entry not in kept]
    for result in crashes:
        print(f"CRASH      {result.name}: {result.failure}")
    for result in regressions:
        print(f"REGRESSION {result.name}: {result.failure or CONSTANT}")
    for name in new:
        print(f"new pass   {name}")
    if args.only:
        for result in outcomes:
            print(f"{result.entry}: {result.failure or 'pass'}")
    if args.update and not args.only:
        PASSING.write_text("".join(f"{r.entry}\n" for r in outcomes if not r.failure))
        FAILURES.write_text(explain(outcomes))
    for suite in SUITES:
        results = [r for r in outcomes if r.name.startswith(f"{suite}/")]
        passed, constant = counts(results)
        print(f"{suite}: {passed} of {len(results)} pass, {constant} more with constant operands")
    print(f"conformance: {len(new)} new passes, {len(regressions)} regressions, {len(crashes)} crashes")
    sys.exit(bool(crashes or (regressions and not args.update)))


if __name__ == "__main__":
    main()
