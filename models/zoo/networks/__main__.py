"""The networks of the papers as ONNX files with seeded random weights whose activations stay in range.

`python -m zoo.networks OUT_DIR` writes every model; with `--graphs` only the graphs: every weight keeps its name, type
and shape but loses its values, which makes a file of a few kilobytes that fits into a repository. `cargo xtask python
harness.fill` gives it weights again.
"""

import argparse
import functools
from pathlib import Path

import onnx
import torch
from torch import nn

from zoo import export
from zoo.networks import simplenet, skipnet
from zoo.networks.mobilenetv3 import MobileNetV3Large
from zoo.networks.resnet import ResNet18

# A weight of at most this many elements stays in a stripped graph: shapes, axes, scalars.
KEPT_ELEMENTS = 8

IMAGENET = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225", "resize": 256, "crop": 224}

# name -> (how to make it, side of its input)
ZOO = {
    **{f"skipnet_{size}": (functools.partial(skipnet.SkipNet, width), 224) for size, width in skipnet.WIDTHS.items()},
    **{
        name: (functools.partial(simplenet.SimpleNet, name), variant[3])
        for name, variant in simplenet.VARIANTS.items()
    },
    "mobilenetv3_large": (MobileNetV3Large, 224),
    "resnet18": (ResNet18, 224),
}

# Exported with its BatchNormalization nodes, so that folding them is tested: torch folds them into the convolutions of
# every other model.
KEEPS_NORM = {"resnet18"}


def images(side: int, count: int, seed: int) -> torch.Tensor:
    """Random images `[count, 3, side, side]` of unit variance with structure at every scale, like photographs, since
    pure noise always looks the same to a network that pools."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, side, side)
    for cells in (2, 4, 8, side // 2, side):
        coarse = torch.randn(count, 3, cells, cells, generator=generator)
        total += nn.functional.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    return total / total.std()


@torch.no_grad()
def randomize(model: nn.Module, side: int, seed: int = 1) -> nn.Module:
    """Give `model` seeded random weights: He-normal by fan-in, random BatchNorm parameters,
    and running statistics measured on random images, so that activations stay in range."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = None
    model.train()
    model(images(side, 8, seed))
    return model.eval()


def strip(path: Path) -> None:
    """Drop the values of all float weights above `KEPT_ELEMENTS` from the model at `path`."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        elements = functools.reduce(int.__mul__, tensor.dims, 1)
        if tensor.data_type == onnx.TensorProto.FLOAT and elements > KEPT_ELEMENTS:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    onnx.save(proto, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for NAME.onnx")
    parser.add_argument("--only", choices=ZOO, metavar="NAME", help="one model instead of all")
    parser.add_argument("--width", type=float, help="with --only skipnet_*: another width multiplier")
    parser.add_argument("--graphs", action="store_true", help="write the graphs without their weights")
    args = parser.parse_args()
    if args.width and not (args.only or "").startswith("skipnet"):
        parser.error("--width goes with --only skipnet_*")

    args.out.mkdir(parents=True, exist_ok=True)
    for name in [args.only] if args.only else ZOO:
        make, side = ZOO[name]
        if args.width:
            make = functools.partial(skipnet.SkipNet, args.width)
        path = args.out / f"{name}.onnx"
        description = IMAGENET if side == 224 else {"resize": side, "crop": side}
        model, example = randomize(make(), side), {"input": torch.zeros(1, 3, side, side)}
        export.write(model, path, example, ["logits"], metadata=description, keep_norm=name in KEEPS_NORM)
        if args.graphs:
            strip(path)
        print(f"{path}  {path.stat().st_size / 1e6:.3f} MB", flush=True)


if __name__ == "__main__":
    main()
