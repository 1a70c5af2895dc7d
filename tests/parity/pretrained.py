"""Checks the trained models of models/manifest.toml: that it is complete and up to date, agreement with ONNX Runtime on
real images, accuracy, and the picture of a heat map.

Classifiers are run on 1,000 test images of their data set with `skipstone evaluate`. With `--full` all 10,000 are used,
and the accuracy must equal the manifest's, also with the other values of a model's setting. Data sets come from package
registries.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from harness import driver

from zoo import manifest
from zoo.data import images

CACHE = driver.ROOT / "build"
TOLERANCE = 1e-4
# Number of images whose outputs are compared one by one.
COMPARED = 8
# Two ways to count multiply-adds: passes merge some nodes.
COUNTED_ALIKE = 0.01
# With 1,000 images, the measured accuracy has a standard deviation of 0.9 points at 92 %.
SLACK_SAMPLE, SLACK_FULL = 3.0, 0.1


def folders(name: str, count: int) -> Path:
    """The first `count` test images of a set as PNG class folders, written once."""
    root = CACHE / name / f"first{count}"
    if sum(1 for _ in root.glob("*/*.png")) != count:
        pictures, labels = images.split(name, CACHE / name, train=False)
        for index, (picture, label) in enumerate(zip(pictures[:count], labels[:count].tolist())):
            folder = root / images.SOURCES[name].labels[label]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = picture.transpose(1, 2, 0)
            Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(folder / f"{index:05}.png")
    return root


def normalization(model: Path) -> list[np.ndarray]:
    """Mean and standard deviation of the model's input, `[3, 1, 1]`, as its metadata says."""
    told = {p.key: p.value for p in onnx.load(model).metadata_props}
    numbers = (map(float, told[key].split(",")) for key in ("skipstone.mean", "skipstone.std"))
    return [np.array(list(values)).reshape(3, 1, 1) for values in numbers]


def prepared(model: Path, name: str, count: int) -> np.ndarray:
    """The first test images as the model's input. Models with a larger input get them through the command."""
    mean, std = normalization(model)
    pictures, _ = images.split(name, CACHE / name, train=False)
    side = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[3].dim_value
    pictures = np.stack([enlarged(picture, side) for picture in pictures[:count]])
    return ((np.broadcast_to(pictures, (count, 3, side, side)) / 255 - mean) / std).astype(np.float32)


def enlarged(picture: np.ndarray, side: int) -> np.ndarray:
    """`[channels, side, side]` by bilinear interpolation."""
    if picture.shape[1] == side:
        return picture
    planes = [np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR)) for plane in picture]
    return np.stack(planes)


def tiles(model: Path, count: int) -> np.ndarray:
    """A substitute for tiles, which no registry has: gray images with structure at several scales."""
    side = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[3].dim_value
    random, total = np.random.default_rng(3), np.zeros((count, 1, side, side))
    for cells in (4, 16, side):
        at = np.arange(side) * cells // side
        total += random.standard_normal((count, 1, cells, cells))[:, :, at][:, :, :, at]
    return np.broadcast_to(0.2 * total, (count, 3, side, side)).astype(np.float32)


def heat_map(skipstone: driver.Skipstone, model: Path, session: onnxruntime.InferenceSession) -> str | None:
    """What is wrong with the picture that the command draws. It has the size of the model's input, so that every pixel
    has a value of ONNX Runtime's map of its own."""
    gray = (128 + 96 * tiles(model, 1)[0]).clip(0, 255).astype(np.uint8)
    mean, std = normalization(model)
    picture = ((gray / 255 - mean) / std).astype(np.float32)[None]
    values = session.run(["map"], {session.get_inputs()[0].name: picture})[0][0].astype(np.float64)
    heat = (values - values.min()) / (values.max() - values.min())
    color = np.concatenate([np.full_like(heat, 255), 255 * (1 - heat), np.zeros_like(heat)])
    want = gray * (1 - 0.6 * heat) + color * 0.6 * heat
    with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
        source, drawn = Path(folder) / "tile.png", Path(folder) / "map.png"
        Image.fromarray(gray.transpose(1, 2, 0)).save(source)
        skipstone.call("classify", model, source, "--map", drawn)
        got = np.asarray(Image.open(drawn)).transpose(2, 0, 1).astype(np.float64)
    if got.shape != want.shape:
        return f"the heat map's picture has the shape {got.shape}"
    # A rounding, and the difference of two runtimes.
    error = np.abs(got - want).max()
    return f"the heat map's picture differs by {error:.1f} of 255" if error > 1 else None


def chosen(skipstone: driver.Skipstone, entry: dict, session: onnxruntime.InferenceSession, x: np.ndarray) -> list[str]:
    """What is wrong with the outputs for an image with each value of the model's setting."""
    name, setting, outputs = session.get_inputs()[0].name, session.get_overridable_initializers()[0], entry["outputs"]
    dtype, wrong = {"tensor(int64)": np.int64, "tensor(float)": np.float32}[setting.type], []
    for value, *_ in entry["choices"]:
        want = session.run(outputs, {name: x, setting.name: np.array(value, dtype)})
        got = skipstone.run(manifest.PRETRAINED / entry["file"], {name: x}, outputs, "--set", f"{setting.name}={value:g}")
        problems = (driver.difference(*pair, TOLERANCE) for pair in zip(got, want, strict=True))
        wrong += [f"{setting.name} {value:g}: {problem}" for problem in problems if problem]
    return wrong


def check(skipstone: driver.Skipstone, entry: dict, full: bool) -> tuple[str, list[str]]:
    """A line about a model, and what is wrong with it."""
    path, wrong = manifest.PRETRAINED / entry["file"], []
    count, slack = (10_000, SLACK_FULL) if full else (1_000, SLACK_SAMPLE)
    now = manifest.measured(entry, None)
    for key in sorted(key for key in now.keys() | entry.keys() if now.get(key) != entry.get(key)):
        wrong.append(f"{key} is {now.get(key)}, and {entry.get(key)} in the manifest")
    classifies = entry["data"] in images.SOURCES
    inputs = prepared(path, entry["data"], COMPARED) if classifies else tiles(path, 2)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # It warns of every setting.
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, outputs = session.get_inputs()[0].name, entry["outputs"]
    for index in range(len(inputs)):
        one = {name: inputs[index : index + 1]}
        for output, got, want in zip(outputs, skipstone.run(path, one, outputs), session.run(outputs, one)):
            problem = driver.difference(got, want, TOLERANCE)
            if problem:
                wrong.append(f"image {index}, output {output}: {problem}")
    missing = manifest.REQUIRED | ({"labels", "accuracy"} if classifies else set())
    wrong += [f"{key} is missing in the manifest" for key in sorted(missing - entry.keys())]
    if "setting" not in entry:
        macs = json.loads(skipstone.call("inspect", path, "--json"))["macs"]
        if abs(macs - entry["multiply_adds"]) > COUNTED_ALIKE * macs:
            wrong.append(f"multiply_adds is {entry['multiply_adds']} in the manifest, and {macs} by `inspect`")
    if "choices" in entry:
        wrong += chosen(skipstone, entry, session, inputs[:1])
    if "map" in outputs:
        problem = heat_map(skipstone, path, session)
        wrong += [problem] if problem else []
    if not classifies:
        return "agrees with ONNX Runtime", wrong

    def right(accuracy: float, *options) -> float:
        command = ["evaluate", path, folders(entry["data"], count), "--threads", 1, "--json", *options]
        result = json.loads(skipstone.call(*command))
        share = 100 * result["top1"]
        if result["images"] != count or abs(share - accuracy) > slack:
            told = f"right on {share:.2f} % of {result['images']} images, {accuracy:.2f} % in the manifest"
            wrong.append(" ".join([told, *options]))
        return share

    if full:
        for value, accuracy, _ in entry.get("choices", []):
            right(accuracy, "--set", f"{entry['setting']}={value:g}")
    share = right(entry["accuracy"])
    return f"{share:.2f} % of {count} images ({entry['accuracy']:.2f} % in the manifest)", wrong


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--full", action="store_true", help="all test images instead of the first 1,000")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    entries = manifest.entries()
    listed, present = {entry["file"] for entry in entries}, {p.name for p in manifest.PRETRAINED.glob("*.onnx")}
    failures = [f"{name}: not in both the manifest and the folder" for name in sorted(listed ^ present)]
    for data in sorted({entry["data"] for entry in entries} & images.SOURCES.keys()):
        folders(data, 10_000 if args.full else 1_000)
    for entry, (line, wrong) in driver.in_parallel(lambda e: (e, check(skipstone, e, args.full)), entries):
        print(f"{'FAIL' if wrong else 'ok  '} {entry['file'].removesuffix('.onnx'):34} {line}", flush=True)
        failures += [f"{entry['file']}: {problem}" for problem in wrong]
    for line in failures:
        print(f"     {line}")
    print(f"pretrained: {len(entries)} models, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
