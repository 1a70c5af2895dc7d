"""Dynamic pruning by FTWT: a stored SimpleNet learns heads that mask the channels an image does not need.

The share of activation mass that labels the heads is found on the stored network, so that the masks skip the requested
share of the multiply-adds; the share that the trained heads skip is measured on the test images.
"""

from pathlib import Path

import torch
from torch import nn

from zoo import export
from zoo.networks.masked import MaskedSimpleNet, wanted_channels
from zoo.networks.simplenet import SimpleNet
from zoo.train import augment, cost, loop, stored


def spent(multiply_adds: list[int], active: list[torch.Tensor]) -> float:
    """Share of the convolutions' multiply-adds that is computed, from active inputs to active outputs, averaged over
    images. `active` has the share of active channels of every convolution but the first."""
    shares = [torch.ones_like(active[0]), *active]
    total = multiply_adds[0] * shares[0]
    for count, inputs, outputs in zip(multiply_adds[1:], shares[:-1], shares[1:], strict=True):
        total = total + count * inputs * outputs
    return (total.mean() / sum(multiply_adds)).item()


def convolution_costs(model: SimpleNet, image: torch.Tensor) -> list[int]:
    """Multiply-adds of the convolutions for an `image` `[1, 3, side, side]`, in order."""
    counts = cost.multiply_adds(model, image)
    return [count for name, count in counts.items() if name != "classifier"]


@torch.no_grad()
def mass_for(model: SimpleNet, x: torch.Tensor, less: float) -> float:
    """The activation mass at which labels from the dense network skip `less` of the multiply-adds."""
    costs, activations = convolution_costs(model, x[:1]), []
    model.eval()
    for layer in model.features:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            activations.append(x.clone())
    low, high = 0.0, 1.0
    for _ in range(20):
        mass = (low + high) / 2
        active = [wanted_channels(a, mass).mean(1) for a in activations[1:]]
        low, high = (mass, high) if spent(costs, active) < 1 - less else (low, mass)
    return mass


def objective(model: MaskedSimpleNet, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the masked network and that of its heads."""
    loss = loop.cross_entropy(model, x, targets)
    return loss + model.head_loss


def main() -> None:
    parser = loop.parser(__doc__, epochs=8, batch=128, lr=0.03, adam_lr=2e-3, bf16=True, out=Path("masked.onnx"))
    parser.add_argument("--base", type=Path, default=Path("pretrained/simplenet-310k-cifar10.onnx"))
    parser.add_argument("--less", type=float, default=0.4, help="share of the multiply-adds to skip")
    args = parser.parse_args()
    opts = loop.options(args)
    data = loop.data(args)
    pictures = augment.normalize(torch.from_numpy(data.train[:1000]), data.source)
    torch.manual_seed(opts.seed)
    base = stored.simplenet(args.base, pictures, len(data.source.labels))
    costs, mass = convolution_costs(base, pictures[:1]), mass_for(base, pictures, args.less)
    model = MaskedSimpleNet(base, mass)
    test = torch.from_numpy(data.test)

    @torch.no_grad()
    def report(average: MaskedSimpleNet) -> str:
        shares = []
        for part in test.split(500):
            average(augment.normalize(part, data.source))
            shares.append(average.active)
        share = spent(costs, [torch.cat(layer) for layer in zip(*shares)])
        return f"{100 * (1 - share):.1f} % fewer multiply-adds"

    average = loop.fit(model, data, opts, note=f"activation mass {mass:.3f}", objective=objective, report=report)
    export.classifier(average, opts.out, data.source)


if __name__ == "__main__":
    main()
