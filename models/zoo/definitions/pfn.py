"""A prior-fitted network (Müller et al., "Transformers Can Do Bayesian Inference", ICLR 2022; TabPFN, 2023): the
training set is part of the input, and one forward pass answers for the queries."""

import torch
from torch import nn

from zoo.definitions.attention import Block


class PFN(nn.Module):
    """Known rows `[N, known, features]` with classes `[N, known]`, queries `[N, asked, features]`, to the queries'
    logits. Every row attends to the known rows; a query also to itself."""

    def __init__(self, features: int, classes: int, width: int, depth: int):
        super().__init__()
        self.row, self.label = nn.Linear(features, width), nn.Embedding(classes, width)
        self.layers = nn.ModuleList(Block(width, 4, 2 * width, first=False) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, known, labels, asked):
        # Features at the spread that the known rows have.
        mean = known.mean(1, keepdim=True)
        spread = ((known - mean).square().mean(1, keepdim=True) + 1e-6).sqrt()
        scale = lambda rows: self.row((rows - mean) / spread)
        x = torch.cat([scale(known) + self.label(labels), scale(asked)], 1)
        count, total = known.size(1), x.size(1)
        at = torch.arange(total)
        seen = (at[None, :] < count) | (at[None, :] == at[:, None])
        mask = torch.where(seen, 0.0, -1e4)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x[:, count:])


def example():
    inputs = {"known": torch.randn(1, 20, 6), "labels": torch.randint(3, (1, 20)), "asked": torch.randn(1, 5, 6)}
    return PFN(6, 3, 32, 2), inputs, ["logits"]
