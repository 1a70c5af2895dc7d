"""Multiply-adds of a network: convolutions and linear layers, as the papers count them."""

import torch
from torch import nn


@torch.no_grad()
def multiply_adds(model: nn.Module, *inputs: torch.Tensor) -> dict[str, int]:
    """Multiply-adds of each convolution and linear layer for one sample, by module name."""
    found: dict[str, int] = {}

    def count(name):
        def hook(module, _, output):
            per_output = module.weight[0].numel()
            found[name] = found.get(name, 0) + per_output * output[0].numel()

        return hook

    hooks = [
        module.register_forward_hook(count(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    model.eval()
    model(*inputs)
    for hook in hooks:
        hook.remove()
    return found
