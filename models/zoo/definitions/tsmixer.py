"""TSMixer (Chen et al., "TSMixer: An All-MLP Architecture for Time Series Forecasting", 2023)."""

import torch
from torch import nn


class MixerLayer(nn.Module):
    """Mixes the steps of every feature, then the features of every step."""

    def __init__(self, steps: int, features: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm1d(steps * features), nn.BatchNorm1d(steps * features)
        self.time = nn.Sequential(nn.Linear(steps, steps), nn.ReLU())
        self.feature = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, features))

    def forward(self, x):
        y = self.norm1(x.flatten(1)).view(x.shape)
        x = x + self.time(y.transpose(1, 2)).transpose(1, 2)
        return x + self.feature(self.norm2(x.flatten(1)).view(x.shape))


class TSMixer(nn.Module):
    """`[N, steps, features]` to a forecast `[N, horizon, features]`, normalized by each series' own mean and spread."""

    def __init__(self, steps: int, features: int, horizon: int, depth: int):
        super().__init__()
        self.layers = nn.Sequential(*(MixerLayer(steps, features, 2 * features) for _ in range(depth)))
        self.project = nn.Linear(steps, horizon)

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        spread = ((x - mean).square().mean(1, keepdim=True) + 1e-5).sqrt()
        y = self.layers((x - mean) / spread)
        return self.project(y.transpose(1, 2)).transpose(1, 2) * spread + mean


def example():
    return TSMixer(48, 7, 12, 3), {"input": torch.randn(1, 48, 7)}, ["forecast"]
