"""A latent U-Net block as CatVTON runs it (Chong et al., "CatVTON: Concatenation Is All You Need for Virtual Try-On",
2024): person and garment latents side by side in one picture, residual blocks with a time embedding, and transformer
blocks with self-attention alone."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from zoo.definitions.attention import Attention


def time_embedding(time: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines `[N, width]` of a time step `[N]`."""
    frequency = torch.exp(-math.log(10000.0) * torch.arange(width // 2).float() / (width // 2))
    angle = time[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


class ResBlock(nn.Module):
    def __init__(self, channels: int, out: int, embedding: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, channels), nn.Conv2d(channels, out, 3, 1, 1)
        self.time = nn.Linear(embedding, out)
        self.norm2, self.conv2 = nn.GroupNorm(8, out), nn.Conv2d(out, out, 3, 1, 1)
        self.around = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x, embedding):
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(embedding))[:, :, None, None]
        return self.conv2(F.silu(self.norm2(y))) + self.around(x)


class SelfAttentionBlock(nn.Module):
    """Attention over all positions, then a gated feed-forward (GEGLU)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.norm, self.into, self.out = nn.GroupNorm(8, channels), *(nn.Conv2d(channels, channels, 1) for _ in "io")
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.gate, self.thin = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def forward(self, image):
        x = self.into(self.norm(image)).flatten(2).transpose(1, 2)
        x = x + self.attention(self.norm1(x))
        value, gate = self.gate(self.norm2(x)).chunk(2, -1)
        x = x + self.thin(value * F.gelu(gate))
        return image + self.out(x.transpose(1, 2).reshape(image.shape))


class TryOnUNet(nn.Module):
    """Person latent with its mask, garment latent, time step, to the predicted noise of the person's half."""

    def __init__(self, width: int = 16):
        super().__init__()
        embedding = 4 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.into = nn.Conv2d(4 + 1 + 4, width, 3, 1, 1)
        self.down1, self.attend1 = ResBlock(width, width, embedding), SelfAttentionBlock(width, 2)
        self.shrink = nn.Conv2d(width, width, 3, 2, 1)
        self.middle, self.attend2 = ResBlock(width, 2 * width, embedding), SelfAttentionBlock(2 * width, 4)
        self.grow = nn.Conv2d(2 * width, 2 * width, 3, 1, 1)
        self.up = ResBlock(3 * width, width, embedding)
        self.norm, self.out = nn.GroupNorm(8, width), nn.Conv2d(width, 4, 3, 1, 1)

    def forward(self, noisy, masked, mask, garment, time):
        zero = torch.zeros_like(mask)
        pictures = torch.cat([noisy, noisy], -1)
        known = torch.cat([masked, garment], -1)
        x = self.into(torch.cat([pictures, torch.cat([mask, zero], -1), known], 1))
        embedding = self.time(time_embedding(time, self.width))
        first = self.attend1(self.down1(x, embedding))
        x = self.attend2(self.middle(self.shrink(first), embedding))
        x = self.grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.up(torch.cat([x, first], 1), embedding)
        return self.out(F.silu(self.norm(x)))[..., : noisy.size(-1)]


def example():
    latent = lambda channels: torch.randn(1, channels, 8, 8)
    inputs = {"noisy": latent(4), "masked": latent(4), "mask": (latent(1) > 0).float(), "garment": latent(4)}
    return TryOnUNet(), {**inputs, "time": torch.tensor([421])}, ["noise"]
