"""How much of the time that dynamic masks leave out is saved.

`cargo xtask python peers.masking` adds a mask to every convolution of a sequential network of the zoo but the first (a head on
the mean of the convolution's input, as in models/zoo/networks/masked.py), with heads that choose a fixed share of the
channels, and compares it with the network without masks, on one thread, as peers/sparsity.py does. The saving is the share of
the time that is saved, divided by the share of the multiply-adds that are left out.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness import driver, prune
from peers import sparsity


def active(channels: int, share: float) -> np.ndarray:
    """Whether each channel is active: as many as the share says, evenly spread."""
    return np.diff(np.floor(np.arange(channels + 1) * round(channels * share) / channels)) > 0


def masked(source: Path, share: float, path: Path) -> None:
    """Write the network with masks that choose this share of the channels."""
    model = onnx.load(source)
    graph, dims = model.graph, {tensor.name: tensor.dims for tensor in model.graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "masks.zero"))
    nodes, renamed, convolution = [], {}, None
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
        if node.op_type == "Conv":
            convolution = node if any(other.op_type == "Conv" for other in nodes[:-1]) else None
        if node.op_type != "Relu" or convolution is None:
            continue
        name, (filters, channels) = f"head{len(nodes)}", dims[convolution.input[1]][:2]
        bias = np.where(active(filters, share), 1, -1).astype(np.float32)
        weights = np.zeros((filters, channels, 1, 1), np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, f"{name}.weight"))
        graph.initializer.append(numpy_helper.from_array(bias, f"{name}.bias"))
        nodes += [
            helper.make_node("GlobalAveragePool", [convolution.input[0]], [f"{name}.mean"]),
            helper.make_node("Conv", [f"{name}.mean", f"{name}.weight", f"{name}.bias"], [f"{name}.logits"], name=name),
            helper.make_node("Greater", [f"{name}.logits", "masks.zero"], [f"{name}.chosen"]),
            helper.make_node("Cast", [f"{name}.chosen"], [f"{name}.mask"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [node.output[0], f"{name}.mask"], [f"{name}.masked"]),
        ]
        renamed[node.output[0]], convolution = f"{name}.masked", None
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def multiply_adds(skipstone: driver.Skipstone, model: Path, args: argparse.Namespace) -> float:
    """Those that a run computes, without the heads."""
    steps = sparsity.bench(skipstone, model, args, "--profile")["steps"]
    return sum(step["macs"] for step in steps if not step["name"].startswith("head"))


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["simplenet_310k", "simplenet_5m"], metavar="NAME")
    parser.add_argument("--shares", nargs="+", type=float, default=[1, 0.77, 0.67, 0.59], help="shares of active channels")
    sparsity.add_arguments(parser)
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    for name in args.models:
        plain = prune.source(name)
        with tempfile.TemporaryDirectory() as folder:
            files = {share: Path(folder) / f"{share}.onnx" for share in args.shares}
            for share, file in files.items():
                masked(plain, share, file)
            runs = sparsity.compare(skipstone, plain, files, args)
            print(f"| {name}: active | multiply-adds left out | latency / plain | least latency, ms | saving |")
            print("|---|---|---|---|---|")
            for share, one in runs.items():
                less = 1 - multiply_adds(skipstone, files[share], args) / multiply_adds(skipstone, plain, args)
                ratio = statistics.median(one.ratios)
                saving = f"{(1 - ratio) / less:.2f}" if less > 0.01 else ""
                print(f"| {share:.0%} | {less:.1%} | {ratio:.2f} | {one.least:.3f} | {saving} |", flush=True)


if __name__ == "__main__":
    main()
