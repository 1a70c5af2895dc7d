"""Two stored networks of one family and their mixtures in one file, by `skipstone stitch`: the log has the test accuracy
of every configuration. Nothing is trained; least squares on training images finds the layers that join them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from zoo.data import images

# Training images that the joining layers are found on.
CALIBRATION = 1000


def write(folder: Path, pictures: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> Path:
    """Images `[n, 3, side, side]` as PNG files in a folder per class."""
    for index, (picture, label) in enumerate(zip(pictures, labels.tolist())):
        file = folder / names[label] / f"{index:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(file)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--skipstone", type=Path, default=Path("../target/release/skipstone"), help="the command")
    parser.add_argument("--small", type=Path, default=Path("pretrained/simplenet-310k-beta50-cifar10.onnx"))
    parser.add_argument("--large", type=Path, default=Path("pretrained/simplenet-310k-cifar10.onnx"))
    parser.add_argument("--points", type=int, default=4, help="most places to join them at")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder for the data set")
    parser.add_argument("--out", type=Path, default=Path("stitched.onnx"), help="the model; the log is written beside it")
    args = parser.parse_args()
    log = args.out.with_suffix(".log")
    log.write_text("")

    def line(text: str) -> None:
        print(text, flush=True)
        with log.open("a") as file:
            file.write(text + "\n")

    def call(*words) -> dict:
        return json.loads(subprocess.run([args.skipstone, *map(str, words)], check=True, capture_output=True).stdout)

    line(f"# python -m zoo.recipes.stitch {' '.join(sys.argv[1:])}")
    names = images.SOURCES["cifar10"].labels
    with TemporaryDirectory() as folder:
        train, train_labels = images.split("cifar10", args.cache, train=True)
        samples = write(Path(folder) / "train", train[:CALIBRATION], train_labels[:CALIBRATION], names)
        test = write(Path(folder) / "test", *images.split("cifar10", args.cache, train=False), names)
        options = ["--points", args.points, "--calibrate", samples, "--images", CALIBRATION, "--json", "-o", args.out]
        said = []
        for number, made in enumerate(call("stitch", args.small, args.large, *options)["configurations"]):
            result = call("evaluate", args.out, test, "--set", f"configuration={number}", "--json")
            said.append(f"{number}: {100 * result['top1']:.2f} % at {made['macs'] / 1e6:.1f} M")
            line(f"configuration {said[-1]}, {result['images']} images")
    # The largest is the default.
    line(f"test {100 * result['top1']:.2f} %  configurations {', '.join(said)}")


if __name__ == "__main__":
    main()
