"""Mamba (Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023) and Vision Mamba
(Zhu et al., "Vision Mamba", ICML 2024), which scans its patches in both directions."""

import torch
import torch.nn.functional as F
from torch import nn

from zoo.definitions.selective_scan import selective_scan


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class Direction(nn.Module):
    """Causal depthwise convolution and selective scan, from the start or from the end."""

    def __init__(self, channels: int, states: int, rank: int, backward: bool):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 4, groups=channels)
        self.select = nn.Linear(channels, rank + 2 * states, bias=False)
        self.delta = nn.Linear(rank, channels)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(channels, 1))
        self.skip = nn.Parameter(torch.ones(channels))
        self.sizes, self.backward = [rank, states, states], backward

    def forward(self, x):
        padded = F.pad(x.transpose(1, 2), (0, 3) if self.backward else (3, 0))
        x = F.silu(self.conv(padded).transpose(1, 2))
        rank, b, c = self.select(x).split(self.sizes, -1)
        delta = F.softplus(self.delta(rank))
        return selective_scan(delta, b, c, x, -torch.exp(self.log_a), self.backward) + self.skip * x


class Mixer(nn.Module):
    """`[N, tokens, width]` to the same, by one direction or the mean of both."""

    def __init__(self, width: int, states: int = 8, both: bool = False):
        super().__init__()
        channels = 2 * width
        self.into = nn.Linear(width, 2 * channels, bias=False)
        directions = [False, True] if both else [False]
        self.directions = nn.ModuleList(Direction(channels, states, width // 8, way) for way in directions)
        self.out = nn.Linear(channels, width, bias=False)

    def forward(self, x):
        x, gate = self.into(x).chunk(2, -1)
        mixed = sum(direction(x) for direction in self.directions) / len(self.directions)
        return self.out(mixed * F.silu(gate))


class Mamba(nn.Module):
    """Token ids `[N, tokens]` to the logits of the next token at every position."""

    def __init__(self, vocabulary: int, width: int, depth: int):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(nn.Sequential(RMSNorm(width), Mixer(width)) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = x + layer(x)
        return self.norm(x) @ self.embed.weight.T


class Vim(nn.Module):
    """Images `[N, 3, side, side]` to logits; the class token stands in the middle of the patches."""

    def __init__(self, side: int, patch: int, width: int, depth: int, classes: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.middle = (side // patch) ** 2 // 2
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.ModuleList(nn.Sequential(RMSNorm(width), Mixer(width, both=True)) for _ in range(depth))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, classes)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        token = self.token.expand(x.size(0), -1, -1)
        x = torch.cat([x[:, : self.middle], token, x[:, self.middle :]], 1) + self.position
        for layer in self.layers:
            x = x + layer(x)
        return self.head(self.norm(x)[:, self.middle])


def example_mamba():
    return Mamba(64, 32, 2), {"ids": torch.randint(64, (1, 12))}, ["logits"]


def example_vim():
    return Vim(32, 8, 32, 2, 10), {"input": torch.randn(1, 3, 32, 32)}, ["logits"]
