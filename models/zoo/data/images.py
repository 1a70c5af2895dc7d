"""Labeled image sets by name or folder, as uint8 arrays with the metadata that a model needs.

Every set with a name is decoded once and stored as `.npy` in the cache folder, so that a resumed training starts in a
second. A folder is read every time: it may have changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.data import cifar10, folder, mnist


@dataclass(frozen=True)
class Source:
    """The source of a set: `load(cache, train)` returns images `[n, channels, side, side]` and labels `[n]`."""

    load: Callable[[Path, bool], tuple[np.ndarray, np.ndarray]]
    package: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    side: int
    mirrored: bool
    """Whether an image's mirror image has the same class and is as likely."""


SOURCES = {
    "cifar10": Source(
        cifar10.load, cifar10.PACKAGE, tuple(cifar10.LABELS), cifar10.MEAN, cifar10.STD, 3, 32, mirrored=True
    ),
    "mnist": Source(
        mnist.load, mnist.PACKAGE, tuple(mnist.LABELS), mnist.MEAN, mnist.STD, 1, 28, mirrored=False
    ),
    "fashion": Source(
        mnist.load_fashion,
        mnist.FASHION_PACKAGE,
        tuple(mnist.FASHION_LABELS),
        mnist.FASHION_MEAN,
        mnist.FASHION_STD,
        1,
        28,
        mirrored=True,
    ),
}


@dataclass(frozen=True)
class ImageSet:
    """A set in memory."""

    name: str
    source: Source
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def split(name: str, cache: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """One split of the set `name`, decoded at the first call."""
    stem = cache / f"{name}-{'train' if train else 'test'}"
    files = stem.with_suffix(".images.npy"), stem.with_suffix(".labels.npy")
    if not all(file.exists() for file in files):
        cache.mkdir(parents=True, exist_ok=True)
        for file, array in zip(files, SOURCES[name].load(cache, train)):
            np.save(file, array)
    images, labels = map(np.load, files)
    return images, labels


def own(root: Path, side: int, mirrored: bool) -> ImageSet:
    """The images of a folder."""
    read = lambda train: folder.load(root, train, side)
    train, test = read(True), read(False)
    mean, std = folder.statistics(train[0])
    source = Source(lambda _, train: read(train), str(root), tuple(folder.labels(root)), mean, std, 3, side, mirrored)
    return ImageSet(root.resolve().name, source, *train, *test)


def load(name: str, cache: Path, side: int = 32, mirrored: bool = True) -> ImageSet:
    """The set `name`, both splits; or those of the folder `name`, at `side`."""
    if name not in SOURCES:
        return own(Path(name), side, mirrored)
    return ImageSet(name, SOURCES[name], *split(name, cache, True), *split(name, cache, False))
