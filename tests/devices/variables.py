"""Writes the package of a small image classifier with settings and state, for the tests of Kotlin and Swift.

    scores = (negate ? -1 : 1) * gain * (mean of each channel) + last

`gain` (f32 [1, 3], initially 1) and `negate` (bool, initially false) are settings; `last` is the scores of the run
before, initially 0. Colors are not normalized.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness import driver

METADATA = {
    "skipstone.settings": "gain, negate",
    "skipstone.state": "scores -> last",
    "skipstone.mean": "0, 0, 0",
    "skipstone.std": "1, 1, 1",
    "skipstone.labels": "red\ngreen\nblue",
}


def model() -> onnx.ModelProto:
    """The model, for images of 8x8 pixels."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("Neg", ["scaled"], ["negative"]),
        helper.make_node("Where", ["negate", "negative", "scaled"], ["signed"]),
        helper.make_node("Add", ["signed", "last"], ["scores"]),
    ]
    defaults = {"gain": np.ones((1, 3), np.float32), "negate": np.array(False)}
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8]),
        helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1, 3]),
        helper.make_tensor_value_info("negate", TensorProto.BOOL, []),
        helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, 3]),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])]
    held = [numpy_helper.from_array(value, name) for name, value in defaults.items()]
    graph = helper.make_graph(nodes, "variables", inputs, outputs, held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, METADATA)
    onnx.checker.check_model(made)
    return made


def write(skipstone: driver.Skipstone, package: Path) -> None:
    """Compiles the model to `package`."""
    with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
        source = Path(folder) / "variables.onnx"
        onnx.save(model(), source)
        skipstone.call("compile", source, "-o", package)


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("package", type=Path, help="file to write")
    args = parser.parse_args()
    write(driver.Skipstone(args.binary, args.runner), args.package)


if __name__ == "__main__":
    main()
