"""Unstructured pruning: gradual magnitude pruning of a stored SimpleNet, then fine-tuning with the mask fixed.

The share of zeros rises as 1 - (1 - t)^3 over the first half (Zhu and Gupta, "To prune, or not to prune", 2017), the
same in every convolution but the first; it starts at the zeros that the stored network already has. `--block 4` prunes
four output channels at once (4x1 blocks, scored by the sum of their absolute weights), which a kernel with vectors of
output channels can skip.
"""

from pathlib import Path

import torch
from torch import nn

from zoo import export
from zoo.train import augment, loop, stored

# Pruning ends at this share of the training.
SETTLED = 0.5
# Steps between two updates of the mask, as a share of the training.
INTERVAL = 0.005


def prunable(model: nn.Module) -> list[nn.Conv2d]:
    """The convolutions to prune: all but those of the image itself and depthwise ones."""
    return [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 3 and m.groups == 1]


def zeros_at(progress: float, first: float, last: float) -> float:
    """Target share of zeros at this share of the training."""
    return last - (last - first) * (1 - min(1.0, progress / SETTLED)) ** 3


@torch.no_grad()
def mask_of(weight: torch.Tensor, zeros: float, block: int) -> torch.Tensor:
    """1 where a weight is kept, 0 where its block is among the smallest `zeros` of all."""
    out = weight.size(0)
    sums = weight.abs().reshape(out // block, block, -1).sum(1)
    pruned = round(zeros * sums.numel())
    mask = torch.ones_like(sums).flatten()
    mask[sums.flatten().argsort()[:pruned]] = 0
    return mask.view_as(sums).repeat_interleave(block, 0).view_as(weight)


def share_of_zeros(model: nn.Module) -> float:
    """Share of zeros among the weights of the prunable convolutions."""
    weights = [conv.weight for conv in prunable(model)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def gradual(first: float, last: float, block: int):
    """The constraint of a training: masks that go from the share `first` of zeros to `last`, then stay fixed."""
    decided = {"at": 0.0}

    @torch.no_grad()
    def constrain(model: nn.Module, target: nn.Module, progress: float) -> None:
        if progress <= SETTLED + INTERVAL and progress >= decided["at"] + INTERVAL:
            decided["at"] = progress
            for conv in prunable(model):
                conv.mask.copy_(mask_of(conv.weight * conv.mask, zeros_at(progress, first, last), block))
        for conv, to in zip(prunable(model), prunable(target), strict=True):
            to.weight.mul_(conv.mask)

    return constrain


def masked(model: nn.Module) -> nn.Module:
    """`model` with a mask beside each prunable weight, 0 where the weight is 0."""
    for conv in prunable(model):
        conv.register_buffer("mask", (conv.weight.detach() != 0).float())
    return model


def main() -> None:
    parser = loop.parser(__doc__, epochs=8, batch=128, lr=0.03, adam_lr=2e-3, bf16=True, out=Path("sparse.onnx"))
    parser.add_argument("--base", type=Path, default=Path("pretrained/simplenet-310k-cifar10.onnx"))
    parser.add_argument("--zeros", type=float, default=0.8, help="share of zeros in the convolutions but the first")
    parser.add_argument("--block", type=int, default=1, help="output channels that are pruned together")
    args = parser.parse_args()
    opts = loop.options(args)
    data = loop.data(args)
    pictures = augment.normalize(torch.from_numpy(data.train[:1000]), data.source)
    torch.manual_seed(opts.seed)
    model = masked(stored.simplenet(args.base, pictures, len(data.source.labels)))
    average = loop.fit(
        model,
        data,
        opts,
        constrain=gradual(share_of_zeros(model), args.zeros, args.block),
        report=lambda average: f"zeros {100 * share_of_zeros(average):.1f} %",
    )
    export.classifier(average, opts.out, data.source)


if __name__ == "__main__":
    main()
