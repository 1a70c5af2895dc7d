"""Compares quantized models with ONNX Runtime, on every instruction set.

Models of the zoo are quantized by ONNX Runtime in both of its formats, with scales per channel and per tensor, and with
unsigned and signed activations. Small networks of random sizes use dynamic quantization, which needs no calibration
data: the scales of activations are computed in the run. Then `skipstone quantize` quantizes the pretrained model: ONNX
Runtime must give the same outputs for the result, and it may lose at most one point of accuracy on the test images of
CIFAR-10.

Weights use seven bits: with eight, ONNX Runtime adds pairs of products in 16 bits on x86 CPUs without VNNI, which can
saturate. The families of `integers` compare all eight bits with exact sums.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from harness import driver, fill

MODELS = ("simplenet_310k", "simplenet_5m", "skipnet_xs", "mobilenetv3_large")
ISAS = ("scalar", "avx2", "avx512", "neon")
PRETRAINED = driver.ROOT / "models" / "pretrained" / "simplenet-310k-cifar10.onnx"
SAMPLES = driver.ROOT / "models" / "samples"
IMAGES = driver.ROOT / "build" / "cifar10" / "test"
# Quanta by which an output may differ: none, except for averages over windows. ONNX Runtime sums those in floats, so
# that one may be a quantum off, and random weights amplify this to a few.
APART = {"skipnet_xs-qdq": 8}
# Networks of random sizes, of each kind.
DYNAMIC = 6
# Share of the largest output by which such a network may differ.
DYNAMIC_TOLERANCE = 1e-4
# Accuracy that quantization may cost.
MOST_LOST = 0.01


class Images(CalibrationDataReader):
    """A few seeded images for calibration."""

    def __init__(self, name: str, size: int):
        self.left = iter([{name: fill.image(size, seed=seed)} for seed in range(4)])

    def get_next(self):
        return next(self.left, None)


def session(model: Path, plain: bool = False) -> onnxruntime.InferenceSession:
    """`plain` computes node by node: products of dequantized floats, not of bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def variants(name: str, folder: Path):
    """The files that ONNX Runtime's quantizer writes for a model of the zoo."""
    source = fill.fill(name)
    entry = onnx.load(source).graph.input[0]
    size = entry.type.tensor_type.shape.dim[2].dim_value
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        for per_channel, activations in ((True, QuantType.QUInt8), (False, QuantType.QInt8)):
            kind = f"{form.name.lower()}-{'channel' if per_channel else 'tensor'}-{activations.name[1:].lower()}"
            path = folder / f"{name}-{kind}.onnx"
            quantize_static(
                source,
                path,
                Images(entry.name, size),
                quant_format=form,
                per_channel=per_channel,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                reduce_range=True,
            )
            yield path


def network(kind: str, random: np.random.Generator) -> tuple[onnx.ModelProto, np.ndarray]:
    """A small network of random sizes with an input image, or input rows."""
    nodes, weights = [], []

    def constant(*shape: int) -> str:
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 1)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def add(op: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(op, inputs, [f"n{len(nodes)}"], name=f"node{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    size = lambda: int(random.choice([1, 3, 7, 8, 16, 17, 33]))
    at = "x"
    if kind == "mlp":
        width = size()
        x = random.standard_normal((int(random.choice([1, 2, 5])), width)).astype(np.float32)
    else:
        channels, side = int(random.choice([1, 3])), int(random.choice([7, 8, 13]))
        x = random.standard_normal((int(random.choice([1, 2])), channels, side, side)).astype(np.float32)
        for groups in (1, 1, 0):
            filters = size() if groups else channels
            kernel = int(random.choice([1, 3]))
            groups = groups or channels
            w = constant(filters, channels // groups, kernel, kernel)
            stride = int(random.choice([1, 2]))
            pads = [kernel // 2] * 4
            at = add("Relu", add("Conv", at, w, constant(filters), group=groups, strides=[stride] * 2, pads=pads))
            channels = filters
        at = add("Flatten", add("GlobalAveragePool", at))
        width = channels
    for _ in range(2):
        out = size()
        at = add("Relu", add("Add", add("MatMul", at, constant(width, out)), constant(out)))
        width = out
    at = add("Gemm", at, constant(10, width), constant(10), transB=1)
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    result = helper.make_tensor_value_info(at, TensorProto.FLOAT, (x.shape[0], 10))
    graph = helper.make_graph(nodes, kind, [entry], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), x


def check_dynamic(skipstone: driver.Skipstone, kind: str, number: int, isas, folder: Path) -> list[str]:
    """The failures of a network whose scales are computed from the activations."""
    model, x = network(kind, np.random.default_rng([number, len(kind)]))
    path, weights = folder / f"{kind}-{number}.onnx", (QuantType.QInt8, QuantType.QUInt8)[number % 2]
    quantize_dynamic(model, path, weight_type=weights, per_channel=number % 3 == 0, reduce_range=True)
    runtime, failures = session(path), []
    names = [output.name for output in runtime.get_outputs()]
    want = runtime.run(names, {"x": x})[0]
    for isa in isas:
        try:
            steps = skipstone.inspect(path, "--isa", isa)["steps"]
            left = [s["name"] for s in steps if s["op"] in ("Conv", "MatMul", "Cast") or s["kernel"] == "fallback"]
            if left:
                failures.append(f"{isa}: not computed in bytes: {', '.join(left)}")
            wrong = driver.difference(skipstone.run(path, {"x": x}, names, "--isa", isa)[0], want, DYNAMIC_TOLERANCE)
            failures += [f"{isa}: {wrong}"] if wrong else []
        except driver.Refused as refusal:
            failures += [] if refusal.code == "isa" else [f"{isa}: {refusal}"]
        except driver.Crashed as crash:
            failures.append(f"{isa}: crash: {crash}")
    return failures


def quantum(model: Path) -> float:
    """The quantum of the output."""
    graph = onnx.load(model).graph
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    scale = next(tensor for tensor in graph.initializer if tensor.name == last.input[1])
    return float(onnx.numpy_helper.to_array(scale).reshape(-1)[0])


def check(skipstone: driver.Skipstone, model: Path, isas) -> tuple[list[str], list[str]]:
    """What was run, and the failures."""
    runtime = session(model)
    entry = runtime.get_inputs()[0]
    inputs = {entry.name: fill.image(entry.shape[2], seed=5)}
    names = [output.name for output in runtime.get_outputs()]
    want = runtime.run(names, inputs)[0]
    step, ran, failures = quantum(model), [], []
    for isa in isas:
        try:
            steps = skipstone.inspect(model, "--isa", isa)["steps"]
            floats = [s["name"] for s in steps if s["op"] in ("Conv", "MatMul") or s["kernel"] == "fallback"]
            if floats:
                failures.append(f"{isa}: not computed in bytes: {', '.join(floats)}")
            got = skipstone.run(model, inputs, names, "--isa", isa)[0]
            far = np.abs(got - want).max() / step
            ran.append(f"{isa} {far:.0f}")
            allowed = next((quanta for name, quanta in APART.items() if model.stem.startswith(name)), 0)
            if far > allowed + 0.01:
                failures.append(f"{isa}: {far:.1f} quanta from ONNX Runtime's output")
        except driver.Refused as refusal:
            if refusal.code != "isa":
                failures.append(f"{isa}: {refusal}")
        except driver.Crashed as crash:
            failures.append(f"{isa}: crash: {crash}")
    return ran, failures


def accuracy(skipstone: driver.Skipstone, model: Path) -> float:
    result = json.loads(skipstone.call("evaluate", model, IMAGES, "--threads", 2, "--json"))
    assert result["images"] == 10_000, "the images of the section `accuracy` are missing"
    return result["top1"]


def check_quantize(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """`skipstone quantize` on the pretrained model."""
    made, failures = folder / "pretrained-int8.onnx", []
    skipstone.call("quantize", PRETRAINED, "--calibrate", SAMPLES, "-o", made)
    onnx.checker.check_model(onnx.load(made), full_check=True)
    kernels = {step["op"] for step in skipstone.inspect(made)["steps"]}
    if kernels & {"Conv", "MatMul"}:
        failures.append("a convolution or matrix product is computed in floats")
    # Eight-bit weights, which ONNX Runtime's integer kernels may saturate.
    runtime = session(made, plain=True)
    entry = runtime.get_inputs()[0]
    agree = 0
    for seed in range(20):
        inputs = {entry.name: fill.image(entry.shape[2], seed=seed)}
        want = runtime.run(None, inputs)[0]
        got = skipstone.run(made, inputs, [runtime.get_outputs()[0].name])[0]
        agree += int(want.argmax() == got.argmax())
    if agree < 20:
        failures.append(f"ONNX Runtime predicts another class for {20 - agree} of 20 images")
    before, after = accuracy(skipstone, PRETRAINED), accuracy(skipstone, made)
    print(f"     accuracy {100 * before:.2f} % in floats, {100 * after:.2f} % in bytes", flush=True)
    if before - after > MOST_LOST:
        failures.append(f"{100 * (before - after):.2f} points of accuracy lost")
    again = folder / "again.onnx"
    try:
        skipstone.call("quantize", made, "--calibrate", SAMPLES, "-o", again)
        failures.append("a quantized model was quantized again")
    except driver.Refused:
        pass
    return failures


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", default=list(MODELS), metavar="NAME", help="models of the zoo")
    parser.add_argument("--isa", nargs="+", default=list(ISAS), help="default: all that the CPU has")
    parser.add_argument("--no-accuracy", action="store_true", help="without `skipstone quantize`")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)

    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="skipstone-int8-") as scratch:
        folder = Path(scratch)
        for name in args.only:
            for model in variants(name, folder):
                ran, wrong = check(skipstone, model, args.isa)
                print(f"{'FAIL' if wrong else 'ok  '} {model.stem:42} quanta apart: {', '.join(ran)}", flush=True)
                for line in wrong:
                    print(f"     {line}", flush=True)
                total, failed = total + 1, failed + bool(wrong)
        for kind in ("mlp", "cnn"):
            wrong = []
            for number in range(DYNAMIC):
                wrong += [f"#{number}: {line}" for line in check_dynamic(skipstone, kind, number, args.isa, folder)]
            print(f"{'FAIL' if wrong else 'ok  '} {kind}, scales from the activations", flush=True)
            for line in wrong:
                print(f"     {line}", flush=True)
            total, failed = total + 1, failed + bool(wrong)
        if not args.no_accuracy:
            wrong = check_quantize(skipstone, folder)
            print(f"{'FAIL' if wrong else 'ok  '} skipstone quantize", flush=True)
            for line in wrong:
                print(f"     {line}", flush=True)
            total, failed = total + 1, failed + bool(wrong)
    print(f"int8 parity: {total} models, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
