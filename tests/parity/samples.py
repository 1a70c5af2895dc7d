"""Runs `skipstone classify` on the sample images with every pretrained CIFAR-10 model.

Five of six images must be classified correctly, which is enough to detect wrong preprocessing or channel order.
"""

import json
import sys

from harness import driver

SAMPLES = driver.ROOT / "models" / "samples"
SHARE = 5 / 6


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    images = sorted(SAMPLES.glob("*.png"))
    models = sorted((driver.ROOT / "models" / "pretrained").glob("*cifar10*.onnx"))
    failed = False
    for model in models:
        report = json.loads(skipstone.call("classify", model, *images, "--top", "1", "--json"))
        # The true label is the file's name up to its number: cat_0.png.
        right = [
            entry["file"].rpartition("/")[2].rpartition("_")[0] == entry["top"][0]["label"] for entry in report["images"]
        ]
        enough = len(right) == len(images) and sum(right) >= SHARE * len(images)
        failed |= not enough
        print(f"{'ok  ' if enough else 'FAIL'} {model.stem}: {sum(right)} of {len(images)} right")
    print(f"samples: {len(models)} models")
    sys.exit(failed)


if __name__ == "__main__":
    main()
