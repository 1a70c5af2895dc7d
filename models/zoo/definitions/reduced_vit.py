"""A vision transformer whose keys and values come from a spatially reduced map (Wang et al., "Pyramid Vision
Transformer", ICCV 2021) with a residual way around the reduction: the strided convolution adds to an average pool."""

import torch
from torch import nn

from zoo.definitions.attention import Attention, FeedForward


class ReducedBlock(nn.Module):
    """`[N, tokens, width]` of a square map to the same."""

    def __init__(self, width: int, heads: int, side: int, reduction: int):
        super().__init__()
        self.side = side
        self.reduce = nn.Conv2d(width, width, reduction, reduction)
        self.pool = nn.AvgPool2d(reduction)
        self.norm1, self.norm_memory, self.norm2 = (nn.LayerNorm(width) for _ in range(3))
        self.attention, self.feed = Attention(width, heads), FeedForward(width, 4 * width)

    def forward(self, x):
        y = self.norm1(x)
        image = y.transpose(1, 2).reshape(x.size(0), -1, self.side, self.side)
        memory = (self.reduce(image) + self.pool(image)).flatten(2).transpose(1, 2)
        x = x + self.attention(y, self.norm_memory(memory))
        return x + self.feed(self.norm2(x))


class ReducedViT(nn.Module):
    """Images to logits: two stages, the second at half the sides and twice the width."""

    def __init__(self, side: int, width: int, classes: int):
        super().__init__()
        first, second = side // 4, side // 8
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.randn(1, first**2, width) * 0.02)
        self.stage1 = ReducedBlock(width, 2, first, 4)
        self.merge = nn.Conv2d(width, 2 * width, 2, 2)
        self.stage2 = ReducedBlock(2 * width, 4, second, 2)
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, classes)

    def forward(self, images):
        x = self.patches(images)
        side = x.size(-1)
        x = self.stage1(x.flatten(2).transpose(1, 2) + self.position)
        x = self.merge(x.transpose(1, 2).reshape(images.size(0), -1, side, side))
        x = self.stage2(x.flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


def example():
    return ReducedViT(32, 16, 10), {"input": torch.randn(1, 3, 32, 32)}, ["logits"]
