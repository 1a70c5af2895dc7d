"""Lists the compute layers of the zoo's networks, which the kernel benchmarks run.

`cargo xtask python benches.layers` writes runtime/kernels/benches/cases/zoo.txt from the graphs in models/zoo; `--check` fails
if the two differ. A line is a distinct convolution, matrix product or pooling of a network, and how often it occurs.
Layers that differ only in what is fused into them (activations, sums, batch normalization) are not distinct.
"""

import argparse
import collections
import math
import sys

import onnx
from onnx import helper

from harness import fill

LIST = fill.ROOT / "runtime/kernels/benches/cases/zoo.txt"
NETWORKS = (
    "skipnet_m",
    "skipnet_xs",
    "mobilenetv3_large",
    "simplenet_310k",
    "simplenet_5m",
    "simplenet_5m_m1",
    "resnet18",
)
HEAD = """\
# Layers of networks of the zoo, each where the network first has it. Written by tests/benches/layers.py.
# network, occurrences, operator, input and output (rows x columns x channels), kernel, stride, padding (top, left,
# bottom, right), groups
"""


def refuse(node: onnx.NodeProto, what: str):
    sys.exit(f"layers: {node.op_type} {node.name}: {what}")


def layer(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> tuple | None:
    """The columns of a line except the first two, or None if the node is not such a layer."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    source, result = shapes.get(node.input[0]), shapes.get(node.output[0])

    def windows(operator: str, groups: int = 1) -> tuple:
        (batch, in_c, in_h, in_w), (_, out_c, out_h, out_w) = source, (*result, 1, 1)[:4]
        kernel = attributes.get("kernel_shape", [in_h, in_w])
        pads = attributes.get("pads", [0] * 4)
        if batch != 1 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            refuse(node, "batches and automatic padding are not supported by the list")
        if attributes.get("dilations", [1, 1]) != [1, 1] or attributes.get("count_include_pad", 0) and any(pads):
            refuse(node, "dilation and counted padding are not supported by the list")
        by = lambda sizes: "x".join(map(str, sizes))
        strides = attributes.get("strides", [1, 1])
        sizes = ((in_h, in_w, in_c), (out_h, out_w, out_c), kernel, strides)
        return operator, *map(by, sizes), ",".join(map(str, pads)), groups

    match node.op_type:
        case "Conv":
            return windows("conv", attributes.get("group", 1))
        case "MaxPool":
            return windows("maxpool")
        case "AveragePool" | "GlobalAveragePool":
            return windows("averagepool")
        case "ReduceMax":
            if len(source) != 4 or result[:2] != source[:2] or math.prod(result) != math.prod(source[:2]):
                refuse(node, "not over the rows and columns of images")
            return windows("maxpool")
        case "Gemm" | "MatMul":
            # Convolution over images of one row, whose pixels are the matrix's rows.
            (rows, depth), (_, columns) = source, result
            return "matmul", f"1x{rows}x{depth}", f"1x{rows}x{columns}", "1x1", "1x1", "0,0,0,0", 1
    return None


def layers(name: str) -> collections.Counter:
    """The layers of a network, in the order of their first occurrence."""
    model = onnx.shape_inference.infer_shapes(onnx.load(fill.GRAPHS / f"{name}.onnx"), strict_mode=True)
    graph = model.graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    found = (layer(node, shapes) for node in graph.node)
    return collections.Counter(columns for columns in found if columns)


def text() -> str:
    rows = [(name, count, *columns) for name in NETWORKS for columns, count in layers(name).items()]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the list instead of writing it")
    if parser.parse_args().check:
        if LIST.read_text() != text():
            sys.exit(f"layers: {LIST.relative_to(fill.ROOT)} does not match the zoo: run `cargo xtask python benches.layers`")
    else:
        LIST.write_text(text())
    print(f"layers: {len(NETWORKS)} networks")


if __name__ == "__main__":
    main()
