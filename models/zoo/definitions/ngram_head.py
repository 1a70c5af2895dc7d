"""A causal transformer with n-gram heads (Zisman et al., "N-Gram Induction Heads for In-Context RL", 2024; Akyürek et
al., "In-Context Language Learning", 2024): besides attention, a layer reads the mean of what followed earlier
occurrences of the last n tokens."""

import torch
from torch import nn

from zoo.definitions.attention import Block


def follows(ids: torch.Tensor, n: int) -> torch.Tensor:
    """`[N, tokens, tokens]`: row t is spread evenly over the positions up to t that come right after an earlier
    occurrence of the n tokens that end at t, and zero where there is none."""
    tokens = ids.size(1)
    padded = torch.nn.functional.pad(ids, (n, 0), value=-1)
    # same[t, s]: the n tokens that end at t are those that end at s - 1.
    same = None
    for back in range(n):
        ends = padded[:, n - back : n - back + tokens]
        before = padded[:, n - back - 1 : n - back - 1 + tokens]
        equal = ends[:, :, None] == before[:, None, :]
        same = equal if same is None else same & equal
    at = torch.arange(tokens)
    match = (same & (at[None, :] <= at[:, None]) & (at[None, :] >= n)).float()
    return match / match.sum(-1, keepdim=True).clamp_min(1.0)


class NgramHead(nn.Module):
    """What followed the same n tokens, projected and added."""

    def __init__(self, width: int):
        super().__init__()
        self.own, self.found = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x, weights):
        return x + self.own(x) + self.found(weights @ x)


class NgramTransformer(nn.Module):
    """Token ids `[N, tokens]` to the logits of the next token at every position."""

    def __init__(self, vocabulary: int, width: int, depth: int, tokens: int = 32, orders=(1, 2)):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(tokens, width) * 0.1)
        self.register_buffer("causal", torch.full((tokens, tokens), -1e4).triu(1))
        self.layers = nn.ModuleList(Block(width, 4, 4 * width) for _ in range(depth))
        self.heads, self.orders = nn.ModuleList(NgramHead(width) for _ in orders), orders
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids):
        tokens = ids.size(1)
        x = self.embed(ids) + self.position[:tokens]
        x = self.layers[0](x, self.causal[:tokens, :tokens])
        for order, head in zip(self.orders, self.heads):
            x = head(x, follows(ids, order))
        for layer in self.layers[1:]:
            x = layer(x, self.causal[:tokens, :tokens])
        return self.out(self.norm(x))


def example():
    return NgramTransformer(6, 32, 2), {"ids": torch.randint(6, (1, 24))}, ["logits"]
