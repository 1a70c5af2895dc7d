"""Feed-forward layers with structured weights (Wei et al., "Building on Efficient Foundations: Effectively Training
LLMs with Structured Feedforward Layers", 2024): low rank, block-diagonal with a shuffle (Monarch), and block-diagonal
times low rank."""

import torch
from torch import nn

from zoo.definitions.attention import Attention


class LowRank(nn.Sequential):
    """`x V U`, narrower than both ends."""

    def __init__(self, width: int, out: int, rank: int):
        super().__init__(nn.Linear(width, rank, bias=False), nn.Linear(rank, out))


class BlockDiagonal(nn.Module):
    """`blocks` products side by side, `[..., width]` to `[..., out]`."""

    def __init__(self, width: int, out: int, blocks: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(blocks, width // blocks, out // blocks) * (blocks / width) ** 0.5)

    def forward(self, x):
        blocks = self.weight.size(0)
        y = x.reshape(-1, blocks, x.size(-1) // blocks).transpose(0, 1) @ self.weight
        return y.transpose(0, 1).reshape(*x.shape[:-1], -1)


class BlockShuffle(nn.Module):
    """Two block-diagonal products with the blocks' outputs interleaved in between."""

    def __init__(self, width: int, out: int, blocks: int):
        super().__init__()
        least = min(width, out)
        self.first, self.second, self.blocks = BlockDiagonal(width, least, blocks), BlockDiagonal(least, out, blocks), blocks

    def forward(self, x):
        y = self.first(x)
        y = y.reshape(*y.shape[:-1], self.blocks, -1).transpose(-1, -2).reshape(y.shape)
        return self.second(y)


class BlockDense(nn.Module):
    """Block-diagonal, then dense from a narrower width."""

    def __init__(self, width: int, out: int, rank: int, blocks: int):
        super().__init__()
        self.first, self.second = BlockDiagonal(width, rank, blocks), nn.Linear(rank, out)

    def forward(self, x):
        return self.second(self.first(x))


class StructuredTransformer(nn.Module):
    """`[N, tokens, width]` to logits: one block of each kind of feed-forward layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        hidden = 4 * width
        feeds = [
            (LowRank(width, hidden, width // 2), LowRank(hidden, width, width // 2)),
            (BlockShuffle(width, hidden, 4), BlockShuffle(hidden, width, 4)),
            (BlockDense(width, hidden, width // 2, 2), BlockDense(hidden, width, width // 2, 2)),
        ]
        self.feeds = nn.ModuleList(nn.Sequential(up, nn.GELU(), down) for up, down in feeds)
        self.attentions = nn.ModuleList(Attention(width, 4) for _ in feeds)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * len(feeds)))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        for index, (attention, feed) in enumerate(zip(self.attentions, self.feeds)):
            x = x + attention(self.norms[2 * index](x))
            x = x + feed(self.norms[2 * index + 1](x))
        return self.head(x.mean(1))


def example():
    return StructuredTransformer(32, 7), {"input": torch.randn(1, 10, 32)}, ["logits"]
