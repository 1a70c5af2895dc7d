"""Layers shared by the mobile networks of the zoo."""

from torch import nn

_ACTIVATIONS = {"relu": nn.ReLU, "hardswish": nn.Hardswish}


def divisible_by_8(width: float) -> int:
    """The multiple of 8 nearest to `width`, at least 8 and not below 0.9 of it."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


class ConvNorm(nn.Sequential):
    """Convolution without bias and with "same" padding for odd kernels, BatchNorm, and the named activation, if any."""

    def __init__(self, channels, out, kernel, stride=1, *, groups=1, activation=None, eps=1e-5):
        layers = [
            nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out, eps=eps),
        ]
        if activation:
            layers.append(_ACTIVATIONS[activation]())
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu et al., 2018), the
    gate being a hard sigmoid (MobileNetV3)."""

    def __init__(self, channels, reduced):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, reduced, 1),
            nn.ReLU(),
            nn.Conv2d(reduced, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x):
        return x * self.gate(x)
