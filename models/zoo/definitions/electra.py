"""ELECTRA (Clark et al., 2020): embeddings narrower than the encoder, and a classifier on the first token."""

import torch
from torch import nn

from zoo.definitions.attention import Block, padding_mask


class Electra(nn.Module):
    """Token ids, 1/0 mask and segment ids `[N, tokens]` to logits. ELECTRA-small is 128 wide in its embeddings and
    256 in 12 layers of 4 heads."""

    def __init__(self, vocabulary=30522, embedding=128, width=256, depth=12, heads=4, tokens=512, classes=2):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, embedding), nn.Embedding(tokens, embedding)
        self.segments, self.norm = nn.Embedding(2, embedding), nn.LayerNorm(embedding, eps=1e-12)
        self.project = nn.Linear(embedding, width)
        self.layers = nn.ModuleList(Block(width, heads, 4 * width, first=False) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes))

    def forward(self, ids, mask, segments):
        positions = torch.arange(ids.size(1), device=ids.device)
        x = self.words(ids) + self.positions(positions) + self.segments(segments)
        x = self.project(self.norm(x))
        for layer in self.layers:
            x = layer(x, padding_mask(mask))
        return self.head(x[:, 0])


def example():
    model = Electra(vocabulary=200, embedding=16, width=32, depth=2, heads=4, tokens=32)
    mask = torch.ones(1, 16, dtype=torch.int64)
    mask[:, 11:] = 0
    segments = torch.zeros(1, 16, dtype=torch.int64)
    segments[:, 6:] = 1
    return model, {"input_ids": torch.randint(200, (1, 16)), "attention_mask": mask, "token_type_ids": segments}, ["logits"]
