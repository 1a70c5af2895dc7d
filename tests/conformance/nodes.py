"""ONNX's own test cases, as the `onnx` package carries them, through `skipstone run`.

Four suites: `node` (one operator each), `simple`, `pytorch-converted`, `pytorch-operator`. A
case passes when every data set in it gives the expected outputs. The passing cases are kept
in passing.txt: one of them failing is a regression and fails this command, and so does a crash
anywhere. New passes are reported, and written down with `--update`, which also rewrites
failures.md: why what fails fails, with the reasons of reasons.toml.
"""

import re
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import driver

HERE = Path(__file__).resolve().parent
PASSING, FAILURES, REASONS = HERE / "passing.txt", HERE / "failures.md", HERE / "reasons.toml"
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
SUITES = ("node", "simple", "pytorch-converted", "pytorch-operator")

# The tolerances of ONNX's own runner; f16 carries 11 bits.
TOLERANCE = {"float16": (1e-2, 1e-3)}
DEFAULT_TOLERANCE = (1e-3, 1e-7)


class NotATensor(Exception):
    """A case whose inputs or outputs are no npy arrays."""


@dataclass
class Outcome:
    """How a case ended: `failure` is None for a pass."""

    name: str
    failure: str | None
    crashed: bool = False


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
    """Whether an input's shape is not fully given."""
    kind = value.type.tensor_type
    return not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in kind.shape.dim)


def mismatch(got: np.ndarray, want: np.ndarray) -> str | None:
    """What separates an output from the expected one."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"wrong type or shape: {got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    rtol, atol = TOLERANCE.get(want.dtype.name, DEFAULT_TOLERANCE)
    if want.dtype == bool:
        close = np.array_equal(got, want)
    else:
        close = np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
    return None if close else "wrong values"


def run(skipstone: driver.Skipstone, folder: Path) -> str | None:
    """What is wrong with the first failing data set of the case."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    initialized = {tensor.name for tensor in model.graph.initializer}
    for data in sorted(folder.glob("test_data_set_*")):
        values = [v for v in model.graph.input if v.name not in initialized]
        inputs, options = {}, []
        for index, value in enumerate(values):
            file = data / f"input_{index}.pb"
            if not file.exists():
                continue
            inputs[value.name] = load(file, value)
            if is_dynamic(value):
                options += ["--shape", f"{value.name}={'x'.join(map(str, inputs[value.name].shape))}"]
        wanted = {v.name: load(data / f"output_{i}.pb", v) for i, v in enumerate(model.graph.output)}
        got = skipstone.run(folder / "model.onnx", inputs, list(wanted), *options)
        for output, (name, want) in zip(got, wanted.items()):
            wrong = mismatch(output, want)
            if wrong:
                return f"output: {wrong} in '{name}'"
    return None


def outcome(skipstone: driver.Skipstone, folder: Path) -> Outcome:
    """Run one case; every way to fail becomes one line."""
    name = f"{folder.parent.name}/{folder.name}"
    try:
        return Outcome(name, run(skipstone, folder))
    except NotATensor as kind:
        return Outcome(name, f"npy: {kind}")
    except driver.Refused as refusal:
        return Outcome(name, f"{refusal.code}: {refusal.message}")
    except driver.Crashed as crash:
        return Outcome(name, f"crash: {crash}", crashed=True)


def explain(outcomes: list[Outcome]) -> str:
    """failures.md: every failure in the first class of reasons.toml whose pattern it matches."""
    classes = tomllib.loads(REASONS.read_text())["class"]
    members = defaultdict(list)
    for result in outcomes:
        if result.failure:
            kind = next(c["title"] for c in classes if re.search(c["pattern"], result.failure))
            members[kind].append(result)
    lines = [
        "# Why cases of ONNX's test suites fail",
        "",
        "Written by `python tests/conformance/nodes.py --update`; the reasons are in `reasons.toml`.",
        "",
        "| suite | cases | pass | fail |",
        "|---|---|---|---|",
    ]
    for suite in SUITES:
        results = [r for r in outcomes if r.name.startswith(f"{suite}/")]
        passed = sum(r.failure is None for r in results)
        lines.append(f"| {suite} | {len(results)} | {passed} | {len(results) - passed} |")
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
    outcomes = driver.in_parallel(lambda folder: outcome(skipstone, folder), folders)

    kept = set(PASSING.read_text().split()) if PASSING.exists() else set()
    regressions = [r for r in outcomes if r.failure and r.name in kept]
    crashes = [r for r in outcomes if r.crashed]
    new = [r.name for r in outcomes if not r.failure and r.name not in kept]
    for result in crashes:
        print(f"CRASH      {result.name}: {result.failure}")
    for result in regressions:
        print(f"REGRESSION {result.name}: {result.failure}")
    for name in new:
        print(f"new pass   {name}")
    if args.only:
        for result in outcomes:
            print(f"{result.name}: {result.failure or 'pass'}")
    if args.update and not args.only:
        PASSING.write_text("".join(f"{r.name}\n" for r in outcomes if not r.failure))
        FAILURES.write_text(explain(outcomes))
    for suite in SUITES:
        results = [r for r in outcomes if r.name.startswith(f"{suite}/")]
        print(f"{suite}: {sum(r.failure is None for r in results)} of {len(results)} pass")
    print(f"conformance: {len(new)} new passes, {len(regressions)} regressions, {len(crashes)} crashes")
    sys.exit(bool(crashes or (regressions and not args.update)))


if __name__ == "__main__":
    main()
