"""Compares the small networks of models/definitions with PyTorch's outputs: in ONNX Runtime, as ONNX files in the
command, and as packages.

Networks that cannot run yet because a kernel is missing are listed with the expected error code. Once such a network
runs, its outputs are compared, and a line says that the entry can be removed.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from harness import driver

FOLDER = driver.ROOT / "models" / "definitions"
TOLERANCE = 1e-4

# (network, way) -> code of the refusal; all run now.
NOT_YET = {}


def stored(model: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and PyTorch's outputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(model.with_suffix(".npz")) as arrays:
        inputs = {entry.name: arrays[entry.name] for entry in session.get_inputs()}
        outputs = {entry.name: arrays[entry.name] for entry in session.get_outputs()}
        for name, got in zip(outputs, session.run(list(outputs), inputs)):
            wrong = driver.difference(got, outputs[name], TOLERANCE)
            if wrong:
                raise AssertionError(f"ONNX Runtime, output {name}: {wrong}")
        return inputs, outputs


def check(skipstone: driver.Skipstone, model: Path) -> list[str]:
    """The failures, one per line."""
    inputs, outputs = stored(model)
    failures = []

    def attempt(way: str, work) -> None:
        expected = NOT_YET.get((model.stem, way))
        try:
            got = dict(zip(outputs, work()))
        except driver.Refused as refusal:
            if refusal.code != expected:
                failures.append(f"{way}: refused: {refusal}")
            return
        except driver.Crashed as crash:
            failures.append(f"{way}: crash: {crash}")
            return
        if expected:
            print(f"     {model.stem}, {way}: runs now: remove it from the list", flush=True)
        for name, want in outputs.items():
            wrong = driver.difference(got[name], want, TOLERANCE)
            if wrong:
                failures.append(f"{way}, output {name}: {wrong}")

    def package() -> list[np.ndarray]:
        with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
            path = Path(folder) / "model.skip"
            skipstone.call("compile", model, "-o", path)
            return skipstone.run(path, inputs, list(outputs))

    attempt("command", lambda: skipstone.run(model, inputs, list(outputs)))
    attempt("package", package)
    return failures


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    models = sorted(FOLDER.glob("*.onnx"))
    if args.only:
        models = [model for model in models if model.stem in args.only]
    count = 0
    for model, wrong in driver.in_parallel(lambda model: (model, check(skipstone, model)), models):
        print(f"{'FAIL' if wrong else 'ok  '} {model.stem}", flush=True)
        for line in wrong:
            print(f"     {line}", flush=True)
        count += len(wrong)
    print(f"definitions: {len(models)} networks, {count} failures, {len(NOT_YET)} not yet")
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
