"""A 32x32 SimpleNet from scratch on CIFAR-10, MNIST or Fashion-MNIST."""

from pathlib import Path

import torch

from zoo import export
from zoo.data import images
from zoo.networks.simplenet import SimpleNet
from zoo.train import loop

# Small images first: the network ends in a global pool, so any size works.
SIDES = {32: ((0.0, 20), (0.25, 24), (0.5, 32)), 28: ((0.0, 20), (0.3, 28))}


def main() -> None:
    parser = loop.parser(__doc__, epochs=48, batch=256, bf16=True, out=Path("simplenet.onnx"))
    parser.add_argument("--variant", default="simplenet_310k")
    parser.add_argument("--data", choices=images.SOURCES, default="cifar10")
    args = parser.parse_args()
    data = images.load(args.data, args.cache)
    opts = loop.options(args, SIDES[data.source.side])
    torch.manual_seed(opts.seed)
    model = SimpleNet(args.variant, classes=len(data.source.labels), channels=data.source.channels)
    export.classifier(loop.fit(model, data, opts), opts.out, data.source)


if __name__ == "__main__":
    main()
