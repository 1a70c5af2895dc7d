"""Sets weights of the zoo's networks to zero, for measuring and testing sparse kernels.

`cargo xtask python harness.prune NAME ZEROS [--every-size]` writes build/pruned/NAME_ZEROS.onnx: the network with random
weights (harness/fill.py), where that percentage of the weights of every 1x1 convolution and linear layer, the smallest ones, are
zero. 0 is the same network with nothing pruned. Besides the zoo's networks there is `mobilenet_v1`.
"""

import argparse
import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness import fill

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


def load(name: str) -> onnx.ModelProto:
    """The network with random weights."""
    path = fill.FILLED / f"{name}.onnx"
    if not path.exists():
        fill.FILLED.mkdir(parents=True, exist_ok=True)
        onnx.save(mobilenet_v1(), path) if name == "mobilenet_v1" else fill.fill(name)
    return onnx.load(path)


def prune(model: onnx.ModelProto, zeros: float, every_size: bool = False) -> None:
    """Set the share `zeros` of the weights of every 1x1 convolution and linear layer to zero, or of every convolution
    but depthwise ones and the first."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in weights:
            continue
        array = numpy_helper.to_array(weights[node.input[1]]).copy()
        if array.shape[1] <= 4 or (math.prod(array.shape[2:]) > 1 and not every_size):
            continue
        count = round(zeros * array.size)
        array.reshape(-1)[np.argsort(np.abs(array), axis=None, kind="stable")[:count]] = 0
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(array, node.input[1]))


def pruned(name: str, percent: int, every_size: bool = False):
    """Write the network with this percentage of zeros and return its path."""
    model = load(name)
    prune(model, percent / 100, every_size)
    PRUNED.mkdir(parents=True, exist_ok=True)
    path = PRUNED / f"{name}_{percent}.onnx"
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a model of the zoo, or mobilenet_v1")
    parser.add_argument("zeros", nargs="+", type=int, help="percentages")
    parser.add_argument("--every-size", action="store_true", help="prune convolutions of any size")
    args = parser.parse_args()
    for percent in args.zeros:
        print(pruned(args.name, percent, args.every_size).relative_to(fill.ROOT))
