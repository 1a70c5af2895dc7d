"""Give the zoo's stripped graphs (models/zoo/graphs) seeded random weights.

`cargo xtask python harness.fill [NAME ...]` writes build/zoo/NAME.onnx for all or some of them. The weights
must exercise the arithmetic: activations stay in range at every depth, and the output depends on
the input. With He-normal weights alone every image gives nearly the same output, because the mean
of a ReLU's output is as large as its standard deviation; filters whose weights sum to zero remove
that mean. Gates and shortcuts change the standard deviation that the initialization was calculated
for, so each layer's weights are scaled until its outputs have a standard deviation of one on a
sample image (D. Mishkin and J. Matas, "All you need is a good init", 2016). A network whose
activations grow from layer to layer would also amplify rounding errors.
"""

import argparse
import math
import os
import threading
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ROOT / "models" / "zoo" / "graphs"
FILLED = ROOT / "build" / "zoo"

# The standard deviation of a ReLU's output for a unit normal input is 0.584, which a zero-sum filter has to compensate.
GAIN = 1 / 0.584
# Smaller filters (depthwise ones) would remove the image along with the mean.
ZERO_SUM_ABOVE = 32


def is_stripped(tensor: onnx.TensorProto) -> bool:
    """Whether a float initializer has a shape but no values."""
    return tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) > 0 and not (
        tensor.raw_data or tensor.float_data
    )


def kernel(random, dims) -> np.ndarray:
    """Weights `[out, in, ...]` of a convolution or a linear layer."""
    fan_in = math.prod(dims[1:])
    if fan_in < ZERO_SUM_ABOVE:
        # Positive on average, so that a depthwise filter also passes smooth regions.
        return random.normal(1 / fan_in, 0.65 / math.sqrt(fan_in), dims)
    weights = random.normal(0, GAIN / math.sqrt(fan_in), dims)
    return weights - weights.mean(axis=tuple(range(1, len(dims))), keepdims=True)


def values(random, op: str, position: int, dims) -> np.ndarray:
    """Values for input number `position` of an operator `op`."""
    match op, position:
        case ("Conv" | "Gemm"), 1:
            return kernel(random, dims)
        case ("Conv" | "Gemm"), 2:
            return random.normal(0, 0.1, dims)
        case "BatchNormalization", (1 | 4):  # scale, variance
            return random.uniform(0.5, 1.5, dims)
        case "BatchNormalization", (2 | 3):  # bias, mean
            return random.normal(0, 0.1, dims)
    raise ValueError(f"no rule for input {position} of {op}")


def image(side: int, seed: int) -> np.ndarray:
    """A random image `[1, 3, side, side]` of unit variance, with structure at every scale, since pure noise always
    looks the same to a network that pools."""
    random = np.random.default_rng(seed)
    total = np.zeros((1, 3, side, side))
    for cells in (2, 4, 8, side // 2, side):
        at = np.arange(side) * cells // side
        total += random.standard_normal((1, 3, cells, cells))[:, :, at][:, :, :, at]
    return (total / total.std()).astype(np.float32)


def run_node(model: onnx.ModelProto, node: onnx.NodeProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The results of one node, computed by ONNX Runtime."""
    declare = lambda name: onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
    )
    inputs = sorted({name for name in node.input if name})
    graph = onnx.helper.make_graph(
        [node], "node", [declare(name) for name in inputs], [onnx.ValueInfoProto(name=name) for name in node.output]
    )
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: values[name] for name in inputs})


def normalize_spread(model: onnx.ModelProto) -> None:
    """Scale the weights of every convolution and linear layer so that its results have a standard deviation of one on a
    sample image. A layer's results depend on earlier layers, so this works node by node."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {name: numpy_helper.to_array(tensor) for name, tensor in weights.items()}
    side = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    values[model.graph.input[0].name] = image(side, seed=3)
    for node in model.graph.node:
        results = run_node(model, node, values)
        if node.op_type in ("Conv", "Gemm"):
            name = node.input[1]
            values[name] = values[name] / max(float(results[0].std()), 1e-3)
            weights[name].CopyFrom(numpy_helper.from_array(values[name], name))
            results = run_node(model, node, values)
        values.update(zip(node.output, results))


def fill(name: str, seed: int = 1) -> Path:
    """Write build/zoo/`name`.onnx and return its path."""
    model = onnx.load(GRAPHS / f"{name}.onnx")
    uses = {i: (node, at) for node in model.graph.node for at, i in enumerate(node.input)}
    for tensor in model.graph.initializer:
        if not is_stripped(tensor):
            continue
        node, position = uses[tensor.name]
        # Seeded by name, so that a weight does not change when another one is added.
        random = np.random.default_rng([seed, zlib.crc32(f"{name}/{tensor.name}".encode())])
        array = values(random, node.op_type, position, tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    normalize_spread(model)
    onnx.checker.check_model(model)
    FILLED.mkdir(parents=True, exist_ok=True)
    path = FILLED / f"{name}.onnx"
    # Two tests may write it at the same time, and a third may read it.
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    onnx.save(model, partial, format="protobuf")
    partial.replace(path)
    return path


def names() -> list[str]:
    """The models of the zoo."""
    return sorted(path.stem for path in GRAPHS.glob("*.onnx"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="models of the zoo; all when none is given")
    for name in parser.parse_args().names or names():
        print(fill(name).relative_to(ROOT), flush=True)
