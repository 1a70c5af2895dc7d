"""Labeled images of one's own: a folder with `train` and `test`, and in each a folder of images per class, as `skipstone
evaluate` reads them. PyTorch is not needed."""

from pathlib import Path

import numpy as np
from PIL import Image

KINDS = frozenset(".png .jpg .jpeg .webp .bmp".split())


def labels(root: Path) -> list[str]:
    """The classes, in order; both splits must have the same."""
    found = {}
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise ValueError(f"{root} has no folder {split}; it needs train and test, with a folder per class in each")
        found[split] = sorted(path.name for path in (root / split).iterdir() if path.is_dir())
    if len(found["train"]) < 2:
        raise ValueError(f"{root / 'train'} has fewer than two class folders")
    if found["train"] != found["test"]:
        odd = sorted(set(found["train"]) ^ set(found["test"]))
        raise ValueError(f"{root}: not in both train and test: {', '.join(odd)}")
    return found["train"]


def square(file: Path, side: int) -> np.ndarray:
    """An image as uint8 `[3, side, side]`: its shorter side resized, its middle cut out, as the model's metadata says."""
    image = Image.open(file).convert("RGB")
    shorter = min(image.size)
    image = image.resize([side * length // shorter for length in image.size], Image.Resampling.BILINEAR)
    x, y = (round((length - side) / 2) for length in image.size)
    return np.asarray(image.crop((x, y, x + side, y + side))).transpose(2, 0, 1)


def load(root: Path, train: bool, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A split: images `[n, 3, side, side]` (uint8), sorted by class and name, and labels `[n]`."""
    pictures, numbers = [], []
    for number, name in enumerate(labels(root)):
        folder = root / ("train" if train else "test") / name
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)
        if not files:
            raise ValueError(f"{folder} has no images ({' '.join(sorted(KINDS))})")
        pictures += [square(file, side) for file in files]
        numbers += [number] * len(files)
    return np.stack(pictures), np.array(numbers, np.int64)


def statistics(pictures: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, for values from 0 to 1."""
    values = pictures.transpose(1, 0, 2, 3).reshape(pictures.shape[1], -1) / 255
    rounded = lambda numbers: tuple(round(float(number), 4) for number in numbers)
    return rounded(values.mean(1)), rounded(np.maximum(values.std(1), 1e-3))
