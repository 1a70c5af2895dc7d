"""Compares every network of the zoo with ONNX Runtime: each instruction set, one and two threads, `--memory` fast and
small, and f16 weights.

The bound is 1e-4 of the largest output, or 2e-2 with f16 weights, where rounding alone causes 1e-2 in a deep network
(the kernels' own tests use weights that are exact in f16). The largest logit must be the same. No step may be a
fallback.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from harness import driver, fill

TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2
ISAS = ("scalar", "avx2", "avx512", "neon")


def reference(model: Path) -> tuple[dict[str, np.ndarray], list[str], list[np.ndarray]]:
    """A seeded input, the names of the outputs, and ONNX Runtime's outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    inputs = {entry.name: fill.image(entry.shape[2], seed=5)}
    names = [output.name for output in session.get_outputs()]
    return inputs, names, session.run(names, inputs)


def check(skipstone: driver.Skipstone, model: Path, isas: list[str], threads: list[int]) -> tuple[list[str], list[str]]:
    """What was run, and the failures."""
    inputs, names, wanted = reference(model)
    ran, failures = [], []
    for isa in isas:
        try:
            foreign = [s["name"] for s in skipstone.inspect(model, "--isa", isa)["steps"] if s["kernel"] == "fallback"]
            if foreign:
                failures.append(f"{model.stem}, {isa}: fallback steps: {', '.join(foreign)}")
            ways = [(f"x{count}", ["--threads", count], TOLERANCE) for count in threads]
            ways.append(("small", ["--memory", "small"], TOLERANCE))
            ways.append(("f16", ["--precision", "f16"], HALF_TOLERANCE))
            for way, options, tolerance in ways:
                outputs = skipstone.run(model, inputs, names, "--isa", isa, *options)
                ran.append(f"{isa} {way}")
                for name, got, want in zip(names, outputs, wanted):
                    wrong = driver.difference(got, want, tolerance)
                    if not wrong and got.argmax() != want.argmax():
                        wrong = f"top-1 is {got.argmax()} instead of {want.argmax()}"
                    if wrong:
                        failures.append(f"{model.stem}, {isa}, {way}, output {name}: {wrong}")
        except driver.Refused as refusal:
            if refusal.code != "isa":
                failures.append(f"{model.stem}, {isa}: {refusal}")
        except driver.Crashed as crash:
            failures.append(f"{model.stem}, {isa}: crash: {crash}")
    if not ran and not failures:
        failures.append(f"{model.stem}: no instruction set is available")
    return ran, failures


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models of the zoo")
    parser.add_argument("--isa", nargs="+", default=list(ISAS), help="default: all that the CPU has")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)

    failures = []
    models = [fill.fill(name) for name in args.only or fill.names()]
    if not args.only:
        models += sorted((driver.ROOT / "models" / "pretrained").glob("*.onnx"))
    for model, (ran, wrong) in driver.in_parallel(
        lambda model: (model, check(skipstone, model, args.isa, args.threads)), models
    ):
        print(f"{'FAIL' if wrong else 'ok  '} {model.stem:26} {', '.join(ran)}", flush=True)
        for line in wrong:
            print(f"     {line}", flush=True)
        failures += wrong
    print(f"zoo parity: {len(models)} models, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
