"""NASNet-A cells (Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018):
five sums of separable convolutions and poolings of the two previous cells, put side by side."""

import torch
from torch import nn


class Separable(nn.Sequential):
    """ReLU, depthwise, pointwise, BatchNorm, twice; the stride is in the first."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1):
        def once(width, step):
            return [
                nn.ReLU(),
                nn.Conv2d(width, width, kernel, step, kernel // 2, groups=width, bias=False),
                nn.Conv2d(width, out, 1, bias=False),
                nn.BatchNorm2d(out, eps=1e-3),
            ]

        super().__init__(*once(channels, stride), *once(out, 1))


class Squeeze(nn.Sequential):
    """ReLU, pointwise, BatchNorm; halves the sides of a previous cell that is larger."""

    def __init__(self, channels: int, out: int, halve: bool = False):
        layers = [nn.ReLU(), nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out, eps=1e-3)]
        super().__init__(*([nn.AvgPool2d(2)] if halve else []), *layers)


class NormalCell(nn.Module):
    """Same sides; `[N, before, ...]` and `[N, channels, ...]` to `[N, 6 width, ...]`."""

    def __init__(self, before: int, channels: int, width: int, halve_before: bool = False):
        super().__init__()
        self.previous, self.current = Squeeze(before, width, halve_before), Squeeze(channels, width)
        self.a5, self.a3 = Separable(width, width, 5), Separable(width, width, 3)
        self.b5, self.b3 = Separable(width, width, 5), Separable(width, width, 3)
        self.c3 = Separable(width, width, 3)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, before, x):
        p, h = self.previous(before), self.current(x)
        sums = [
            self.a5(h) + self.a3(p),
            self.b5(p) + self.b3(p),
            self.pool(h) + p,
            self.pool(p) + self.pool(p),
            self.c3(h) + h,
        ]
        return torch.cat([p, *sums], 1)


class ReductionCell(nn.Module):
    """Half the sides; to `[N, 4 width, ...]`."""

    def __init__(self, before: int, channels: int, width: int):
        super().__init__()
        self.previous, self.current = Squeeze(before, width), Squeeze(channels, width)
        self.a5, self.a7 = Separable(width, width, 5, 2), Separable(width, width, 7, 2)
        self.b7, self.c5 = Separable(width, width, 7, 2), Separable(width, width, 5, 2)
        self.d3 = Separable(width, width, 3)
        self.most, self.mean = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.same = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, before, x):
        p, h = self.previous(before), self.current(x)
        first = self.a5(h) + self.a7(p)
        second = self.most(h) + self.b7(p)
        third = self.mean(h) + self.c5(p)
        return torch.cat([second, third, self.same(first) + second, self.d3(first) + self.most(h)], 1)


class NASNet(nn.Module):
    """Images to logits: a stem, a normal cell, a reduction, a normal cell."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        stem = 3 * width
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem, eps=1e-3))
        self.first = NormalCell(stem, stem, width)
        self.reduce = ReductionCell(stem, 6 * width, 2 * width)
        self.second = NormalCell(6 * width, 8 * width, 2 * width, halve_before=True)
        self.head = nn.Linear(12 * width, classes)

    def forward(self, images):
        stem = self.stem(images)
        first = self.first(stem, stem)
        reduced = self.reduce(stem, first)
        return self.head(torch.relu(self.second(first, reduced)).mean((2, 3)))


def example():
    return NASNet(8, 10), {"input": torch.randn(1, 3, 32, 32)}, ["logits"]
