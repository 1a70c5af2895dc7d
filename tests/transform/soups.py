"""Checks `skipstone soup` against numpy, and its files against ONNX Runtime.

The models are siblings of the pretrained SimpleNet, made by adding small noise to its weights; one of them under other names,
as another exporter would call them. The mean must be numpy's, a greedy soup must leave out a sibling that is ruined, sparse
siblings must keep their zeros, and after a recalibration every convolution must have the mean and deviation of its parts.
"""

import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from harness import driver
from transform.pruning import SAMPLES, SIMPLENET, SPARSE, constants, observed, parity


def sibling(source: Path, path: Path, seed: int, noise: float = 0.02, prefix: str = "") -> Path:
    """`source` with noise on its weights, as a share of each weight, and with its tensors called otherwise."""
    model, numbers = onnx.load(source), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype in (np.float16, np.float32):
            noisy = weights * (1 + noise * numbers.standard_normal(weights.shape))
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(weights.dtype), tensor.name))
    if prefix:
        ports = {port.name for port in [*model.graph.input, *model.graph.output]}
        for tensor in model.graph.initializer:
            tensor.name = prefix + tensor.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [name if name in ports or not name else prefix + name for name in names]
        del model.graph.value_info[:]
    onnx.save(model, path)
    return path


def check_mean(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    parts = [sibling(SIMPLENET, folder / f"{i}.onnx", i, prefix="other/" if i == 2 else "") for i in range(3)]
    soup = folder / "soup.onnx"
    report = json.loads(skipstone.call("soup", *parts, "-o", soup, "--json"))
    wrong = [] if all(part["used"] for part in report["models"]) else ["a model is not in a uniform soup"]
    held = [list(constants(onnx.load(part)).values()) for part in parts]
    for at, (name, mean) in enumerate(constants(onnx.load(soup)).items()):
        if mean.dtype.kind == "f":
            want = np.mean([part[at].astype(np.float64) for part in held], axis=0)
            step = 2**-10 if mean.dtype == np.float16 else 2**-9
            if np.abs(mean - want).max() > step * np.abs(want).max():
                wrong.append(f"{name} is not the mean")
    return wrong + parity(skipstone, soup)


def check_greedy(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """The ruined sibling stands first on the command line."""
    classes = folder / "classes"
    for path in sorted(SAMPLES.glob("*.png")):
        directory = classes / path.stem.rsplit("_", 1)[0]
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, directory)
    parts = [sibling(SIMPLENET, folder / f"greedy{i}.onnx", i, noise) for i, noise in enumerate((5, 0.0, 0.01))]
    soup = folder / "greedy.onnx"
    report = json.loads(skipstone.call("soup", *parts, "--evaluate", classes, "-o", soup, "--json"))
    scores = [part["top1"] for part in report["models"]]
    judged = json.loads(skipstone.call("evaluate", soup, classes, "--json"))
    wrong = ["the ruined model is in the soup"] if report["models"][0]["used"] else []
    if report["top1"] < max(scores) or report["top1"] != judged["top1"]:
        wrong.append(f"{report['top1']}, evaluated as {judged['top1']}, of parts of {scores}")
    return wrong + parity(skipstone, soup)


def check_sparse(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    parts = [sibling(SPARSE, folder / f"sparse{i}.onnx", i) for i in range(2)]
    soup, before = folder / "sparse.onnx", constants(onnx.load(SPARSE))
    skipstone.call("soup", *parts, "-o", soup)
    after = constants(onnx.load(soup))
    zeros = [int(sum((held == 0).sum() for held in side.values())) for side in (before, after)]
    wrong = [] if zeros[1] >= zeros[0] else [f"{zeros[1]} of {zeros[0]} zeros are left"]
    moved = onnx.load(parts[1])
    for tensor in moved.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.roll(weights, 1), tensor.name))
    onnx.save(moved, folder / "moved.onnx")
    for others, expected in ((folder / "moved.onnx", "zeros"), (SIMPLENET, "sibling"), (folder / "none.onnx", "none.onnx")):
        try:
            skipstone.call("soup", parts[0], others, "-o", folder / "refused.onnx")
            wrong.append(f"{others.name} is not refused")
        except driver.Refused as error:
            wrong += [] if expected in error.message else [f"{others.name}: {error}"]
    return wrong + parity(skipstone, soup)


def check_recalibrated(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """The convolutions of SimpleNet hold its BatchNorm, and are rescaled."""
    parts = [sibling(SIMPLENET, folder / f"far{i}.onnx", i, 0.3) for i in range(2)]
    soup = folder / "recalibrated.onnx"
    skipstone.call("soup", *parts, "--calibrate", SAMPLES, "-o", soup)
    names = [node.output[0] for node in onnx.load(soup).graph.node if node.op_type == "Conv"]
    seen = [observed(onnx.load(path), names) for path in (*parts, soup)]
    wrong = []
    for name in names:
        for what, moment in (("mean", np.mean), ("deviation", np.std)):
            first, second, got = (moment(side[name].astype(np.float64), axis=(0, 2, 3)) for side in seen)
            error = np.abs(got - (first + second) / 2).max()
            # Weights are stored as f16.
            if error > 5e-3 * np.abs(got).max():
                wrong.append(f"{what} of {name} is off by {error:.2g}")
    return wrong + parity(skipstone, soup)


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="skipstone-soup-") as scratch:
        checks = [check_mean, check_greedy, check_sparse, check_recalibrated]
        for check in checks:
            wrong = check(skipstone, Path(scratch))
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {check.__name__.removeprefix('check_')}", flush=True)
            for problem in wrong:
                print(f"     {problem}", flush=True)
    print(f"soup: {len(checks)} checks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
