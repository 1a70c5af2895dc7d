"""The pictures of `models/README.md`, one SVG per family of trained models, drawn from the logs and the manifest.

`python -m zoo.pictures` draws the accuracy per epoch, and the accuracy against multiply-adds and against milliseconds
beside the other models of the same data. `--skipstone ../target/release/skipstone` also draws the anomaly detector's
heat map over a tile. PyTorch is not needed.
"""

import argparse
import base64
import io
import re
import subprocess
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from zoo import manifest
from zoo.data import drawn_tile

FOLDER = manifest.MODELS / "pictures"
PANEL, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 320, 300, 52, 52, 40, 20
STYLE = (
    "text{fill:#1c1d21;font:12px system-ui,sans-serif}.soft{fill:#6b6e76;font-size:11px}.grid{stroke:#e3e3e0}"
    ".title{font-size:14px;font-weight:600}.line{fill:none;stroke-width:2}"
)
COLORS = ("#3d6fd9", "#c2571a", "#2b8a5c")
OTHERS = "#b5b8bf"


@dataclass
class Series:
    """Points of one color, joined or labeled."""

    name: str
    points: list[tuple[float, float]]
    color: str
    labels: list[str] | None = None


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`."""
    step = next(s for e in range(-6, 12) for s in (10.0**e, 2 * 10.0**e, 5 * 10.0**e) if (high - low) / s <= most)
    first = int(np.ceil(low / step - 1e-9))
    return [round(i * step, 9) for i in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def padded(values: list[float], share: float = 0.08) -> tuple[float, float]:
    """The range of `values` with some room at both ends."""
    low, high = min(values), max(values)
    room = share * ((high - low) or abs(high) or 1)
    return low - room, high + room


def chart(title: str, across: str, series: list[Series]) -> str:
    """A panel of lines (series without labels) and labeled points."""
    xs, ys = ([point[axis] for one in series for point in one.points] for axis in (0, 1))
    (x0, x1), (y0, y1) = padded(xs), padded(ys)
    at_x = lambda x: LEFT + (x - x0) / (x1 - x0) * (PANEL - LEFT - RIGHT)
    at_y = lambda y: HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - BOTTOM - TOP)
    parts = [f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>']
    for y in ticks(y0, y1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{PANEL - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}"/>')
        parts.append(f'<text class="soft" text-anchor="end" x="{LEFT - 6}" y="{at_y(y) + 4:.1f}">{y:g}</text>')
    for x in ticks(x0, x1):
        parts.append(f'<text class="soft" text-anchor="middle" x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 16}">{x:g}</text>')
    middle = (LEFT + PANEL - RIGHT) / 2
    parts.append(f'<text class="soft" text-anchor="middle" x="{middle}" y="{HEIGHT - BOTTOM + 34}">{escape(across)}</text>')
    for index, one in enumerate(series):
        places = [(at_x(x), at_y(y)) for x, y in one.points]
        if one.labels is None:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline class="line" stroke="{one.color}" points="{path}"/>')
            legend = HEIGHT - BOTTOM - 10 - 15 * (len(series) - 1 - index)
            parts.append(
                f'<text x="{PANEL - RIGHT - 4}" y="{legend}" text-anchor="end" style="fill:{one.color}">{escape(one.name)}</text>'
            )
            continue
        for (x, y), label in zip(places, one.labels):
            # A label stays within the panel.
            anchor, side = ("end", -8) if x > middle else ("start", 8)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{one.color}"/>')
            parts.append(f'<text class="soft" text-anchor="{anchor}" x="{x + side:.1f}" y="{y + 4:.1f}">{escape(label)}</text>')
    return "".join(parts)


def page(name: str, panels: list[str]) -> str:
    """Panels side by side."""
    width = PANEL * len(panels)
    placed = "".join(f'<g transform="translate({PANEL * i} 0)">{panel}</g>' for i, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(name)}">'
        f'<style>{STYLE}</style><rect width="{width}" height="{HEIGHT}" fill="#fbfbfa"/>{placed}</svg>\n'
    )


def curve(log: Path, figure: str) -> list[tuple[float, float]]:
    """`figure` of the manifest after each epoch of a log that reports it."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("epoch")]
    pairs = ((re.match(r"epoch +(\d+)", line), re.search(manifest.FIGURES[figure], line)) for line in lines)
    return [(float(epoch[1]), float(found[1])) for epoch, found in pairs if found]


def left(entry: dict) -> float:
    """Million multiply-adds that neither a mask nor a zero weight saves."""
    share = (1 - entry.get("fewer_multiply_adds", 0) / 100) * (1 - entry.get("zeros", 0) / 100)
    return share * entry["multiply_adds"] / 1e6


def short(entry: dict) -> str:
    return entry["file"].removesuffix(".onnx").removesuffix(f"-{entry['data']}")


def networks(entries: list[dict]) -> list[dict]:
    """One entry for the forms of a network, which share a log."""
    return list({entry["log"]: entry for entry in reversed(entries)}.values())[::-1]


def classifiers(family: list[dict], every: list[dict]) -> list[str]:
    """The panels of a family of classifiers."""
    log = lambda entry: manifest.PRETRAINED / entry["log"]
    name = lambda entry: entry["file"].removesuffix(".onnx")
    family, every = networks(family), networks(every)
    trained = [entry for entry in family if curve(log(entry), "accuracy")]
    curves = [Series(name(entry), curve(log(entry), "accuracy"), color) for entry, color in zip(trained, COLORS)]
    panels = [chart("Test accuracy (%)", "epoch", curves)] if curves else []
    if "diversity" in family[0]:
        spread = [
            Series(name(entry), [(x, float(np.log10(y))) for x, y in curve(log(entry), "diversity")], color)
            for entry, color in zip(trained, COLORS)
        ]
        panels.append(chart("Diversity of the last maps (log10)", "epoch", spread))
    data = family[0]["data"]
    same = [entry for entry in every if entry["data"] == data]

    def against(title: str, across: str, measure) -> str:
        other = [entry for entry in same if entry not in family]
        own = [entry for entry in same if entry in family]
        make = lambda entries, color: Series(
            data, [(measure(e), e["accuracy"]) for e in entries], color, [short(e) for e in entries]
        )
        return chart(title, across, [make(other, OTHERS), make(own, COLORS[0])])

    if "choices" in family[0]:
        points = [(cost, right) for _, right, cost in sorted(family[0]["choices"])]
        told = f"million multiply-adds, by {family[0]['setting']}"
        panels[:0] = [chart("Test accuracy (%)", told, [Series(name(family[0]), points, COLORS[0])])]
    panels.append(against(f"Accuracy on {data} (%)", "million multiply-adds (without what is skipped)", left))
    if all("latency_ms" in entry for entry in same):
        panels.append(against(f"Accuracy on {data} (%)", "milliseconds, one thread", lambda e: e["latency_ms"]))
    return panels


def heat_map(model: Path, skipstone: Path) -> list[str]:
    """The broken tile beside itself with the model's heat map."""
    tile = drawn_tile.FOLDER / "broken.png"
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "map.png"
        subprocess.run([skipstone, "classify", model, tile, "--map", drawn], check=True, stdout=subprocess.DEVNULL)
        return [photo("A broken tile (drawn)", tile), photo("Its heat map", drawn)]


def photo(title: str, file: Path) -> str:
    """A panel with a picture."""
    png = io.BytesIO()
    Image.open(file).quantize(128).save(png, "png", optimize=True)
    content = base64.b64encode(png.getvalue()).decode()
    side = HEIGHT - TOP - RIGHT
    return (
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>'
        f'<image x="{LEFT}" y="{TOP}" width="{side}" height="{side}" href="data:image/png;base64,{content}"/>'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--skipstone", type=Path, help="the command, for the heat map")
    args = parser.parse_args()
    every = manifest.entries()
    FOLDER.mkdir(exist_ok=True)
    for name in dict.fromkeys(entry["family"] for entry in every):
        family = [entry for entry in every if entry["family"] == name]
        if "accuracy" in family[0]:
            panels = classifiers(family, every)
        elif args.skipstone:
            log = manifest.PRETRAINED / family[0]["log"]
            kinds = {"images": "image_auroc", "pixels": "pixel_auroc"}
            curves = [Series(kind, curve(log, key), color) for (kind, key), color in zip(kinds.items(), COLORS)]
            panels = [chart("AUROC on held-out tiles (%)", "epoch", curves)]
            panels += heat_map(manifest.PRETRAINED / family[0]["file"], args.skipstone)
        else:
            continue
        path = FOLDER / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".svg")
        path.write_text(page(name, panels))
        print(f"{path.relative_to(manifest.MODELS)}  {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
