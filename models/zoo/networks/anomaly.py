"""SimpleNet, the anomaly detector (Liu et al., "SimpleNet: A Simple Network for Image Anomaly Detection and
Localization", CVPR 2023), on EfficientNet-Lite0.

Two mid-level maps of a frozen backbone, each averaged over 3x3 patches, are concatenated at the finer one's resolution;
a linear adaptor and a small discriminator score every position. The paper unfolds patches and pools their C*9 elements
to a chosen width; pooled to C this is the 3x3 average, which is computed here.
"""

import torch
import torch.nn.functional as F
from torch import nn

from zoo.networks.efficientnet_lite import EfficientNetLite0

# The blocks whose expansion is used: the last at stride 8 and the last at stride 16 before they are reduced.
_FINE, _COARSE = 5, 11
FINE_CHANNELS, COARSE_CHANNELS = 240, 672
SIGMA, TAPS = 4.0, 33


class Features(nn.Module):
    """Images to `[N, 912, H/8, W/8]`."""

    def __init__(self, backbone: EfficientNetLite0):
        super().__init__()
        self.stem = backbone.stem
        self.fine = backbone.blocks[:_FINE]
        self.fine_expand = backbone.blocks[_FINE].expand
        self.coarse = backbone.blocks[_FINE:_COARSE]
        self.coarse_expand = backbone.blocks[_COARSE].expand

    def maps(self, x):
        """The two maps, averaged over patches."""
        x = self.stem(x)
        for block in self.fine:
            x = block(x)
        fine = self.fine_expand(x)
        for block in self.coarse:
            x = block(x)
        return F.avg_pool2d(fine, 3, 1, 1), F.avg_pool2d(self.coarse_expand(x), 3, 1, 1)

    def forward(self, x):
        return join(*self.maps(x))


def join(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """Both maps at the finer one's resolution."""
    coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat([fine, coarse], 1)


class Head(nn.Module):
    """Adaptor and discriminator, as 1x1 convolutions over the positions; a high value is normal."""

    def __init__(self, channels=FINE_CHANNELS + COARSE_CHANNELS, adapted=384, hidden=256):
        super().__init__()
        self.adaptor = nn.Conv2d(channels, adapted, 1)
        self.discriminator = nn.Sequential(
            nn.Conv2d(adapted, hidden, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1, bias=False)
        )

    def forward(self, x):
        return self.discriminator(self.adaptor(x))


class AnomalyDetector(nn.Module):
    """Images `[N, 3, side, side]` to the image score `[N]` and the heat map `[N, 1, side, side]`; higher is worse."""

    def __init__(self, features: Features, head: Head):
        super().__init__()
        self.features, self.head = features, head
        distance = torch.arange(TAPS) - TAPS // 2
        taps = torch.exp(-0.5 * (distance / SIGMA) ** 2)
        self.register_buffer("taps", taps / taps.sum())

    def smooth(self, x):
        """A separable gaussian over a mirrored border."""
        half = TAPS // 2
        x = F.pad(x, (half, half, half, half), mode="reflect")
        x = F.conv2d(x, self.taps.view(1, 1, TAPS, 1))
        return F.conv2d(x, self.taps.view(1, 1, 1, TAPS))

    def forward(self, x):
        score = -self.head(self.features(x))
        heat = F.interpolate(score, scale_factor=8.0, mode="bilinear", align_corners=False)
        return score.amax(dim=(1, 2, 3)), self.smooth(heat)
