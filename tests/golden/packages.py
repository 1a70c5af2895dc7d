"""Packages of this and every earlier version of the format, stored in tests/golden/v<VERSION>.

A package of the current version must open and give the outputs that ONNX Runtime gave when the package was made. A
package of an earlier version must do the same, or be refused because of its version; it must never be misread. When the
format changes, increment its version and make the packages of the new version with

    cargo xtask python golden.packages --write
"""

import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from harness import driver

GOLDEN = Path(__file__).resolve().parent
TOLERANCE = 1e-4
# Why a package of an earlier version may be refused: its format, or how its weights are packed.
REFUSALS = ("package.version", "package.target")


class Model:
    """A model under construction."""

    def __init__(self, seed: int, *shape: int):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], []
        self.given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        self.x = self.random.standard_normal(shape).astype(np.float32)

    def weights(self, *shape: int, scale: float = 0.4) -> str:
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, values, dtype=None) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        names = [f"n{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{len(self.nodes)}", **attributes))
        return names if outputs > 1 else names[0]

    def finish(self, *outputs: str) -> onnx.ModelProto:
        untyped = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "golden", [self.given], untyped, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def classifier() -> tuple[Model, onnx.ModelProto]:
    """Convolutions of every kind, a residual, a squeeze-and-excite block, a product."""
    m = Model(1, 1, 3, 12, 12)
    x = m.node("HardSwish", m.node("Conv", "x", m.weights(8, 3, 3, 3), m.weights(8), strides=[2, 2], pads=[1] * 4))
    y = m.node("Relu", m.node("Conv", x, m.weights(12, 8, 1, 1), m.weights(12)))
    y = m.node("Conv", y, m.weights(12, 1, 3, 3), group=12, pads=[1] * 4)
    y = m.node("Clip", y, m.constant(np.float32(0)), m.constant(np.float32(6)))
    gate = m.node("Conv", m.node("GlobalAveragePool", y), m.weights(12, 12, 1, 1))
    y = m.node("Mul", y, m.node("HardSigmoid", gate))
    y = m.node("Add", x, m.node("Conv", y, m.weights(8, 12, 1, 1)))
    y = m.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = m.node("Conv", y, m.weights(8, 4, 3, 3), group=2, pads=[1] * 4)
    y = m.node("Flatten", m.node("AveragePool", y, kernel_shape=[3, 3]))
    y = m.node("Gemm", y, m.weights(5, 8), m.weights(5), transB=1)
    return m, m.finish(m.node("Softmax", y), y)


def operators() -> tuple[Model, onnx.ModelProto]:
    """One node of each of many operators over small tensors."""
    m = Model(2, 2, 4, 6)
    y = m.node("LayerNormalization", "x", m.weights(6), m.weights(6))
    y = m.node("Transpose", m.node("Erf", y), perm=[1, 0, 2])
    y = m.node("Where", m.node("Greater", y, m.weights(6)), y, m.node("Sin", y))
    top, places = m.node("TopK", y, m.ints(3), outputs=2, axis=-1)
    y = m.node("Concat", y, m.node("Pad", top, m.ints(0, 0, 1, 0, 0, 2)), axis=1)
    y = m.node("CumSum", m.node("Slice", y, m.ints(0), m.ints(3), m.ints(0)), m.constant(np.int64(1)))
    z = m.node("Gather", y, m.ints(2, 0), axis=1)
    z = m.node("GatherElements", z, m.constant(np.zeros((3, 2, 2)), np.int64), axis=2)
    best = m.node("ArgMax", m.node("Mul", y, m.weights(6)), axis=-1, keepdims=0)
    hot = m.node("OneHot", best, m.ints(6), m.constant([0.5, 2.0], np.float32))
    y = m.node("Elu", m.node("Mul", y, m.node("Slice", hot, m.ints(0), m.ints(3), m.ints(0))))
    scale, zero = m.constant(np.float32(0.05)), m.constant(np.uint8(120))
    q = m.node("DequantizeLinear", m.node("QuantizeLinear", y, scale, zero), scale, zero)
    image = m.node("Reshape", q, m.ints(1, 3, 4, 6))
    image = m.node("Resize", image, "", m.constant([1, 1, 1.5, 2], np.float32), mode="linear")
    image = m.node("ConvTranspose", image, m.weights(3, 2, 2, 2), strides=[2, 2])
    image = m.node("InstanceNormalization", image, m.weights(2), m.weights(2))
    gates = [m.weights(1, 12, 3), m.weights(1, 12, 4)]
    hidden, _ = m.node("GRU", m.node("Tile", top, m.ints(1, 2, 1)), *gates, outputs=2, hidden_size=4)
    total = m.node("ReduceL2", image, axes=[2, 3], keepdims=0)
    rows = m.node("Expand", total, m.ints(2, 2))
    table = m.node("ScatterND", m.weights(4, 2), m.constant([[1], [3]], np.int64), rows)
    return m, m.finish(z, q, hidden, table, places)


def control() -> tuple[Model, onnx.ModelProto]:
    """An If with a loop in one branch, and a scan."""
    m = Model(3, 3, 5)

    def info(name, dtype=TensorProto.FLOAT, shape=None):
        return helper.make_tensor_value_info(name, dtype, shape)

    def graph(nodes, inputs, outputs, *constants):
        held = [numpy_helper.from_array(array, name) for name, array in constants]
        values = [onnx.ValueInfoProto(name=name) for name in outputs]
        return helper.make_graph([helper.make_node(*node) for node in nodes], "body", inputs, values, held)

    nodes = [("MatMul", ["h", "w"], ["p"]), ("Tanh", ["p"], ["next"]), ("Identity", ["go"], ["stays"])]
    inputs = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("h")]
    weights = m.random.standard_normal((5, 5)).astype(np.float32)
    body = graph(nodes, inputs, ["stays", "next", "p"], ("w", weights))
    then = graph([], [], ["last", "all"], ("count", np.array(3, np.int64)))
    then.node.append(helper.make_node("Loop", ["count", "", "x"], ["last", "all"], body=body))
    three = np.zeros((3, 3, 5), np.float32)
    otherwise = graph([("Relu", ["x"], ["r"]), ("Add", ["three", "r"], ["a"])], [], ["r", "a"], ("three", three))
    condition = m.node("Greater", m.node("ReduceSum", "x", keepdims=0), m.constant(np.float32(0)))
    last, every = m.node("If", condition, outputs=2, then_branch=then, else_branch=otherwise)
    row = [info("s", shape=[5]), info("row", shape=[5])]
    sums = graph([("Add", ["s", "row"], ["t"]), ("Neg", ["t"], ["u"])], row, ["t", "u"])
    axes = {"num_scan_inputs": 1, "scan_input_directions": [1], "scan_output_axes": [1]}
    total, rows = m.node("Scan", m.constant(np.zeros(5, np.float32)), last, outputs=2, body=sums, **axes)
    return m, m.finish(last, every, total, rows)


MODELS = {"classifier": classifier, "operators": operators, "control": control}
# Packages of the classifier with weights packed for instruction sets that every machine has.
TARGETS = {"generic": MODELS, "scalar": ["classifier"]}


def version(package: Path) -> int:
    """The format version in the header of a package."""
    return struct.unpack_from("<I", package.read_bytes(), 8)[0]


def write(skipstone: driver.Skipstone) -> None:
    """Write the packages of the current version, with ONNX Runtime's outputs."""
    folder = GOLDEN / "new"
    folder.mkdir(parents=True)
    for name, make in MODELS.items():
        model, proto = make()
        file = folder / f"{name}.onnx"
        onnx.save(proto, file)
        wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": model.x})
        outputs = {output.name: array for output, array in zip(proto.graph.output, wanted)}
        np.savez_compressed(folder / f"{name}.npz", x=model.x, **outputs)
        for target, names in TARGETS.items():
            if name in names:
                skipstone.call("compile", file, "-o", folder / f"{name}-{target}.skip", "--target", target)
        file.unlink()
    made = GOLDEN / f"v{version(next(folder.glob('*.skip')))}"
    folder.rename(made)
    print(f"made {made}")


def check(skipstone: driver.Skipstone, package: Path, newest: bool) -> str | None:
    """What is wrong with a package."""
    held = dict(np.load(package.with_name(package.stem.rpartition("-")[0] + ".npz")))
    inputs = {"x": held.pop("x")}
    try:
        got = skipstone.run(package, inputs, list(held))
    except driver.Refused as refusal:
        return str(refusal) if newest or refusal.code not in REFUSALS else None
    except driver.Crashed as crash:
        return f"crash: {crash}"
    wrong = [driver.difference(g, w, TOLERANCE) for g, w in zip(got, held.values())]
    return next((f"{name}: {text}" for name, text in zip(held, wrong) if text), None)


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--write", action="store_true", help="make the packages of the current version")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    if args.write:
        write(skipstone)
    packages = sorted(GOLDEN.glob("v*/*.skip"))
    newest = max((version(package) for package in packages), default=0)
    failed = 0
    for package in packages:
        wrong = check(skipstone, package, version(package) == newest)
        if wrong:
            failed += 1
            print(f"FAIL {package.relative_to(GOLDEN)}: {wrong}", flush=True)
    print(f"golden packages: {len(packages)} of versions up to {newest}, {failed} failures")
    sys.exit(bool(failed) or not packages)


if __name__ == "__main__":
    main()
