"""Random small graphs over all operators, drawn from their schemas, against ONNX Runtime or ONNX's reference evaluator.

What a case is follows from its number alone, so that it can be repeated:

    cargo xtask python fuzz.check --count 100000             many of them
    cargo xtask python fuzz.check --only Resize Conv --count 500
    cargo xtask python fuzz.check --number 4711 --keep FOLDER

A case agrees, is refused by name, differs, or crashes; the last two are failures.
"""

import re
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from fuzz.case import BRANCH, SUFFIX, Case, Maker, missing
from harness import driver

TOLERANCES = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-6}
COARSE = {"bfloat16": 3e-2, "float16": 1e-2}
# Numbers that are about to overflow.
LARGE = 1e4


@dataclass
class Outcome:
    """What became of a case."""

    number: int
    # agree, refused, differ, crash or none (no valid graph).
    kind: str
    operators: list[str]
    text: str = ""
    # Why there is no package of it.
    unpacked: str = ""


def tolerance(case: Case) -> float | None:
    """The coarsest of the types in it; None for the usual one."""
    types = {value.array.dtype.name for node in case.nodes for value in node.results}
    types |= {array.dtype.name for node in case.nodes for array in node.own()}
    return max((COARSE[name] for name in types if name in COARSE), default=None)


def check(skipstone: driver.Skipstone, number: int, args, folder: Path) -> Outcome:
    """Makes a case and runs it; some on two threads, some with the plain kernels, some as packages."""
    case = Maker(args.seed, number, args.only, args.open_length).make()
    if case is None:
        return Outcome(number, "none", [])
    path = folder / f"case_{number}.onnx"
    onnx.save(case.model, path)
    result = Outcome(number, "agree", [node.proto.op_type for node in case.nodes])
    options = ["--threads", 1 + number % 2, *(["--isa", "scalar"] if number % 5 == 1 else [])]
    try:
        wrong = compare(case, skipstone.run(path, case.inputs, list(case.wanted), *options))
        if number % 10 == 0 and not wrong:
            wrong = as_package(skipstone, case, path, result)
        if wrong:
            result.kind, result.text = "differ", wrong
    except driver.Crashed as crash:
        result.kind, result.text = "crash", str(crash)
    except driver.Refused as refusal:
        result.kind, result.text = "refused", str(refusal)
    return result


def as_package(skipstone: driver.Skipstone, case: Case, path: Path, result: Outcome) -> str | None:
    """What is wrong with the results of the package of a model. That there is none is noted, but not wrong."""
    package = path.with_suffix(".skip")
    shapes = [f"--shape={name}={'x'.join(map(str, array.shape))}" for name, array in case.inputs.items() if array.ndim]
    try:
        skipstone.call("compile", path, "-o", package, *shapes)
    except driver.Refused as refusal:
        result.unpacked = str(refusal)
        return None
    try:
        wrong = compare(case, skipstone.run(package, case.inputs, list(case.wanted)))
        return wrong and f"as a package: {wrong}"
    finally:
        package.unlink()


def compare(case: Case, results: list[np.ndarray]) -> str | None:
    """The first difference."""
    coarse = tolerance(case)
    for (name, want), got in zip(case.wanted.items(), results):
        allowed = coarse or TOLERANCES.get(want.dtype.name, 1e-4)
        if source(case, name) in ("LSTM", "GRU", "RNN") and np.abs(want.astype(np.float64)).max(initial=0) > LARGE:
            continue  # ONNX Runtime limits them to finite numbers
        wrong = driver.difference(got, want, allowed, 1e-6 if allowed < 1e-3 else allowed / 10)
        if wrong and not is_next_step(case, name, got, want):
            return f"{name} of {source(case, name)}: {wrong}"
    return None


def is_next_step(case: Case, name: str, got: np.ndarray, want: np.ndarray) -> bool:
    """Whether hardly any element of a quantized result is the next integer: its float is halfway, but for the rounding of
    sums in another order."""
    quantized = source(case, name).startswith(("QLinear", "QGemm"))
    if not quantized or got.shape != want.shape or got.dtype != want.dtype or want.dtype.kind not in "iu":
        return False
    apart = np.abs(got.astype(np.int64) - want.astype(np.int64))
    return apart.max() <= 1 and np.count_nonzero(apart) <= 1 + want.size // 100


def source(case: Case, name: str) -> str:
    """The operator that computes a result, and who says what it should be."""
    name = name.removesuffix(BRANCH).removesuffix(SUFFIX)
    node = next(node for node in case.nodes if name in [value.name for value in node.results])
    return node.proto.op_type + ("" if node.runtime else " (by the reference evaluator)")


def reason(text: str) -> str:
    """A refusal without numbers, and with the operators of nodes instead of their names."""
    text = re.sub(r"'([A-Z]\w+)_\d+'", r"\1", text)
    text = re.sub(r"'[^']*'", "'.'", text)
    return re.sub(r"-?\d+(\.\d+)?", "N", text)[:150]


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--count", type=int, default=2000, help="random graphs")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--number", type=int, help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="OPERATOR", default=[], help="default: all")
    parser.add_argument("--open-length", type=float, default=0.05, help="how often a length depends on data")
    parser.add_argument("--keep", type=Path, help="folder to write the graphs to")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    onnxruntime.set_default_logger_severity(4)
    if missing():
        sys.exit(f"operators without a recipe: {', '.join(missing())}")

    numbers = range(args.first, args.first + args.count) if args.number is None else [args.number]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for outcome in driver.in_parallel(lambda n: check(skipstone, n, args, folder), numbers):
            outcomes.append(outcome)
            if outcome.kind in ("differ", "crash"):
                print(f"{outcome.kind.upper()} #{outcome.number} {'+'.join(outcome.operators)}: {outcome.text}", flush=True)
            if not args.keep:
                (folder / f"case_{outcome.number}.onnx").unlink(missing_ok=True)
    refusals = defaultdict(list)
    for outcome in outcomes:
        if outcome.kind == "refused":
            refusals[reason(outcome.text)].append(outcome.number)
    for text, numbers in sorted(refusals.items(), key=lambda item: -len(item[1])):
        print(f"refused {len(numbers)}, the first is #{numbers[0]}: {text}")
    for text, count in Counter(reason(o.unpacked) for o in outcomes if o.unpacked).most_common():
        print(f"no package {count}: {text}")
    kinds = Counter(outcome.kind for outcome in outcomes)
    told = (f"{kinds[kind]} {kind}" for kind in ("agree", "refused", "differ", "crash", "none"))
    print(f"random graphs: {len(outcomes)}, {', '.join(told)}")
    sys.exit(bool(kinds["differ"] + kinds["crash"]))


if __name__ == "__main__":
    main()
