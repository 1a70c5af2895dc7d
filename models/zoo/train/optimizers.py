"""Muon for the convolutions that BatchNorm follows, Adam for the rest.

Muon (K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) needs few epochs, which suits a
laptop-class CPU.
"""

import torch
from torch import nn


def orthogonalize(update: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix to `update`, by five Newton-Schulz steps
    (quintic with the coefficients of the Muon write-up)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update / (update.norm() + 1e-7)
    transposed = x.size(0) > x.size(1)
    if transposed:
        x = x.T
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized per filter matrix `[out, in*kh*kw]`.

    BatchNorm follows each of these layers and makes them scale-free, so every matrix is
    kept at the norm `sqrt(out)`: the learning rate is then a relative step.
    """

    def __init__(self, params, lr: float, momentum: float = 0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                velocity = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                nesterov = p.grad + group["momentum"] * velocity
                direction = orthogonalize(nesterov.reshape(p.size(0), -1)).view(p.shape)
                p.mul_(p.size(0) ** 0.5 / p.norm())
                p.add_(direction, alpha=-group["lr"])


def scale_free(model: nn.Module) -> list[nn.Parameter]:
    """Weights of dense hidden convolutions directly followed by BatchNorm. The first convolution and depthwise ones are
    excluded: they have too few inputs per filter for an orthogonal step to be meaningful."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            found += [
                layer.weight
                for layer, after in zip(module, list(module)[1:])
                if isinstance(layer, nn.Conv2d)
                and isinstance(after, nn.BatchNorm2d)
                and layer.groups == 1
                and layer.in_channels > 3
                and layer.weight.requires_grad
            ]
    return list({id(p): p for p in found}.values())


def make(model: nn.Module, lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """The optimizers of a model; `lr` is Muon's relative step."""
    muon = scale_free(model)
    held = {id(p) for p in muon}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    optimizers = []
    if muon:
        optimizers.append(Muon(muon, lr=lr))
    if rest:
        optimizers.append(torch.optim.Adam(rest, lr=adam_lr, betas=(0.9, 0.95)))
    return optimizers
