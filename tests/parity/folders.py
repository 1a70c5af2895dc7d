"""Checks how the recipes read a folder of images against how `skipstone classify` prepares a picture for the trained model:
the mean of every channel of images of many sizes, and the refusals of folders that cannot be learned from."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from harness import driver

from zoo.data import folder, images
from zoo.proto import describe

SIDE = 24
SIZES = ((24, 24), (31, 24), (24, 57), (7, 9), (100, 61), (61, 100), (1, 3))
# Of 255; the mean of a channel, prepared by two programs.
TOLERANCE = 0.5


def means(path: Path, source: images.Source) -> None:
    """A model whose three outputs are the means of its normalized channels."""
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "means", [value("x", [1, 3, SIDE, SIDE])], [value("z", [1, 3])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = {"mean": source.mean, "std": source.std}
    metadata = {key: ",".join(map(str, values)) for key, values in told.items()}
    describe(proto, metadata | {"labels": "0\n1\n2", "resize": SIDE, "crop": SIDE, "activation": "none"})
    onnx.save(proto, path)


def refused(root: Path) -> str:
    try:
        images.load(str(root), root, SIDE)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone, random, wrong = driver.Skipstone(args.binary, args.runner), np.random.default_rng(5), []
    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        root = Path(scratch) / "own"
        for split in ("train", "test"):
            for name in ("b", "a"):
                (root / split / name).mkdir(parents=True)
                for index, (width, height) in enumerate(SIZES):
                    coarse = random.integers(0, 256, (3, 3, 3), dtype=np.uint8)
                    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
                    picture.save(root / split / name / f"{index}.png")
        own = images.load(str(root), Path(scratch), SIDE)
        model = Path(scratch) / "means.onnx"
        means(model, own.source)
        if own.source.labels != ("a", "b") or own.test_labels.tolist() != [0] * len(SIZES) + [1] * len(SIZES):
            wrong.append(f"labels {own.source.labels}, {own.test_labels.tolist()}")
        files = [root / "test" / name / f"{index}.png" for name in "ab" for index in range(len(SIZES))]
        report = json.loads(skipstone.call("classify", model, *files, "--top", "3", "--json"))["images"]
        for file, entry, picture in zip(files, report, own.test, strict=True):
            got = np.array([top["score"] for top in sorted(entry["top"], key=lambda top: top["label"])])
            got = 255 * (got * np.array(own.source.std) + np.array(own.source.mean))
            error = np.abs(got - picture.mean((1, 2))).max()
            if not error <= TOLERANCE:
                wrong.append(f"{file.parent.name}/{file.name}: a channel's mean differs by {error:.2f} of 255")
        empty = Path(scratch) / "empty"
        cases = [("no folder train", lambda: None)]
        cases += [("fewer than two", lambda: [(empty / split / "a").mkdir(parents=True) for split in ("train", "test")])]
        cases += [("not in both train and test: b", lambda: (empty / "train" / "b").mkdir())]
        cases += [("has no images", lambda: (empty / "test" / "b").mkdir())]
        for reason, change in cases:
            change()
            if reason not in refused(empty):
                wrong.append(f"not refused with '{reason}': '{refused(empty)}'")
    for line in wrong:
        print(f"FAIL {line}")
    print(f"folders: {len(files) + len(cases)} checks, {len(wrong)} failures")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
