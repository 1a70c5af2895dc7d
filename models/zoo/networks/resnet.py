"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", 2015): the plain, dense network that a runtime
must be fast on before tricks matter."""

import torch.nn.functional as F
from torch import nn

from zoo.networks.layers import ConvNorm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 where the shape changes."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(channels, out, 3, stride, activation="relu"), ConvNorm(out, out, 3))
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else ConvNorm(channels, out, 1, stride)

    def forward(self, x):
        return F.relu(self.layers(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """Images `[N, 3, 224, 224]` to logits `[N, classes]`."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 64, 7, 2, activation="relu"), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], 64
        for out, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
            blocks += [BasicBlock(channels, out, stride), BasicBlock(out, out, 1)]
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
