"""A classifier that stops as soon as it is confident: exits along a SimpleNet with the rule of PALBERT (Balagansky and
Gavrilov, "PALBERT: Teaching ALBERT to Ponder", NeurIPS 2022).

Each exit has a classifier and a gate lambda in 0..1; the probability of having stopped by an exit is one minus the
product of all (1 - lambda) so far. The first exit where it exceeds the threshold answers (Q-exit); the last always
does.
"""

import torch
from torch import nn

from zoo.networks.simplenet import SimpleNet

THRESHOLD = 0.5


class Exit(nn.Module):
    """A feature map to logits `[N, classes]` and the gate `[N]`."""

    def __init__(self, channels: int, classes: int, halvings: int, width: int = 32):
        super().__init__()
        layers = []
        for _ in range(halvings):
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classify, self.gate = nn.Linear(channels, classes), nn.Linear(channels, 1)

    def forward(self, x):
        x = self.layers(x).amax((2, 3))
        return self.classify(x), torch.sigmoid(self.gate(x))[:, 0]


class Tail(nn.Module):
    """The part of a SimpleNet after its layers."""

    def __init__(self, classifier: nn.Linear):
        super().__init__()
        self.classifier = classifier

    def forward(self, x):
        return self.classifier(x.amax((2, 3)))


class ExitingSimpleNet(nn.Module):
    """Images to the logits of the exit at which each stops. `cuts` lists for each exit after how many convolutions (and
    the pool that follows) it comes, and how often it halves its input map; the network itself is frozen."""

    def __init__(self, base: SimpleNet, cuts: tuple[tuple[int, int], ...] = ((2, 2), (4, 2), (7, 1))):
        super().__init__()
        base.requires_grad_(False)
        stages, exits, current, convolutions = [], [], [], 0
        layers = list(base.features)
        halvings = dict(cuts)
        for index, layer in enumerate(layers):
            current.append(layer)
            convolutions += isinstance(layer, nn.Conv2d)
            following = layers[index + 1] if index + 1 < len(layers) else None
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            ends = isinstance(following, nn.Conv2d) and not isinstance(layer, nn.Conv2d)
            if ends and convolutions in halvings:
                stages.append(nn.Sequential(*current))
                exits.append(Exit(channels, base.classifier.out_features, halvings.pop(convolutions)))
                current = []
        self.stages = nn.ModuleList([*stages, nn.Sequential(*current)])
        self.exits, self.tail = nn.ModuleList(exits), Tail(base.classifier)

    def train(self, mode: bool = True):
        """The frozen network's BatchNorm does not change."""
        super().train(mode)
        self.stages.eval()
        return self

    def answers(self, x) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Logits of every exit, including the last, and the gates of all but the last."""
        logits, gates = [], []
        for stage, leave in zip(self.stages, self.exits):
            x = stage(x)
            answer, gate = leave(x)
            logits.append(answer)
            gates.append(gate)
        return [*logits, self.tail(self.stages[-1](x))], gates

    def forward(self, x):
        logits, gates = self.answers(x)
        stops = stop_at(gates, THRESHOLD)
        return torch.stack(logits, 1)[torch.arange(len(stops)), stops]


def stop_at(gates: list[torch.Tensor], threshold: float) -> torch.Tensor:
    """The index of the exit that each sample stops at."""
    going = torch.cumprod(1 - torch.stack(gates, 1), 1)
    # It continues past an exit as long as the probability of having stopped is at most the threshold.
    return (1 - going <= threshold).cumprod(1).sum(1)
