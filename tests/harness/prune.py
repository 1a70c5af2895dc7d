"""Sets weights of the zoo's networks to zero, for measuring and testing sparse kernels.

`cargo xtask python harness.prune NAME ZEROS [--every-size]` writes build/pruned/NAME_ZEROS.onnx: the network with random weights
(harness/fill.py), where that percentage of the weights of every 1x1 convolution and linear layer, the smallest ones, are
zero. 0 is the same network with nothing pruned. Besides the zoo's networks there is `mobilenet_v1`.
"""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness import driver, fill

PRUNED = fill.ROOT / "build" / "pruned"

# Filters and strides of MobileNetV1's depthwise separable layers (A. Howard et al., 2017, table 1).
MOBILENET_V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


def mobilenet_v1() -> onnx.ModelProto:
    """MobileNetV1 at width 1.0 for 224 pixels, with BatchNorm folded and random weights."""
    random, nodes, weights = np.random.default_rng(1), [], []

    def layer(op: str, x: str, dims: tuple[int, ...], **attributes) -> str:
        name = f"{op.lower()}{len(nodes)}"
        filters = random.normal(0, math.sqrt(2 / math.prod(dims[1:])), dims).astype(np.float32)
        bias = random.normal(0, 0.1, dims[0]).astype(np.float32)
        weights.extend([numpy_helper.from_array(filters, f"{name}.weight"), numpy_helper.from_array(bias, f"{name}.bias")])
        nodes.append(helper.make_node(op, [x, f"{name}.weight", f"{name}.bias"], [name], name=name, **attributes))
        return name

    def convolution(x: str, dims: tuple[int, ...], stride: int, groups: int = 1) -> str:
        pad = [dims[2] // 2] * 4
        y = layer("Conv", x, dims, kernel_shape=dims[2:], strides=[stride] * 2, pads=pad, group=groups)
        nodes.append(helper.make_node("Relu", [y], [f"{y}.relu"]))
        return f"{y}.relu"

    x, channels = convolution("input", (32, 3, 3, 3), 2), 32
    for filters, stride in MOBILENET_V1:
        x = convolution(x, (channels, 1, 3, 3), stride, channels)
        x, channels = convolution(x, (filters, channels, 1, 1), 1), filters
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    nodes.append(helper.make_node("Identity", [layer("Gemm", "features", (1000, channels), transB=1)], ["logits"]))
    ports = [("input", [1, 3, 224, 224]), ("logits", [1, 1000])]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)] for name, dims in ports]
    graph = helper.make_graph(nodes, "mobilenet_v1", *ports, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fill.normalize_spread(model)
    return model


def source(name: str) -> Path:
    """The network with random weights."""
    path = fill.FILLED / f"{name}.onnx"
    if not path.exists():
        fill.FILLED.mkdir(parents=True, exist_ok=True)
        onnx.save(mobilenet_v1(), path) if name == "mobilenet_v1" else fill.fill(name)
    return path


def pruned(skipstone: driver.Skipstone, name: str, percent: int, every_size: bool = False) -> Path:
    """Write the network with this percentage of zeros and return its path."""
    PRUNED.mkdir(parents=True, exist_ok=True)
    path = PRUNED / f"{name}_{percent}.onnx"
    skipstone.call("prune", source(name), "-o", path, "--zeros", percent, *([] if every_size else ["--pointwise"]))
    return path


if __name__ == "__main__":
    parser = driver.arguments(__doc__)
    parser.add_argument("name", help="a model of the zoo, or mobilenet_v1")
    parser.add_argument("zeros", nargs="+", type=int, help="percentages")
    parser.add_argument("--every-size", action="store_true", help="prune convolutions of any size")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    for percent in args.zeros:
        print(pruned(skipstone, args.name, percent, args.every_size).relative_to(fill.ROOT))
