"""The scattering front end of ScatSimCLR (Kinakh et al., ICCV workshops 2021): fixed Morlet wavelets, modulus, second
order, a low-pass; a small network sees the result. Complex filters are pairs of real ones."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def morlet(scale: int, angle: float, taps: int) -> torch.Tensor:
    """Real and imaginary part `[2, taps, taps]` of a zero-mean Morlet wavelet."""
    at = torch.arange(taps).float() - taps // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    across = -x * math.sin(angle) + y * math.cos(angle)
    sigma, frequency = 0.8 * 2**scale, 3 * math.pi / 4 / 2**scale
    envelope = torch.exp(-(along**2 + (across / 2) ** 2) / (2 * sigma**2))
    wave = torch.stack([torch.cos(frequency * along), torch.sin(frequency * along)])
    real = envelope * (wave[0] - (envelope * wave[0]).sum() / envelope.sum())
    return torch.stack([real, envelope * wave[1]]) / envelope.sum()


class Scattering(nn.Module):
    """`[N, 3, side, side]` to `[N, 3 (1 + J L + J (J - 1) / 2 L^2), side / 2^J, side / 2^J]`."""

    def __init__(self, scales: int = 2, angles: int = 4):
        super().__init__()
        self.scales, self.angles, self.taps = scales, angles, 4 * 2**scales + 1
        bank = [morlet(j, math.pi * k / angles, self.taps) for j in range(scales) for k in range(angles)]
        self.register_buffer("bank", torch.stack(bank).view(scales, 2 * angles, 1, self.taps, self.taps))
        low = torch.exp(-((torch.arange(self.taps).float() - self.taps // 2) ** 2) / (2 * (0.8 * 2**scales) ** 2))
        low = torch.outer(low, low)
        self.register_buffer("low", (low / low.sum()).view(1, 1, self.taps, self.taps))

    def planes(self, x, filters, stride=1):
        """Every plane of `x` `[N, C, h, w]` with every filter `[F, 1, taps, taps]`: `[N, C F, h / stride, ...]`."""
        n, c, h, w = x.shape
        half = self.taps // 2
        padded = F.pad(x.reshape(n * c, 1, h, w), (half,) * 4, mode="reflect")
        y = F.conv2d(padded, filters, stride=stride)
        return y.reshape(n, c * filters.size(0), y.size(2), y.size(3))

    def modulus(self, x, scale: int):
        y = self.planes(x, self.bank[scale])
        y = y.reshape(y.size(0), -1, 2, y.size(2), y.size(3))
        return (y.square().sum(2) + 1e-12).sqrt()

    def forward(self, x):
        orders = [x]
        for first in range(self.scales):
            once = self.modulus(x, first)
            orders.append(once)
            orders += [self.modulus(once, second) for second in range(first + 1, self.scales)]
        return torch.cat([self.planes(part, self.low, 2**self.scales) for part in orders], 1)


class ScatteringNet(nn.Module):
    """Images to logits."""

    def __init__(self, width: int, classes: int, scales: int = 2, angles: int = 4):
        super().__init__()
        channels = 3 * (1 + scales * angles + scales * (scales - 1) // 2 * angles**2)
        self.scattering, self.norm = Scattering(scales, angles), nn.BatchNorm2d(channels)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.layers(self.norm(self.scattering(x))).mean((2, 3)))


def example():
    return ScatteringNet(32, 10), {"input": torch.randn(1, 3, 32, 32)}, ["logits"]
