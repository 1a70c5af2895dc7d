"""A 3-D U-Net of residual blocks after STU-Net (Huang et al., "STU-Net: Scalable and Transferable Medical Image
Segmentation Models", 2023): strided convolutions down; nearest neighbor and a 1x1x1 convolution up."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Two 3x3x3 convolutions with InstanceNorm; a 1x1x1 one on the way around where shapes differ."""

    def __init__(self, channels: int, out: int, stride: int = 1):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(channels, out, 3, stride, 1), nn.InstanceNorm3d(out, affine=True)
        self.conv2, self.norm2 = nn.Conv3d(out, out, 3, 1, 1), nn.InstanceNorm3d(out, affine=True)
        self.around = nn.Conv3d(channels, out, 1, stride) if stride > 1 or channels != out else nn.Identity()

    def forward(self, x):
        y = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.norm2(self.conv2(y)) + self.around(x), 0.01)


class UNet3d(nn.Module):
    """Volumes `[N, channels, depth, height, width]` to logits of every voxel."""

    def __init__(self, channels: int, widths: tuple[int, ...], classes: int):
        super().__init__()
        steps = list(zip((channels, *widths), widths))
        self.down = nn.ModuleList(Residual(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(steps))
        pairs = list(zip(widths[::-1], widths[-2::-1]))
        self.thin = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in pairs)
        self.up = nn.ModuleList(Residual(2 * b, b) for _, b in pairs)
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, x):
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        for thin, up, other in zip(self.thin, self.up, kept[-2::-1]):
            x = thin(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = up(torch.cat([x, other], 1))
        return self.head(x)


def example():
    return UNet3d(1, (8, 16, 24), 3), {"volume": torch.randn(1, 1, 16, 16, 16)}, ["logits"]
