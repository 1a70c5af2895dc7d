"""A soup of sparse siblings: a stored sparse SimpleNet is trained further several times with a fixed mask, the results
are averaged, and BatchNorm is measured again (Zimmer, Spiegel and Pokutta, "Sparse Model Soups", ICLR 2024).
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from zoo import export
from zoo.recipes.sparse import masked, prunable, share_of_zeros
from zoo.train import augment, loop, stored


@torch.no_grad()
def keep_mask(model: nn.Module, target: nn.Module, progress: float) -> None:
    """The constraint of a training whose mask does not change."""
    for conv, to in zip(prunable(model), prunable(target), strict=True):
        to.weight.mul_(conv.mask)


@torch.no_grad()
def mean_of(parts: list[nn.Module]) -> nn.Module:
    """A network whose parameters are the mean of the parts'."""
    result = copy.deepcopy(parts[0])
    for name, parameter in result.named_parameters():
        parameter.copy_(torch.stack([dict(part.named_parameters())[name] for part in parts]).mean(0))
    return result


def main() -> None:
    parser = loop.parser(__doc__, epochs=3, batch=128, lr=0.02, adam_lr=1e-3, bf16=True, out=Path("soup.onnx"))
    parser.add_argument("--base", type=Path, required=True, help="a sparse SimpleNet")
    parser.add_argument("--siblings", type=int, default=3)
    args = parser.parse_args()
    opts = loop.options(args)
    data = loop.data(args)
    pictures = augment.normalize(torch.from_numpy(data.train[:5000]), data.source)
    test, labels = torch.from_numpy(data.test), torch.from_numpy(data.test_labels)
    parts = []
    for seed in range(opts.seed, opts.seed + args.siblings):
        own = replace(opts, seed=seed, out=opts.out.with_name(f"{opts.out.stem}.part{seed}.onnx"))
        part = masked(stored.simplenet(args.base, pictures[:1000], len(data.source.labels)))
        parts.append(loop.fit(part, data, own, constrain=keep_mask))
    soup = mean_of(parts)
    stored.recalibrate(soup, pictures.split(250))
    log = loop.Log(opts.out.with_suffix(".log"), resumed=False)
    log.line(f"# python -m zoo.recipes.soup {' '.join(sys.argv[1:])}")
    for part in parts:
        log.line(f"part  test {100 * loop.accuracy(part, test, labels, data.source, data.source.side):.2f} %")
    right = loop.accuracy(soup, test, labels, data.source, data.source.side)
    log.line(f"soup of {len(parts)}  test {100 * right:.2f} %  zeros {100 * share_of_zeros(soup):.1f} %")
    export.classifier(soup, opts.out, data.source)


if __name__ == "__main__":
    main()
