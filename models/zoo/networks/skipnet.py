"""SkipNet (Abrahamyan et al., "Bias Loss for Mobile Neural Networks", ICCV 2021), which its
authors later call SkipblockNet.

A MobileNetV3-like stack, plus two *skip blocks*: small branches that pool the full-size
feature map of the very first block and add it, much deeper, to the features there.

M is the published network. The block tables of the paper's other sizes are not public: XS, S and L here are M with
every width scaled.
"""

import torch.nn.functional as F
from torch import nn

from zoo.networks.layers import ConvNorm, SqueezeExcite, divisible_by_8

# kernel, expanded, out, SE reduced (0 = none), activation, stride: blocks 1 to 13.
_BLOCKS = [
    (3, 64, 24, 0, "relu", 2),
    (3, 72, 24, 0, "relu", 1),
    (5, 72, 40, 24, "relu", 2),
    (5, 120, 40, 32, "relu", 1),
    (5, 240, 40, 64, "hardswish", 1),
    (3, 240, 80, 0, "hardswish", 2),
    (3, 200, 80, 0, "hardswish", 1),
    (3, 184, 80, 0, "hardswish", 1),
    (3, 184, 80, 0, "hardswish", 1),
    (3, 480, 112, 120, "hardswish", 1),
    (3, 672, 112, 168, "hardswish", 1),
    (5, 672, 160, 168, "hardswish", 2),
    (5, 960, 160, 240, "hardswish", 1),
    (5, 960, 160, 240, "hardswish", 1),
]

# The blocks after which a skip block is added: index -> (downscale, hidden, kernel).
_SKIPS = {4: (4, 96, 5), 8: (8, 40, 3)}

# Chosen to match the multiply-adds of the paper's sizes: 82, 155, 237 and 353 M.
WIDTHS = {"xs": 0.55, "s": 0.75, "m": 1.0, "l": 1.2}


class Block(nn.Module):
    """Pointwise, depthwise, squeeze-and-excite, pointwise; residual where shapes allow."""

    def __init__(self, channels, kernel, expanded, out, reduced, activation, stride):
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(channels, expanded, 1, activation=activation),
            ConvNorm(expanded, expanded, kernel, stride, groups=expanded, activation=activation),
            SqueezeExcite(expanded, reduced) if reduced else nn.Identity(),
            ConvNorm(expanded, out, 1),
        )
        self.residual = stride == 1 and channels == out

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.residual else y


class SkipBlock(nn.Module):
    """The first block's features, pooled `downscale` times and brought to `out` channels."""

    def __init__(self, channels, downscale, hidden, kernel, out):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AvgPool2d(downscale),
            ConvNorm(channels, hidden, 1, activation="relu"),
            ConvNorm(hidden, hidden, kernel, groups=hidden, activation="relu"),
            ConvNorm(hidden, out, 1),
        )

    def forward(self, x):
        return self.layers(x)


class SkipNet(nn.Module):
    """Images `[N, 3, 224, 224]` to logits `[N, classes]`. The side must divide by 32, so that
    the skip blocks' pools, adaptive in the paper, are plain average pools."""

    def __init__(self, width: float = 1.0, classes: int = 1000):
        super().__init__()

        def scaled(channels):
            return divisible_by_8(channels * width)

        base = scaled(16)
        self.stem = ConvNorm(3, base, 3, 2, activation="hardswish")
        self.base = Block(base, 3, base, base, 0, "hardswish", 1)
        self.blocks, self.skips = nn.ModuleList(), nn.ModuleDict()
        channels = base
        for index, (kernel, expanded, out, reduced, activation, stride) in enumerate(_BLOCKS):
            reduced = divisible_by_8(scaled(expanded) // 4) if reduced else 0
            self.blocks.append(Block(channels, kernel, scaled(expanded), scaled(out), reduced, activation, stride))
            channels = scaled(out)
            if index in _SKIPS:
                downscale, hidden, skip_kernel = _SKIPS[index]
                self.skips[str(index)] = SkipBlock(base, downscale, scaled(hidden), skip_kernel, channels)
        self.head = ConvNorm(channels, scaled(960), 1, activation="hardswish")
        self.classifier = nn.Sequential(
            nn.Linear(scaled(960), scaled(1280)), nn.Hardswish(), nn.Linear(scaled(1280), classes)
        )

    def features(self, x):
        """The last feature map, before it is pooled."""
        base = x = self.base(self.stem(x))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if str(index) in self.skips:
                x = x + self.skips[str(index)](base)
        return self.head(x)

    def classify(self, features):
        """The logits of a last feature map."""
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))

    def forward(self, x):
        return self.classify(self.features(x))
