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

# After how many convolutions (and the pool that follows) an exit comes, and the channels of its own convolutions, each
# of which halves the map: an early exit needs more of them to see a whole object.
CUTS = {2: (32, 64, 96), 4: (64, 96), 7: (96,)}


class Exit(nn.Module):
    """A feature map to logits `[N, classes]` and the gate `[N]`.

    The gate reads the two highest probabilities of the answer, through a hidden layer with a tanh as in PALBERT. With
    the pooled features beside them it fits the training images better and others worse. It judges the answer and does
    not shape it: no gradient flows back through it.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...]):
        super().__init__()
        layers = []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Linear(channels, classes)
        self.gate = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def answer(self, x):
        return self.classify(self.layers(x).amax((2, 3)))

    def judge(self, answer):
        likely = answer.detach().float().softmax(1).topk(2)[0]
        return torch.sigmoid(self.gate(likely).float())[:, 0]

    def forward(self, x):
        answer = self.answer(x)
        return answer, self.judge(answer)


class Tail(nn.Module):
    """The part of a SimpleNet after its layers."""

    def __init__(self, classifier: nn.Linear):
        super().__init__()
        self.classifier = classifier

    def forward(self, x):
        return self.classifier(x.amax((2, 3)))


def without_norms(base: SimpleNet) -> list[nn.Module]:
    """The layers of a SimpleNet with every BatchNorm inside the convolution before it."""
    folded = {conv: nn.utils.fusion.fuse_conv_bn_eval(conv, norm) for conv, norm in base.convolutions()}
    return [folded.get(layer, layer) for layer in base.features if not isinstance(layer, nn.BatchNorm2d)]


class ExitingSimpleNet(nn.Module):
    """Images to the logits of the exit at which each stops. `cuts` is written like `CUTS`. The network itself is frozen,
    with BatchNorm inside its convolutions."""

    def __init__(self, base: SimpleNet, cuts: dict[int, tuple[int, ...]] = CUTS):
        super().__init__()
        base.eval().requires_grad_(False)
        stages, exits, current, convolutions = [], [], [], 0
        layers = without_norms(base)
        for index, layer in enumerate(layers):
            current.append(layer)
            convolutions += isinstance(layer, nn.Conv2d)
            following = layers[index + 1] if index + 1 < len(layers) else None
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            ends = isinstance(following, nn.Conv2d) and not isinstance(layer, nn.Conv2d)
            if ends and convolutions in cuts:
                stages.append(nn.Sequential(*current))
                exits.append(Exit(channels, base.classifier.out_features, cuts[convolutions]))
                current = []
        self.stages = nn.ModuleList([*stages, nn.Sequential(*current)])
        self.exits, self.tail = nn.ModuleList(exits), Tail(base.classifier)

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
