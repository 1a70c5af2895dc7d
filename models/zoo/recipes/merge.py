"""Fewer experts, by `skipstone experts --merge`: those that a stored network's routers score alike become one (UNCURL).
Nothing is trained; the log has the test accuracy before and after.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.data import images
from zoo.recipes.stitch import CALIBRATION, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--skipstone", type=Path, default=Path("../target/release/skipstone"), help="the command")
    parser.add_argument("--base", type=Path, default=Path("pretrained/experts8-cifar10.onnx"), help="has the experts")
    parser.add_argument("--experts", type=int, default=4, help="how many are left (default 4)")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder for the data set")
    parser.add_argument("--out", type=Path, default=Path("merged.onnx"), help="the model; the log is written beside it")
    args = parser.parse_args()
    log = args.out.with_suffix(".log")
    log.write_text("")

    def line(text: str) -> None:
        print(text, flush=True)
        with log.open("a") as file:
            file.write(text + "\n")

    def call(*words) -> dict:
        return json.loads(subprocess.run([args.skipstone, *map(str, words)], check=True, capture_output=True).stdout)

    line(f"# python -m zoo.recipes.merge {' '.join(sys.argv[1:])}")
    names = images.SOURCES["cifar10"].labels
    with TemporaryDirectory() as folder:
        train, train_labels = images.split("cifar10", args.cache, train=True)
        samples = write(Path(folder) / "train", train[:CALIBRATION], train_labels[:CALIBRATION], names)
        test = write(Path(folder) / "test", *images.split("cifar10", args.cache, train=False), names)
        options = ["--calibrate", samples, "--images", CALIBRATION, "--json", "-o", args.out]
        call("experts", args.base, "--merge", args.experts, *options)
        before, after = (call("evaluate", model, test, "--json") for model in (args.base, args.out))
    line(f"before  test {100 * before['top1']:.2f} %, {before['images']} images")
    line(f"test {100 * after['top1']:.2f} %  {args.experts} experts")


if __name__ == "__main__":
    main()
