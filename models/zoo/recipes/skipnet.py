"""SkipNet on CIFAR-10 at 64 pixels, with the Bias loss or plain cross-entropy.

Images grow with the epochs (32, 48, 64 pixels): the network ends in a global pool, so any size works. Larger images of
one's own are trained at their size, and first at half and three quarters of it.
"""

from pathlib import Path

import torch

from zoo.networks.skipnet import SkipNet
from zoo.train import loop
from zoo import export

# The least side of the trained network, and the share of the epochs from which images have which share of it.
LEAST = 64
GROWTH = ((0.0, 0.5), (0.4, 0.75), (0.75, 1.0))

# The paper's alpha and beta: a sample's weight is exp(alpha * v) - beta.
ALPHA, BETA = 0.3, 0.3


def diversity(features: torch.Tensor) -> torch.Tensor:
    """The variance of every sample's last feature map `[n, channels, h, w]`."""
    return features.float().flatten(1).var(1)


def bias_loss(model: SkipNet, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy weighted by the variance of the last feature map, scaled to 0..1 within the batch: samples that
    offer little to learn get less weight (Bias Loss, ICCV 2021, equation 3)."""
    features = model.features(x)
    with torch.no_grad():
        variance = diversity(features)
        low, high = variance.aminmax()
        weight = torch.exp(ALPHA * (variance - low) / (high - low + 1e-12)) - BETA
    return (weight * loop.soft_cross_entropy(model.classify(features), targets)).mean()


def main() -> None:
    parser = loop.parser(__doc__, epochs=40, batch=128, lr=0.025, adam_lr=1.5e-3, out=Path("skipnet.onnx"))
    parser.add_argument("--width", type=float, default=0.5, help="1 is the published SkipNet M")
    parser.add_argument("--loss", choices=("bias", "ce"), default="bias")
    args = parser.parse_args()
    data = loop.data(args)
    full = max(LEAST, data.source.side)
    if full % 32:
        raise SystemExit(f"a side of {full} pixels is not a multiple of 32")
    opts = loop.options(args, tuple((after, round(share * full / 16) * 16) for after, share in GROWTH))
    torch.manual_seed(opts.seed)
    model = SkipNet(args.width, classes=len(data.source.labels))
    test = torch.from_numpy(data.test[:1000])

    @torch.no_grad()
    def report(average: SkipNet) -> str:
        x = loop.augment.resized(loop.augment.normalize(test, data.source), full)
        spread = diversity(torch.cat([average.features(part) for part in x.split(250)]))
        return f"diversity {spread.mean():.4f}"

    objective = bias_loss if args.loss == "bias" else loop.cross_entropy
    average = loop.fit(model, data, opts, objective=objective, report=report)
    export.classifier(average, opts.out, data.source, side=full)


if __name__ == "__main__":
    main()
