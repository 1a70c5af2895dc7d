"""Compares camera frame conversion with OpenCV and ncnn: 1080p NV21 to a normalized 224x224x3 tensor, one thread each.

    python -m venv build/vision && build/vision/bin/pip install -r tests/vision/requirements.txt
    build/vision/bin/python tests/vision/compare.py [--rounds N] [--isa avx2]

All crop the center square first, so that none reads unused pixels. OpenCV converts the colors of the square, resizes
by area (as good as our triangle filter) or bilinearly (two pixels per axis, which leaves aliasing), and normalizes with
NumPy. ncnn's Python package has no conversion from NV21, so its times start from RGB, which is less work. Programs
alternate, and every figure is the median of its rounds' medians. `warm` repeats one frame; `cold` cycles through more
frames than fit into the caches, as a camera does.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import cv2
import ncnn
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, HEIGHT, SIDE = 1920, 1080, 224
LEFT = (WIDTH - HEIGHT) // 2
COLD = 48
SECONDS = 0.3
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
SCALE = 1 / (np.array([0.229, 0.224, 0.225], np.float32) * 255)
OURS = ("nv21", "nv21_crop", "nv21_rotated", "nv21_nhwc", "i420", "bgra", "rgb", "gray")


def build() -> str:
    """Our own benchmark program."""
    command = ["cargo", "bench", "-p", "skipstone", "--no-default-features", "--bench", "frame", "--no-run"]
    command += ["--quiet", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    built = [json.loads(line) for line in lines]
    return next(item["executable"] for item in built if item.get("executable") and item["target"]["name"] == "frame")


def ours(program: str, isa: str) -> dict[str, tuple[float, float]]:
    """Warm and cold microseconds of every case."""
    environment = os.environ | {"SKIPSTONE_ISA": isa}
    table = subprocess.run([program, *OURS], check=True, capture_output=True, text=True, env=environment).stdout
    rows = [line.split() for line in table.splitlines()[1:]]
    return {f"Skipstone, {row[1]}": (float(row[2]), float(row[3])) for row in rows}


def normalize(rgb: np.ndarray, out: np.ndarray) -> None:
    for channel, plane in enumerate(cv2.split(rgb)):
        np.subtract(plane, MEAN[channel], out=out[channel], dtype=np.float32)
        np.multiply(out[channel], SCALE[channel], out=out[channel])


def opencv(frame: np.ndarray, out: np.ndarray, interpolation: int) -> None:
    luma = frame[:HEIGHT, LEFT : LEFT + HEIGHT]
    chroma = frame[HEIGHT:].reshape(HEIGHT // 2, WIDTH // 2, 2)[:, LEFT // 2 : (LEFT + HEIGHT) // 2]
    rgb = cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2RGB_NV21)
    normalize(cv2.resize(rgb, (SIDE, SIDE), interpolation=interpolation), out)


def ncnn_from_rgb(rgb: np.ndarray) -> None:
    kind = ncnn.Mat.PixelType.PIXEL_RGB
    mat = ncnn.Mat.from_pixels_roi_resize(rgb, kind, WIDTH, HEIGHT, LEFT, 0, HEIGHT, HEIGHT, SIDE, SIDE)
    mat.substract_mean_normalize(MEAN.tolist(), SCALE.tolist())


def median(call, frames: list[np.ndarray]) -> float:
    """Median microseconds of a call that cycles through the frames."""
    times = []
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS or len(times) < 5:
        frame = frames[len(times) % len(frames)]
        start = time.perf_counter_ns()
        call(frame)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isa", default="avx2")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    ncnn.set_omp_num_threads(1)
    program = build()
    random = np.random.default_rng(1)
    frames = [random.integers(0, 256, (HEIGHT * 3 // 2, WIDTH), np.uint8) for _ in range(COLD)]
    colors = [cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV21) for frame in frames]
    out = np.empty((3, SIDE, SIDE), np.float32)
    peers = {
        "OpenCV, area": (lambda frame: opencv(frame, out, cv2.INTER_AREA), frames),
        "OpenCV, bilinear": (lambda frame: opencv(frame, out, cv2.INTER_LINEAR), frames),
        "ncnn, bilinear, from RGB": (ncnn_from_rgb, colors),
    }
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        for name, both in ours(program, args.isa).items():
            times.setdefault(name, []).append(both)
        for name, (call, inputs) in peers.items():
            times.setdefault(name, []).append((median(call, inputs[:1]), median(call, inputs)))
    print("| program | warm us | cold us |\n|---|---|---|")
    for name, rounds in times.items():
        warm, cold = (statistics.median(times) for times in zip(*rounds))
        print(f"| {name} | {warm:.0f} | {cold:.0f} |")


if __name__ == "__main__":
    main()
