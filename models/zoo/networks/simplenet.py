"""SimpleNet, the classifier (Hasanpour et al., "Lets keep it simple, using simple
architectures to outperform deeper and more complex architectures", 2016).

A plain stack: every layer is a convolution with bias, BatchNorm and ReLU, followed by a global *max* pool and one
linear layer. A variant is only a list of channels, so this file holds such lists. `"p"` is a 2x2 max pool of stride 2,
`"256k1"` a 1x1 convolution of 256 channels; every other layer is 3x3 with padding 1.
"""

from torch import nn

_IMAGENET_LISTS = {
    "5m": "64,128,128,128,128,128,p,256,256,256,512,p,2048k1,256k1,256",
    "9m": "128,192,192,192,192,192,p,320,320,320,640,p,2560k1,320k1,320",
}

# Strides of the first layers; the rest keep stride 1.
_STRIDE_MODES = {
    "m1": (2, 2, 2),
    "m2": (2, 2, 1, 2),
    "m3": (2, 2, 1, 1, 2),
    "m4": (2, 1, 2, 1, 2, 1),
}

_SMALL_LISTS = {
    "310k": "64,32,32,32,p,32,32,64,p,64,64,p,128,256k1,64k1,p,64",
    "460k": "32,32,32,64,p,64,64,64,p,64,64,p,96,96k1,96k1,p,100",
    "5m_cifar": "64,128,128,128,p,128,128,256,p,256,256,p,512,2048k1,256k1,p,256",
}

# name -> (channel list, scale, stride mode, input side, default classes)
VARIANTS = {
    "simplenet_310k": (_SMALL_LISTS["310k"], 1.0, None, 32, 10),
    "simplenet_460k": (_SMALL_LISTS["460k"], 1.0, None, 32, 10),
    "simplenet_5m": (_SMALL_LISTS["5m_cifar"], 1.0, None, 32, 10),
    "simplenet_small_m1_05": (_IMAGENET_LISTS["5m"], 0.5, "m1", 224, 1000),
    "simplenet_small_m2_05": (_IMAGENET_LISTS["5m"], 0.5, "m2", 224, 1000),
    "simplenet_small_m1_075": (_IMAGENET_LISTS["5m"], 0.75, "m1", 224, 1000),
    "simplenet_small_m2_075": (_IMAGENET_LISTS["5m"], 0.75, "m2", 224, 1000),
    "simplenet_5m_m1": (_IMAGENET_LISTS["5m"], 1.0, "m1", 224, 1000),
    "simplenet_5m_m2": (_IMAGENET_LISTS["5m"], 1.0, "m2", 224, 1000),
    "simplenet_9m_m1": (_IMAGENET_LISTS["9m"], 1.0, "m1", 224, 1000),
    "simplenet_9m_m2": (_IMAGENET_LISTS["9m"], 1.0, "m2", 224, 1000),
}


class SimpleNet(nn.Module):
    """Images `[N, channels, side, side]` to logits `[N, classes]`. `variant` is a name in `VARIANTS` or a channel list
    for 32x32 images, such as a pruned network's."""

    def __init__(self, variant: str, classes: int | None = None, dropout: float = 0.0, channels: int = 3):
        super().__init__()
        layers, scale, mode, self.side, default_classes = VARIANTS.get(variant, (variant, 1.0, None, 32, 10))
        strides = list(_STRIDE_MODES[mode]) if mode else []
        features: list[nn.Module] = []
        for item in layers.split(","):
            if item == "p":
                features.append(nn.MaxPool2d(2, 2))
                if dropout:
                    features.append(nn.Dropout2d(dropout))
                continue
            width, _, one = item.partition("k")
            out = round(int(width) * scale)
            kernel = 1 if one else 3
            stride = strides.pop(0) if strides else 1
            features += [
                nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=True),
                nn.BatchNorm2d(out, eps=1e-5),
                nn.ReLU(inplace=True),
            ]
            channels = out
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(channels, classes or default_classes)

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.amax(dim=(2, 3)))

    def convolutions(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """The convolutions with the BatchNorm that follows each."""
        layers = list(self.features)
        return [(conv, norm) for conv, norm in zip(layers, layers[1:]) if isinstance(conv, nn.Conv2d)]
