"""Writes the fixtures of the Swift tests: packages, sample images as plain pixels, and the command's answers.

Swift on Linux reads no PNG, so every sample becomes a PPM with the same pixels. The tests compare with the answers of
`skipstone classify` for the ONNX file and the PNG.
"""

import json
import shutil
import platform
import subprocess

from PIL import Image

from devices import variables
from harness import driver

MODEL = driver.ROOT / "models" / "pretrained" / "simplenet-310k-cifar10.onnx"
SAMPLES = driver.ROOT / "models" / "samples"
FOLDER = driver.ROOT / "build" / "swift" / "fixtures"


def public_key(private) -> bytes:
    """The last 32 bytes of an Ed25519 key in DER are the key itself."""
    return subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout[-32:]


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)

    key = FOLDER / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    (FOLDER / "key.public").write_bytes(public_key(key))
    skipstone.call("compile", MODEL, "-o", FOLDER / "simplenet.skip")
    skipstone.call("compile", MODEL, "-o", FOLDER / "signed.skip", "--sign", key)
    # Mapped, with packed weights: the fastest to open.
    skipstone.call("compile", MODEL, "-o", FOLDER / "mapped.skip", "--target", platform.machine(), "--memory", "small")

    variables.write(skipstone, FOLDER / "variables.skip")

    images = sorted(SAMPLES.glob("*.png"))
    for image in images:
        Image.open(image).convert("RGB").save(FOLDER / f"{image.stem}.ppm")
    report = json.loads(skipstone.call("classify", MODEL, *images, "--top", "10", "--json"))
    answers = [
        {"image": image.stem, "top": [{"label": top["label"], "score": top["score"]} for top in entry["top"]]}
        for image, entry in zip(images, report["images"], strict=True)
    ]
    (FOLDER / "answers.json").write_text(json.dumps(answers, indent=1))
    print(f"{len(answers)} samples and 4 packages in {FOLDER.relative_to(driver.ROOT)}")


if __name__ == "__main__":
    main()
