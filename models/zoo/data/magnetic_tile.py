"""Surface defects of magnetic tiles (Huang, Qiu and Yuan, "Surface defect saliency of magnetic tile", 2020).

The folder holds `MT_<class>/Imgs/<name>.jpg` with a mask `<name>.png` beside each; `MT_Free` is without defects. A
detector is trained on whole tiles only. The split: photos of one tile (their names differ in the exposure) stay
together; of the tiles in `MT_Free`, ordered by number, every third is held out; all defects are held out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HELD_OUT_EVERY = 3


@dataclass(frozen=True)
class Tile:
    """A photo, its mask, and the class after `MT_`."""

    image: Path
    mask: Path
    kind: str

    @property
    def number(self) -> str:
        """The tile's number, the same for all its photos: `exp3_num_135593` is exposure 3 of tile 135593."""
        return self.image.stem.partition("_num_")[2]

    def pixels(self, side: int) -> np.ndarray:
        """RGB `[3, side, side]` (uint8), stretched to a square."""
        image = Image.open(self.image).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def defect(self, side: int) -> np.ndarray:
        """The broken pixels: bool `[side, side]`."""
        if self.kind == "Free":
            return np.zeros((side, side), bool)
        mask = Image.open(self.mask).convert("L").resize((side, side), Image.Resampling.NEAREST)
        return np.asarray(mask) >= 128


def split(folder: Path) -> tuple[list[Tile], list[Tile]]:
    """Tiles for training, and tiles held out."""
    tiles = [
        Tile(image, image.with_suffix(".png"), image.parent.parent.name.removeprefix("MT_"))
        for image in sorted(folder.glob("MT_*/Imgs/*.jpg"))
    ]
    if not tiles:
        raise SystemExit(f"no MT_*/Imgs/*.jpg in {folder}")
    numbers = sorted({tile.number for tile in tiles if tile.kind == "Free"})
    held_out = set(numbers[::HELD_OUT_EVERY])
    learn = [tile for tile in tiles if tile.kind == "Free" and tile.number not in held_out]
    rest = [tile for tile in tiles if tile.kind != "Free" or tile.number in held_out]
    return learn, rest
