"""A small SimpleNet from scratch on CIFAR-10, MNIST, Fashion-MNIST or a folder."""

from pathlib import Path

import torch

from zoo import export
from zoo.networks.simplenet import SimpleNet
from zoo.train import loop


def growing(side: int) -> tuple[tuple[float, int], ...]:
    """Small images first: the network ends in a global pool, so any size from 16 works."""
    if side < 16:
        raise SystemExit(f"images of {side} pixels are too small for four pools")
    small, middle = max(16, side * 5 // 8), max(16, side * 3 // 4)
    return ((0.0, 20), (0.3, 28)) if side == 28 else ((0.0, small), (0.25, middle), (0.5, side))


def main() -> None:
    parser = loop.parser(__doc__, epochs=48, batch=256, bf16=True, out=Path("simplenet.onnx"))
    parser.add_argument("--variant", default="simplenet_310k")
    args = parser.parse_args()
    data = loop.data(args, gray=True)
    opts = loop.options(args, growing(data.source.side))
    torch.manual_seed(opts.seed)
    model = SimpleNet(args.variant, classes=len(data.source.labels), channels=data.source.channels)
    export.classifier(loop.fit(model, data, opts), opts.out, data.source)


if __name__ == "__main__":
    main()
