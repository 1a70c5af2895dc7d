"""A compact vision classifier whose feed-forward layers are experts: a convolutional stem, tokens of 4x4 pixels,
attention, and for every token the best of several experts (Fedus et al., "Switch Transformers", 2022).

`shared_router` is the form of Read-ME (Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of
Experts", NeurIPS 2024): one router before the blocks gives each token an expert for all layers, so that a run's experts
are known before it begins.
"""

import torch
import torch.nn.functional as F
from torch import nn

from zoo.definitions.attention import Attention
from zoo.networks.layers import ConvNorm
from zoo.networks.simplenet import SimpleNet


class Router(nn.Module):
    """Tokens `[T, width]` to the `top` experts' indices and weights, `[T, top]` each; the weights are the softmax over
    all experts. In training, the loss that balances the experts is stored in `balance`."""

    def __init__(self, width: int, experts: int, top: int):
        super().__init__()
        self.linear, self.experts, self.top = nn.Linear(width, experts, bias=False), experts, top
        self.balance = torch.zeros(())

    def forward(self, x):
        chance = self.linear(x.float()).softmax(-1)
        weights, chosen = chance.topk(self.top, -1)
        if self.training:
            share = F.one_hot(chosen, self.experts).float().mean((0, 1))
            self.balance = self.experts * (share * chance.mean(0)).sum()
        return chosen, weights


class Experts(nn.Module):
    """The experts of one layer; `x` is `[T, width]`. All of them are stacked in one tensor per product."""

    def __init__(self, width: int, hidden: int, experts: int):
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, width, hidden) * width**-0.5)
        self.up_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.down = nn.Parameter(torch.randn(experts, hidden, width) * hidden**-0.5)
        self.down_bias = nn.Parameter(torch.zeros(experts, width))

    def grouped(self, x, chosen, weights):
        """Tokens grouped by expert, one product each."""
        out = torch.zeros_like(x)
        for expert in range(len(self.up)):
            rows, place = (chosen == expert).nonzero(as_tuple=True)
            if len(rows):
                y = F.relu(x[rows] @ self.up[expert] + self.up_bias[expert].to(x.dtype))
                y = y @ self.down[expert] + self.down_bias[expert].to(x.dtype)
                out = out.index_add(0, rows, (y * weights[rows, place, None]).to(x.dtype))
        return out

    def gathered(self, x, chosen, weights):
        """Every token with its experts' weights, one batched product: used for export."""
        out = 0
        for place in range(chosen.size(1)):
            expert = chosen[:, place]
            y = F.relu(torch.bmm(x[:, None], self.up[expert]) + self.up_bias[expert][:, None])
            y = torch.bmm(y, self.down[expert])[:, 0] + self.down_bias[expert]
            out = out + y * weights[:, place, None]
        return out

    def forward(self, x, chosen, weights):
        return (self.gathered if torch.onnx.is_in_onnx_export() else self.grouped)(x, chosen, weights)


class ExpertBlock(nn.Module):
    """Attention and experts, each normalized before its sum; routed by its own router or by a given routing."""

    def __init__(self, width: int, heads: int, hidden: int, experts: int, top: int, own_router: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.experts = Attention(width, heads), Experts(width, hidden, experts)
        self.router = Router(width, experts, top) if own_router else None

    def forward(self, x, route):
        x = x + self.attention(self.norm1(x))
        tokens = self.norm2(x).flatten(0, 1)
        chosen, weights = self.router(tokens) if self.router else route
        return x + self.experts(tokens, chosen, weights).view(x.shape)


class FrozenStem(nn.Module):
    """The layers of a trained SimpleNet up to the pool that halves its maps a second time. They do not change."""

    def __init__(self, base: SimpleNet):
        super().__init__()
        layers = list(base.eval().features)
        pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        stem = []
        for layer in layers[: pools[1] + 1]:
            if isinstance(layer, nn.BatchNorm2d):
                stem[-1] = nn.utils.fusion.fuse_conv_bn_eval(stem[-1], layer)
            else:
                stem.append(layer)
        self.layers = nn.Sequential(*stem).requires_grad_(False)
        self.width = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)][-1].out_channels

    def train(self, mode: bool = True):
        return super().train(False)

    def forward(self, x):
        return self.layers(x)


class ExpertNet(nn.Module):
    """Images `[N, 3, side, side]` to logits. One expert is the dense network of equal active size. `stem` takes the
    place of the network's own, and its width that of `width`."""

    def __init__(
        self,
        experts=8,
        top=1,
        shared_router=False,
        width=96,
        hidden=192,
        depth=4,
        side=32,
        classes=10,
        stem: FrozenStem | None = None,
    ):
        super().__init__()
        width = stem.width if stem else width
        self.stem = stem or nn.Sequential(
            ConvNorm(3, 32, 3, activation="relu"),
            ConvNorm(32, 64, 3, 2, activation="relu"),
            ConvNorm(64, width, 3, 2, activation="relu"),
        )
        self.position = nn.Parameter(torch.randn((side // 4) ** 2, width) * 0.02)
        self.shared = Router(width, experts, top) if shared_router else None
        own = not shared_router
        self.blocks = nn.ModuleList(ExpertBlock(width, 4, hidden, experts, top, own) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def routers(self) -> list[Router]:
        return [module for module in self.modules() if isinstance(module, Router)]

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2) + self.position
        route = self.shared(x.flatten(0, 1)) if self.shared else None
        for block in self.blocks:
            x = block(x, route)
        return self.head(self.norm(x).mean(1))
