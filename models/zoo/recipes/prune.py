"""Structured pruning by Beta-Rank: removes whole channels of a stored SimpleNet and trains it further for some epochs.

A filter's score is its mean absolute weight times the sum over output positions of the standard deviation of its output
over the batch, divided by that of its input patch: how much a filter amplifies its input. It is measured on the stored
network (BatchNorm inside the convolutions), with one batch, scaled to 0..1 within a layer.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from zoo import export
from zoo.networks.simplenet import SimpleNet
from zoo.train import augment, cost, loop, stored

# Kernels take output channels four or more at once.
MULTIPLE = 4


def beta_rank(conv: nn.Conv2d, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Scores `[out]` of a convolution's filters from its input and output for one batch."""
    batch, channels, height, width = x.shape
    patches = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)
    spread_in = patches.transpose(0, 1).flatten(0, 1).std(0).clamp_min(1e-6)
    spread_out = out.std(0).flatten(1)
    score = conv.weight.abs().mean((1, 2, 3)) * (spread_out / spread_in).sum(1)
    return (score - score.min()) / (score.max() - score.min()).clamp_min(1e-12)


@torch.no_grad()
def rank(model: SimpleNet, x: torch.Tensor) -> list[torch.Tensor]:
    """Scores of every convolution's filters, in order."""
    scores, modules = [], list(model.eval().features)
    for module, after in zip(modules, [*modules[1:], None]):
        if isinstance(module, nn.Conv2d):
            folded = nn.utils.fusion.fuse_conv_bn_eval(module, after)
            out = folded(x)
            scores.append(beta_rank(folded, x, out))
            x = out
        elif not isinstance(module, nn.BatchNorm2d):
            x = module(x)
    return scores


def keep_counts(model: SimpleNet, share: float, rounding: float) -> list[int]:
    """Channels to keep per convolution at a share of all; multiples, rounded up from the fraction `rounding` on."""
    return [
        min(conv.out_channels, max(1, math.floor(conv.out_channels * share / MULTIPLE + 1 - rounding)) * MULTIPLE)
        for conv, _ in model.convolutions()
    ]


def layer_list(model: SimpleNet, widths: list[int]) -> str:
    """The channel list of `model` with other widths."""
    items, left = [], iter(widths)
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            items.append("p")
        elif isinstance(module, nn.Conv2d):
            items.append(f"{next(left)}{'k1' if module.kernel_size[0] == 1 else ''}")
    return ",".join(items)


def multiply_adds(model: nn.Module, image: torch.Tensor) -> int:
    return sum(cost.multiply_adds(model, image).values())


@torch.no_grad()
def pruned(model: SimpleNet, scores: list[torch.Tensor], less: float, image: torch.Tensor) -> SimpleNet:
    """A network with about `less` of the multiply-adds for an `image` `[1, 3, side, side]` removed: the same share of
    each layer's channels."""
    dense = multiply_adds(model, image)

    def candidate(share: float, rounding: float) -> SimpleNet:
        layers = layer_list(model, keep_counts(model, share, rounding))
        return SimpleNet(layers, classes=model.classifier.out_features)

    choices = [(i / 50, j / 4) for i in range(5, 51) for j in range(1, 4)]
    off = lambda choice: abs(multiply_adds(candidate(*choice), image) / dense - (1 - less))
    small = candidate(*min(choices, key=off))
    kept_in = torch.arange(3)
    for (conv, norm), (to, to_norm), score in zip(model.convolutions(), small.convolutions(), scores, strict=True):
        kept = score.topk(to.out_channels).indices.sort().values
        to.weight.copy_(conv.weight[kept][:, kept_in])
        to.bias.copy_(conv.bias[kept])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(to_norm, name).copy_(getattr(norm, name)[kept])
        kept_in = kept
    small.classifier.weight.copy_(model.classifier.weight[:, kept_in])
    small.classifier.bias.copy_(model.classifier.bias)
    return small


def main() -> None:
    parser = loop.parser(__doc__, epochs=8, batch=128, lr=0.03, adam_lr=2e-3, bf16=True, out=Path("pruned.onnx"))
    parser.add_argument("--base", type=Path, default=Path("pretrained/simplenet-310k-cifar10.onnx"))
    parser.add_argument("--less", type=float, default=0.5, help="share of the multiply-adds to remove")
    args = parser.parse_args()
    opts = loop.options(args)
    data = loop.data(args)
    pictures = augment.normalize(torch.from_numpy(data.train[:1000]), data.source)
    torch.manual_seed(opts.seed)
    dense = stored.simplenet(args.base, pictures, len(data.source.labels))
    model = pruned(dense, rank(dense, pictures[:256]), args.less, pictures[:1])
    stored.recalibrate(model, pictures.split(250))
    left, all_of_them = (multiply_adds(network, pictures[:1]) for network in (model, dense))
    note = f"{left} of {all_of_them} multiply-adds ({100 * (1 - left / all_of_them):.1f} % fewer)"
    export.classifier(loop.fit(model, data, opts, note=note), opts.out, data.source)


if __name__ == "__main__":
    main()
