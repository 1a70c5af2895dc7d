"""The network of all-MiniLM-L6-v2, and its graph without weights, which `sentence` fills.

`python -m zoo.definitions.minilm` writes the graph again; an initializer has the name of its tensor in the package, and
`.T` after it if it is transposed. Needs PyTorch, `safetensors` and the package.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from zoo import export
from zoo.definitions import sentence
from zoo.definitions.attention import Block, padding_mask


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


def pretrained() -> SentenceEncoder:
    """The encoder with its weights."""
    state = {}
    for name, array in sentence.stored().items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("encoder.layer."):
            index, _, part = stem.removeprefix("encoder.layer.").partition(".")
            state[f"layers.{index}.{_LAYER[part]}.{kind}"] = torch.from_numpy(array)
        elif stem in _OUTER:
            state[f"{_OUTER[stem]}.{kind}"] = torch.from_numpy(array)
    model = SentenceEncoder()
    model.load_state_dict(state)
    return model.eval()


def strip(proto: onnx.ModelProto) -> None:
    """Remove the values of every tensor that the package has, and name it after its source."""
    sources = {}
    for name, array in sentence.stored().items():
        sources[array.shape, array.tobytes()] = name
        if array.ndim == 2:
            sources.setdefault((array.T.shape, np.ascontiguousarray(array.T).tobytes()), f"{name}.T")
    renamed = {}
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        source = sources.get((array.shape, array.tobytes()))
        if source is None:
            continue
        renamed[tensor.name] = source
        tensor.name = source
        tensor.ClearField("raw_data")
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def main() -> None:
    tokens = {name: torch.from_numpy(array) for name, array in sentence.tokenize(["a sentence to trace with"]).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.write(pretrained(), path, tokens, ["embedding"])
        proto = onnx.load(path)
    strip(proto)
    sentence.GRAPH.parent.mkdir(exist_ok=True)
    onnx.save(proto, sentence.GRAPH)
    print(f"{sentence.GRAPH.name}  {sentence.GRAPH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
