"""Drawn tiles for examples: `python -m zoo.data.drawn_tile` writes a whole and a broken one to `models/tiles`.

The photos that the anomaly detector learned from have no license that lets them be passed on. These look enough like
them for the detector: dark, with the streaks of grinding; a corner of the second is broken off.
"""

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "tiles"
SIDE = 256


def smooth(noise: np.ndarray, rounds: int, axis: int) -> np.ndarray:
    """`noise` blurred along an axis, with a standard deviation of one."""
    for _ in range(rounds):
        noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return noise / noise.std()


def tile(broken: bool) -> Image.Image:
    """A tile of `SIDE` by `SIDE` pixels."""
    random = np.random.default_rng(7)
    noise = lambda down, across: smooth(smooth(random.standard_normal((SIDE, SIDE)), down, 0), across, 1)
    streaks, patches, grain = noise(400, 1), noise(300, 300), noise(2, 1)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    level = 62 + 22 * np.sin(columns * np.pi) ** 0.7 + 3.5 * streaks + 3 * patches + 1.5 * grain
    if broken:
        # How far a pixel is behind the edge of the corner.
        depth = 0.8 * rows - 1.1 * columns - 0.45 + 0.02 * np.sin(columns * 40 + rows * 26)
        ridges = np.sin(80 * depth + 4 * np.sin(columns * 23 + rows * 9))
        level = np.where(depth > 0, 40 + 22 * ridges + 4 * grain, level)
        level -= 40 * np.exp(-((depth / 0.012) ** 2))
    return Image.fromarray(level.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in ("whole", "broken"):
        tile(name == "broken").save(FOLDER / f"{name}.png", optimize=True)
