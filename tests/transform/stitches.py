"""Checks `skipstone stitch` against numpy's least squares and ONNX Runtime.

Every configuration of the file must answer what its parts answer: the ends as the two models, the others as the large model
whose value at the stitch is replaced by the least-squares image of the small model's; in ONNX Runtime, in the command and as
a package.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from PIL import Image

from harness import driver, fill
from transform.pruning import RECIPE, SAMPLES, SIMPLENET, TOLERANCE, observed

# Positions of an image that the command uses for a stitch.
POSITIONS = 64


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def entry(model: onnx.ModelProto) -> str:
    held = {tensor.name for tensor in model.graph.initializer}
    return next(port.name for port in model.graph.input if port.name not in held)


def normalized(path: Path, folder: Path) -> Path:
    """The model with the preprocessing that the samples are read with."""
    model = onnx.load(path)
    held = {prop.key: prop.value for prop in model.metadata_props}
    given = {"mean": "0.5, 0.5, 0.5", "std": "0.25, 0.25, 0.25", "resize": "224", "crop": "224"}
    helper.set_model_props(model, held | {f"skipstone.{key}": value for key, value in given.items()})
    onnx.save(model, folder / path.name)
    return folder / path.name


def pictures(folder: Path, count: int, side: int) -> Path:
    """A folder with images of random gradients."""
    folder.mkdir()
    random, (y, x) = np.random.default_rng(5), np.mgrid[:side, :side][..., None] / side
    for at in range(count):
        waves = sum(np.sin(random.normal(scale=9, size=3) * x + random.normal(scale=9, size=3) * y) for _ in range(4))
        Image.fromarray((127.5 + 31 * waves).astype(np.uint8)).save(folder / f"{at:03}.png")
    return folder


def tail(model: onnx.ModelProto, value: str) -> onnx.ModelProto:
    """The part of a model behind a value, which becomes its input."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for node in model.graph.node:
        node.output[:] = ["" if name == value else name for name in node.output]
    held = {tensor.name for tensor in model.graph.initializer}
    kept, wanted = [], {port.name for port in model.graph.output}
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    del model.graph.node[:], model.graph.input[:], model.graph.value_info[:]
    model.graph.node.extend(reversed(kept))
    model.graph.input.append(helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    assert value not in held
    return model


def rows(values: np.ndarray) -> np.ndarray:
    """Positions by channels of images, no more than POSITIONS of each."""
    images, channels = values.shape[:2]
    places = values.reshape(images, channels, -1).transpose(0, 2, 1)
    count = places.shape[1]
    taken = [k * count // min(count, POSITIONS) for k in range(min(count, POSITIONS))]
    return places[:, taken].reshape(-1, channels).astype(np.float64)


def check_pair(
    skipstone: driver.Skipstone, small: Path, large: Path, points: int, images: Path, folder: Path
) -> list[str]:
    path, package = folder / "both.onnx", folder / "both.skip"
    report = json.loads(
        skipstone.call("stitch", small, large, "--calibrate", images, "--points", points, "-o", path, "--json")
    )
    both, parts = onnx.load(path), [onnx.load(small), onnx.load(large)]
    onnx.checker.check_model(both, full_check=True)
    skipstone.call("compile", path, "-o", package)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in both.graph.initializer}
    name = entry(both)
    shape = [dim.dim_value for dim in both.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    wrong, rows_of_report = [], report["configurations"]
    if len(rows_of_report) != points + 2:
        wrong.append(f"{len(rows_of_report)} configurations")
    for row in rows_of_report:
        number = row["number"]
        got = run(both, {name: image, "configuration": np.array(number, np.int64)})
        if row["large"] is None:
            want = run(parts[0 if number == 0 else 1], {entry(parts[0 if number == 0 else 1]): image})
        else:
            weights, bias = held[f"{row['large']}_weights"], held[f"{row['large']}_bias"]
            x, y = (rows(observed(part, [row[side]], images)[row[side]]) for part, side in zip(parts, ("small", "large")))
            x1 = np.c_[x, np.ones(len(x))]
            best = np.linalg.lstsq(x1, y, rcond=None)[0]
            least, spread = ((y - x1 @ best) ** 2).sum(), ((y - y.mean(0)) ** 2).sum()
            matrix = np.r_[weights.reshape(weights.shape[:2]).T, bias[None]]
            found = ((y - x1 @ matrix) ** 2).sum()
            if found > least + 1e-3 * spread or abs(found / spread - row["unexplained"]) > 1e-3:
                wrong.append(f"{number}: {found / spread:.4f} is unexplained, of least {least / spread:.4f}")
            front = helper.make_model(parts[0].graph, opset_imports=parts[0].opset_import)
            del front.graph.output[:]
            front.graph.output.append(onnx.ValueInfoProto(name=row["small"]))
            features = run(front, {entry(parts[0]): image})
            stitched = np.einsum("nihw,oi->nohw", features, matrix[:-1].T.astype(np.float32)) + bias.reshape(1, -1, 1, 1)
            want = run(tail(parts[1], row["large"]), {row["large"]: stitched})
        output = both.graph.output[0].name
        answers = {"ONNX Runtime": got}
        for file in (path, package):
            answers[file.suffix] = skipstone.run(file, {name: image}, [output], "--set", f"configuration={number}")[0]
        for where, answer in answers.items():
            problem = driver.difference(answer, want, TOLERANCE)
            wrong += [f"configuration {number}, {where}: {problem}"] if problem else []
    default = skipstone.run(path, {name: image}, [output])[0]
    problem = driver.difference(default, got, TOLERANCE)
    return wrong + ([f"the default is not the large model: {problem}"] if problem else [])


def check_refusals(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    wrong = []
    other = fill.fill("skipnet_xs")
    for arguments, expected in (
        ((SIMPLENET, other, "--calibrate", SAMPLES), "inputs"),
    ):
        try:
            skipstone.call("stitch", *arguments, "-o", folder / "refused.onnx")
            wrong.append(f"{arguments} is not refused")
        except driver.Refused as error:
            wrong += [] if expected in error.message else [f"{arguments}: {error}"]
    return wrong


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="skipstone-stitch-") as scratch:
        folder = Path(scratch)
        large = pictures(folder / "pictures", 24, 224)
        names = ("skipnet_xs", "skipnet_s", "mobilenetv3_large", "resnet18")
        xs, small, mobile, residual = (normalized(fill.fill(name), folder) for name in names)
        pairs = [
            (RECIPE, SIMPLENET, 4, SAMPLES),
            (SIMPLENET, RECIPE, 1, SAMPLES),
            (xs, small, 2, large),
            (small, residual, 1, large),
            (residual, mobile, 1, large),
        ]
        checks = [(check_pair, pair) for pair in pairs] + [(check_refusals, ())]
        for check, arguments in checks:
            try:
                wrong = check(skipstone, *arguments, folder)
            except (driver.Refused, driver.Crashed) as error:
                wrong = [str(error)]
            failed += bool(wrong)
            names = " ".join(item.stem if isinstance(item, Path) else str(item) for item in arguments)
            print(f"{'FAIL' if wrong else 'ok  '} {check.__name__.removeprefix('check_')} {names}", flush=True)
            for problem in wrong:
                print(f"     {problem}", flush=True)
    print(f"stitch: {len(checks)} checks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
