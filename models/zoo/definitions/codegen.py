"""A causal language model with a prefix (Nijkamp et al., "CodeGen2", 2023): GPT-J blocks (attention and feed-forward
side by side, rotary positions on a part of each head) that see the whole prefix and then only what came before."""

import math

import torch
from torch import nn

from zoo.definitions.attention import FeedForward


def rotate(x: torch.Tensor, dims: int) -> torch.Tensor:
    """Rotary positions on the first `dims` of `[N, heads, tokens, size]`, pairs of neighbors turned."""
    tokens = x.size(2)
    frequency = 1.0 / 10000 ** (torch.arange(0, dims, 2).float() / dims)
    angle = torch.arange(tokens).float()[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    turned, rest = x[..., :dims], x[..., dims:]
    even, odd = turned[..., 0::2], turned[..., 1::2]
    pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    return torch.cat([pairs.flatten(-2), rest], -1)


class ParallelBlock(nn.Module):
    """One LayerNorm for both halves."""

    def __init__(self, width: int, heads: int, rotary: int):
        super().__init__()
        self.norm, self.heads, self.rotary = nn.LayerNorm(width), heads, rotary
        self.into, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.feed = FeedForward(width, 4 * width, nn.GELU(approximate="tanh"))

    def forward(self, x, mask):
        y = self.norm(x)
        split = lambda part: part.reshape(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)
        query, key, value = map(split, self.into(y).chunk(3, -1))
        scores = rotate(query, self.rotary) @ rotate(key, self.rotary).transpose(-1, -2)
        mixed = (scores / math.sqrt(query.size(-1)) + mask).softmax(-1) @ value
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape)) + self.feed(y)


class PrefixLM(nn.Module):
    """Token ids `[N, tokens]` and the prefix's length `[]` to the logits of the next token at every position."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int = 4, rotary: int = 4):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(ParallelBlock(width, heads, rotary) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids, prefix):
        at = torch.arange(ids.size(1))
        seen = (at[None, :] <= at[:, None]) | (at[None, :] < prefix)
        mask = torch.where(seen, 0.0, -1e4)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, mask)
        return self.out(self.norm(x))


def example():
    return PrefixLM(80, 32, 2), {"ids": torch.randint(80, (1, 16)), "prefix": torch.tensor(5)}, ["logits"]
