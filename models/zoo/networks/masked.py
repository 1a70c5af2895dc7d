"""A SimpleNet whose convolutions compute only the channels that an image needs: FTWT (Elkerdawy et al., "Fire Together
Wire Together: A Dynamic Pruning Approach with Self-Supervised Mask Prediction", CVPR 2022).

Every convolution but the first has a head, which reads the mean of the convolution's input and computes a logit for
each output channel. Channels with a logit at or below zero are multiplied by zero: as a graph, head -> Greater -> Cast
-> Mul.
"""

import torch
import torch.nn.functional as F
from torch import nn

from zoo.networks.simplenet import SimpleNet


def wanted_channels(activations: torch.Tensor, mass: float) -> torch.Tensor:
    """The targets of a head, `[N, channels]`: 1 for the channels with the largest activations that together make up the
    share `mass` of the sum of every channel's largest activation; 0 for the rest."""
    largest = activations.amax(dim=(2, 3)).float()
    order = largest.argsort(1, descending=True)
    sorted_mass = largest.gather(1, order)
    before = sorted_mass.cumsum(1) - sorted_mass
    wanted = (before < mass * sorted_mass.sum(1, keepdim=True)).float()
    return torch.zeros_like(wanted).scatter(1, order, wanted)


class MaskedSimpleNet(nn.Module):
    """Images to logits; stores the heads' loss in `head_loss` in training, and in evaluation the share of active
    channels of each convolution in `active`, `[N]` each."""

    def __init__(self, base: SimpleNet, mass: float):
        super().__init__()
        self.features, self.classifier, self.mass = base.features, base.classifier, mass
        self.heads = nn.ModuleDict()
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d) and index:
                head = nn.Conv2d(layer.in_channels, layer.out_channels, 1)
                nn.init.zeros_(head.weight)
                nn.init.constant_(head.bias, 1.0)
                self.heads[str(index)] = head
        self.head_loss = torch.zeros(())
        self.active: list[torch.Tensor] = []

    def forward(self, x):
        losses, self.active = [], []
        head = None
        for index, layer in enumerate(self.features):
            if str(index) in self.heads:
                head = self.heads[str(index)](x.detach().mean((2, 3), keepdim=True))
            x = layer(x)
            if isinstance(layer, nn.ReLU) and head is not None:
                if self.training:
                    wanted = wanted_channels(x.detach(), self.mass)
                    losses.append(F.binary_cross_entropy_with_logits(head.float().flatten(1), wanted))
                mask = (head > 0).to(x.dtype)
                self.active.append(mask.flatten(1).mean(1))
                x = x * mask
                head = None
        if self.training:
            self.head_loss = torch.stack(losses).mean()
        return self.classifier(x.amax(dim=(2, 3)))
