"""Multi-head attention and the transformer block of several definitions, written as products and softmax."""

import math

import torch
from torch import nn


class Attention(nn.Module):
    """`[N, tokens, width]` to the same; keys and values may come from `memory`. `mask` is added to the scores."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def split(self, x):
        return x.reshape(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)

    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        query, key, value = self.split(self.query(x)), self.split(self.key(memory)), self.split(self.value(memory))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.size(-1))
        if mask is not None:
            scores = scores + mask
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)
        return self.out(mixed.reshape(x.shape))


class FeedForward(nn.Sequential):
    """Two linear layers around an activation."""

    def __init__(self, width: int, hidden: int, activation: nn.Module | None = None):
        super().__init__(nn.Linear(width, hidden), activation or nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """Attention and feed-forward, each normalized before (`first`) or after its sum."""

    def __init__(self, width: int, heads: int, hidden: int, *, norm=nn.LayerNorm, first=True, activation=None):
        super().__init__()
        self.attention, self.feed = Attention(width, heads), FeedForward(width, hidden, activation)
        self.norm1, self.norm2, self.first = norm(width), norm(width), first

    def forward(self, x, mask=None):
        if self.first:
            x = x + self.attention(self.norm1(x), mask=mask)
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask=mask))
        return self.norm2(x + self.feed(x))


def padding_mask(keep: torch.Tensor) -> torch.Tensor:
    """1 for a token, 0 for padding, `[N, tokens]`, to what is added to the scores."""
    return (1.0 - keep[:, None, None, :].float()) * -1e4
