"""MobileNetV3-Large (Howard et al., "Searching for MobileNetV3", 2019), table 1."""

import torch.nn.functional as F
from torch import nn

from zoo.networks.layers import ConvNorm, SqueezeExcite, divisible_by_8

# kernel, expanded, out, SE, activation, stride.
_BLOCKS = [
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
]


class Bottleneck(nn.Module):
    """Inverted residual: expand (unless the width stays), depthwise, gate, project."""

    def __init__(self, channels, kernel, expanded, out, gated, activation, stride):
        super().__init__()
        layers = []
        if expanded != channels:
            layers.append(ConvNorm(channels, expanded, 1, activation=activation, eps=1e-3))
        layers.append(
            ConvNorm(expanded, expanded, kernel, stride, groups=expanded, activation=activation, eps=1e-3)
        )
        if gated:
            layers.append(SqueezeExcite(expanded, divisible_by_8(expanded // 4)))
        layers.append(ConvNorm(expanded, out, 1, eps=1e-3))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == out

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.residual else y


class MobileNetV3Large(nn.Module):
    """Images `[N, 3, 224, 224]` to logits `[N, classes]`."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.stem = ConvNorm(3, 16, 3, 2, activation="hardswish", eps=1e-3)
        blocks, channels = [], 16
        for kernel, expanded, out, gated, activation, stride in _BLOCKS:
            blocks.append(Bottleneck(channels, kernel, expanded, out, gated, activation, stride))
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, 960, 1, activation="hardswish", eps=1e-3)
        self.classifier = nn.Sequential(nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, classes))

    def forward(self, x):
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
