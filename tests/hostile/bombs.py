"""Small files that demand large resources: more than a thousand over all operators, with sizes at, below and far above
each limit.

The command opens, runs, compiles, quantizes and measures each of them under its default limits, and refuses or answers:
within a second of processor time and 256 MB, with status 0, 1 or 2, and one line if it refuses. An accepted model may
take the resources of its plan on top, and a second for each MiB of the file; if the plan's are large, it is only
inspected, unless --all is given. The sizes are drawn with a fixed seed.

Files given as arguments are tested instead of those.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from PIL import Image

from harness import driver
from hostile import every

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
CPU_SECONDS = 1.0
MEMORY = 256 << 20
# Work per second of plain native code on a slow core, at least, in the units of `--limit work`.
WORK_PER_SECOND = 1 << 28
# Accepted models that take longer than this are only run with --all.
SHORT_SECONDS = 0.05

SIZES = [1, 2, 255, 1 << 12, 1 << 16, 1 << 20, 1 << 24, (1 << 26) - 1, 1 << 26, 1 << 28, (1 << 28) + 1, 1 << 31]
SIZES += [1 << 40, (1 << 62) - 1]
# Nodes of a model with many that are the same.
COPIES = 300
# For every operator, one of each.
BELOW, AT = [1, 255, 1 << 16, 1 << 20, 1 << 24, (1 << 26) - 1], [1 << 26, 1 << 27, (1 << 28) - 1, 1 << 28]
ABOVE = [(1 << 28) + 1, 1 << 31, 1 << 40, (1 << 60) - 1]


def model(nodes, constants=(), shape=(1, 3, 8, 8), opset: int = 18) -> bytes:
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    inputs = [helper.make_tensor_value_info("x", FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", 0, None)]
    outputs[0].ClearField("type")
    graph = helper.make_graph(nodes, "g", inputs, outputs, values)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8).SerializeToString()


def node(op: str, inputs, outputs=("y",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def i64(*values):
    return np.array(values, np.int64)


def attribute(made, name: str, value: int):
    """An attribute of any size, which the helper would refuse."""
    made.attribute.append(AttributeProto(name=name, type=AttributeProto.INTS, ints=[value]))
    return made


NUMBERS = {
    "f32": np.float32, "f64": np.float64, "f16": np.float16, "bool": np.bool_, "i64": np.int64, "i32": np.int32,
    "i8": np.int8, "u8": np.uint8, "u64": np.uint64,
}  # fmt: skip

ELEMENTWISE = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish IsNaN LeakyRelu Log "
    "LogSoftmax Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh "
    "ThresholdedRelu Identity Hardmax LpNormalization GlobalAveragePool GlobalMaxPool NonZero Size Shape"
).split()
BINARY = "Add Sub Mul Div Pow Min Max Equal Less Greater PRelu".split()
REDUCE = "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp".split()


def doubling():
    """The body of a loop that continues as long as allowed."""
    info = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in [("i", INT64, []), ("c", TensorProto.BOOL, []), ("v", FLOAT, [1, 8])]
    ]
    results = [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", FLOAT, [1, 8])]
    inner = [node("Identity", ["c"], ["c2"]), node("Add", ["v", "v"], ["v2"])]
    return helper.make_graph(inner, "body", info, results)


def operators(size: int):
    """Models of one operator each, with something of this size."""
    root = max(1, int(size**0.5))
    constant = node("ConstantOfShape", ["s"], ["c"])
    of_size = [("s", i64(size))]
    image = [("s", i64(1, 1, root, root))]
    for op in ELEMENTWISE:
        as_image = op in ("GlobalAveragePool", "GlobalMaxPool", "LpNormalization")
        yield f"{op} of a constant", [constant, node(op, ["c"])], image if as_image else of_size
        yield f"{op} of an input", [node(op, ["x"])], [], ((1, 1, root, root) if as_image else (1, size))
    for op in BINARY:
        outer = [constant, node("Reshape", ["c", "column"], ["d"]), node(op, ["c", "d"])]
        yield f"{op} of an outer product", outer, [("s", i64(root)), ("column", i64(-1, 1))]
        yield f"{op} of an input", [node("Reshape", ["x", "column"], ["d"]), node(op, ["x", "d"])], [
            ("column", i64(-1, 1))
        ], (1, root)
    for op in REDUCE:
        yield f"{op} of a constant", [constant, node(op, ["c"])], of_size
    yield "Expand", [node("Expand", ["one", "s"])], [("one", np.float32([1])), *of_size]
    yield "Tile", [node("Tile", ["one", "s"])], [("one", np.float32([1])), *of_size]
    yield "Tile of an input", [node("Tile", ["x", "s"])], [("s", i64(1, 1, root, root))]
    yield "Pad", [node("Pad", ["x", "s"])], [("s", i64(0, 0, root, 0, 0, 0, 0, root))]
    yield "Range", [node("Range", ["a", "b", "c"])], [("a", i64(0)), ("b", i64(size)), ("c", i64(1))]
    counted = [node("Range", ["a", "b", "c"], ["r"]), node("Add", ["r", "c"], ["t"]), node("Mul", ["t", "t"])]
    yield "Range, then arithmetic", counted, [("a", i64(0)), ("b", i64(size)), ("c", i64(1))]
    values = ("v", np.float32([0, 1]))
    yield "OneHot", [node("OneHot", ["i", "depth", "v"])], [("i", i64(0)), ("depth", i64(size)), values]
    yield "EyeLike", [constant, node("EyeLike", ["c"])], [("s", i64(root, root))]
    yield "Trilu", [constant, node("Trilu", ["c"])], [("s", i64(root, root))]
    yield "CumSum", [constant, node("CumSum", ["c", "axis"])], [*of_size, ("axis", i64(0))]
    yield "TopK", [constant, node("TopK", ["c", "s"], ["y", "i"])], of_size
    yield "Transpose", [constant, node("Transpose", ["c"])], [("s", i64(root, root))]
    yield "Gather", [constant, node("Gather", ["c", "i"])], [*of_size, ("i", i64(0))]
    yield "Concat", [constant, node("Concat", ["c"] * 8, axis=0)], of_size
    yield "Split", [constant, node("Split", ["c"], ["y", "z"], num_outputs=2)], of_size
    yield "Slice", [constant, node("Slice", ["c", "a", "b"])], [*of_size, ("a", i64(0)), ("b", i64(size))]
    yield "Where", [constant, node("Cast", ["c"], ["d"], to=TensorProto.BOOL), node("Where", ["d", "c", "c"])], of_size
    yield "MatMul", [constant, node("Transpose", ["c"], ["d"]), node("MatMul", ["c", "d"])], [("s", i64(root, 1))]
    deep = [constant, node("Reshape", ["c", "row"], ["d"]), node("Reshape", ["c", "column"], ["e"])]
    yield "MatMul, deep", [*deep, node("MatMul", ["d", "e"])], [*of_size, ("row", i64(1, -1)), ("column", i64(-1, 1))]
    yield "Gemm", [constant, node("Gemm", ["c", "c"], transB=1)], [("s", i64(root, 4))]
    yield "Einsum", [constant, node("Einsum", ["c", "c"], equation="i,j->ij")], [("s", i64(root))]
    scales = [("", np.float32([])), ("f", np.float32([1, 1, root, root]))]
    yield "Resize", [node("Resize", ["x", "", "f"])], scales[1:]
    sizes = [("one", np.ones((1, 1, 2, 2), np.float32)), ("to", i64(1, 1, root, root))]
    yield "Resize of a constant", [node("Resize", ["one", "", "", "to"], mode="cubic")], sizes
    yield "Upsample", [node("Upsample", ["x", "f"])], scales[1:], (1, 3, 8, 8), 9
    for op in ("MaxPool", "AveragePool", "LpPool"):
        wide = attribute(node(op, ["c"]), "kernel_shape", min(size, (1 << 62) - 1))
        wide.attribute[-1].ints.append(1)
        yield f"{op} of a large window", [constant, wide], [("s", i64(1, 1, min(size, 1 << 24), 16))]
        window = max(1, min(root, 1 << 12))
        padded = node(op, ["x"], kernel_shape=[window] * 2, pads=[window // 2] * 4)
        yield f"{op} over padding", [padded], [], (1, 3, 64, 64)
        yield f"{op} over much", [padded], [], (1, 64, min(root, 4096), min(root, 4096))
    weights = [("s", i64(root, 3, 3, 3)), ("many", i64(min(root, 1 << 30)))]
    yield "Conv", [constant, node("Conv", ["x", "c"])], weights[:1], (1, 3, 64, 64)
    yield "Conv over much", [constant, node("Conv", ["x", "c"])], [("s", i64(64, 3, 7, 7))], (1, 3, root, root)
    yield "ConvTranspose", [constant, node("ConvTranspose", ["x", "c"])], [("s", i64(3, 1, root, root))]
    strided = node("ConvTranspose", ["x", "c"], strides=[min(root, 1 << 24)] * 2)
    yield "ConvTranspose, far apart", [constant, strided], [("s", i64(3, 1, 2, 2))]
    group = node("Conv", ["x", "c"], pads=[min(root, 1 << 20)] * 4)
    yield "Conv over padding", [constant, group], [("s", i64(1, 3, 1, 1))]
    yield "DepthToSpace", [constant, node("DepthToSpace", ["c"], blocksize=2)], [("s", i64(1, 4, root, root))]
    yield "LRN", [constant, node("LRN", ["c"], size=max(1, min(root, 1 << 20)))], [("s", i64(1, root, 8, 8))]
    mel = [("n", i64(8)), ("d", i64(size)), ("r", i64(16000)), ("l", np.float32(0)), ("h", np.float32(8000))]
    yield "MelWeightMatrix", [node("MelWeightMatrix", ["n", "d", "r", "l", "h"])], mel
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        yield op, [node(op, ["s"])], [("s", i64(size)[0])]
    yield "RandomNormal", [attribute(node("RandomNormal", []), "shape", size)], []
    yield "RandomUniform", [attribute(node("RandomUniform", []), "shape", size)], []
    for op in ("RandomUniformLike", "RandomNormalLike"):
        yield op, [constant, node(op, ["c"])], of_size
    yield "DFT", [node("DFT", ["signal", "n"], axis=1)], [("signal", np.ones((1, 8, 1), np.float32)), ("n", i64(size)[0])]
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        hidden = max(1, min(root, 1 << 30))
        two = [node("ConstantOfShape", ["ws"], ["w"]), node("ConstantOfShape", ["rs"], ["r"])]
        shapes = [("ws", i64(1, gates * hidden, 8)), ("rs", i64(1, gates * hidden, hidden))]
        cell = node(op, ["x", "w", "r"], ["y"], hidden_size=hidden)
        yield f"{op} of a large state", [*two, cell], shapes, (4, 1, 8)
        small = [("ws", i64(1, gates * 4, 8)), ("rs", i64(1, gates * 4, 4))]
        cell = node(op, ["x", "w", "r"], ["y"], hidden_size=4)
        yield f"{op} of a long sequence", [*two, cell], small, (size, 1, 8)
        unfit = [("ws", i64(1, gates * 4, 7)), ("rs", i64(1, gates * 4, 4))]
        yield f"{op} of unfit weights", [*two, cell], unfit, (max(1, min(size, 64)), 1, 8)
    attention = node("Attention", ["x", "x", "x"])
    yield "Attention", [attention], [], (1, 1, root, 8), 23
    quantized = [node("QuantizeLinear", ["x", "f", "z"], ["q"]), node("DequantizeLinear", ["q", "f", "z"])]
    yield "Quantize", quantized, [("f", np.float32(0.5)), ("z", np.uint8(0))], (1, size)
    tokens = [node("Identity", ["x"], ["t0"])]
    tokens += [node("Concat", [f"t{i}"] * 2, [f"t{i + 1}"], axis=1) for i in range(min(40, size.bit_length()))]
    yield "Concat of itself", [*tokens, node("Relu", [tokens[-1].output[0]])], [], (1, 8)
    nodes = min(size, 4096)
    chain = [node("Relu", ["x" if i == 0 else f"t{i}"], ["y" if i == nodes - 1 else f"t{i + 1}"]) for i in range(nodes)]
    yield "many nodes", chain, [], (1, 8)
    for title, limit in (("Loop", "m"), ("Loop without end", "")):
        given = [("m", i64(size)[0]), ("go", np.bool_(True))]
        yield title, [node("Loop", [limit, "go", "x"], body=doubling())], given, (1, 8)
    yield "many operands", [node("Sum", ["x"] * min(size, 90_000))], [], (1, 8)


def at_limits():
    """Models at limits that are not those of an operator, and just above them."""

    def chain(count: int, names=lambda i: f"t{i}"):
        return [node("Relu", ["x" if i == 0 else names(i - 1)], [names(i) if i + 1 < count else "y"]) for i in range(count)]

    for more in (0, 1):
        what = "above" if more else "at"
        yield f"nodes, {what}", [chain(100_000 + more)], {"shape": (1, 2)}
        yield f"inputs, {what}", [[node("Sum", ["x"] * (4096 + more))]], {"shape": (1, 2)}
        attributes = {f"a{i}": 1 for i in range(256 + more)}
        yield f"attributes, {what}", [[node("Relu", ["x"], **attributes)]], {"shape": (1, 2)}
        yield f"length of a name, {what}", [chain(2, lambda i: "t" * (4096 + more))], {"shape": (1, 2)}
        given = [("m", i64((1 << 20) + more)[0]), ("go", np.bool_(True))]
        yield f"iterations, {what}", [[node("Loop", ["m", "go", "x"], body=doubling())], given], {"shape": (1, 8)}
        to = [("to", i64(1, 1, 1, (1 << 21) + more))]
        yield f"resized, {what}", [[node("Resize", ["x", "", "", "to"], mode="linear")], to], {"shape": (1, 1, 1, 2)}
        # In and out; products of square matrices.
        yield f"memory, {what}", [chain(1)], {"shape": (1, (1 << 27) + 16 * more)}
        yield f"work, {what}", [[node("MatMul", ["x", "x"])]], {"shape": (6500 + 2 * more, 6500 + 2 * more)}
        shape = [("s", i64((1 << 26) + more))]
        yield f"folded, {what}", [[node("ConstantOfShape", ["s"], ["c"]), node("Cos", ["c"])], shape], {"shape": (1, 2)}


def generated(folder: Path) -> list[Path]:
    draw = random.Random(18)
    paths = []

    def add(title: str, size: int, data: bytes) -> None:
        path = folder / f"{len(paths):04}-{title.replace(' ', '_').replace(',', '')}-{size}.onnx"
        path.write_bytes(data)
        paths.append(path)

    for size in SIZES:
        for title, *parts in operators(size):
            nodes, constants, *rest = parts
            # Hundreds of them, always the same.
            if draw.random() > 0.25:
                continue
            try:
                data = model(nodes, constants, *rest)
            except (ValueError, OverflowError):
                continue
            add(title, size, data)
    for sizes in (BELOW, AT, ABOVE):
        drawn = {size: dict(every.models(size)) for size in sizes}
        for title in drawn[sizes[0]]:
            size = draw.choice(sizes)
            add(title, size, drawn[size][title]())
    # What one node makes of a few bytes, many make many times.
    for title, make in every.models(1 << 14, copies=COPIES):
        add(f"many of {title}", COPIES, make())
    for title, parts, options in at_limits():
        add(title, 0, model(*parts, **options))
    return paths


def without() -> set[str]:
    """The operators that the engine knows and no file here has. The value of a constant is in the file."""
    nodes = [node for _, nodes, *_ in operators(8) for node in nodes]
    nodes += [node for _, make in every.models(8) for node in onnx.load_from_string(make()).graph.node]
    had = {(node.domain, node.op_type) for node in nodes} | {("", "Constant")}
    # The fallback's rules for both domains are the same.
    return {op for domain, op in every.known() - had if ("com.microsoft", op) not in had}


class Outcome:
    """The outcome of a process and its resources."""

    def __init__(self, command, folder: Path):
        with open(folder / "err", "w+b") as err, open(folder / "out", "w+b") as out:
            child = subprocess.Popen(command, stdout=out, stderr=err, preexec_fn=bounded)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            err.seek(0)
            out.seek(0)
            self.err, self.out = err.read().decode(errors="replace"), out.read().decode(errors="replace")
        self.status = child.returncode
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss << 10


def bounded() -> None:
    """Called in the child before it starts: limits its processor time."""
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


def asked(outcome: Outcome, folder: Path, run_all: bool) -> tuple[float, int] | None:
    """Seconds and bytes that a run of an accepted model may take, by its plan as inspected. Writes inputs for a short run."""
    if outcome.status != 0:
        return None
    plan = json.loads(outcome.out)
    memory = plan.get("memory") or {}
    held = sum(value for value in memory.values() if isinstance(value, int))
    shapes = [port.get("shape") or [] for port in [*plan.get("inputs", []), *plan.get("outputs", [])]]
    edge = sum(4 * int(np.prod([float(dim) for dim in shape if isinstance(dim, int)])) for shape in shapes)
    seconds = ((plan.get("work") or 0) + held + edge) / WORK_PER_SECOND
    if seconds <= SHORT_SECONDS or run_all:
        for port in plan.get("inputs", []):
            np.save(folder / f"{port['name']}.npy", np.zeros(port["shape"], NUMBERS[port["dtype"]]))
    return seconds, held + 4 * edge


def calls(path: Path, folder: Path):
    given = [part for file in sorted(folder.glob("*.npy")) for part in ("--input", f"{file.stem}={file}")]
    yield "compile", ["compile", path, "-o", folder / "p.skip"]
    yield "bench", ["bench", path, "--warmup", "0", "--runs", "1"]
    yield "quantize", ["quantize", path, "--calibrate", folder, "-o", folder / "q.onnx"]
    yield "run", ["run", path, *given, "--output-dir", folder / "results"]


def check(binary, path: Path, run_all: bool) -> tuple[list[str], dict[str, int]]:
    """What is wrong with a file, and how often it was refused and answered."""
    wrong, counts = [], {"refused": 0, "answered": 0}
    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        folder = Path(scratch)
        Image.new("RGB", (8, 8)).save(folder / "sample.png")
        outcomes = {"inspect": Outcome([binary, "inspect", path, "--json"], folder)}
        allowance = asked(outcomes["inspect"], folder, run_all)
        if allowance is None or allowance[0] <= SHORT_SECONDS or run_all:
            outcomes |= {name: Outcome([binary, *map(str, arguments)], folder) for name, arguments in calls(path, folder)}
        for name, outcome in outcomes.items():
            counts["answered" if outcome.status == 0 else "refused"] += 1
            seconds, memory = CPU_SECONDS + path.stat().st_size / (1 << 20), MEMORY
            if outcome.status == 0 and allowance:
                # Compiling and measuring run a model twice.
                seconds, memory = seconds + 3 * allowance[0], memory + 3 * allowance[1]
            what = f"status {outcome.status}, {outcome.cpu:.1f} s, {outcome.memory >> 20} MB: {outcome.err.strip()[:150]}"
            lines = outcome.err.strip().splitlines()
            one_line = outcome.status == 0 or len(lines) == 1 or outcome.status == 2
            if outcome.status not in (0, 1, 2) or not one_line or outcome.cpu > seconds or outcome.memory > memory:
                wrong.append(f"{path.name}: {name}: {what}")
    return wrong, counts


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--all", action="store_true", help="also run accepted models that take long")
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    missing = without()
    if missing:
        print(f"FAIL no file has {', '.join(sorted(missing))}")
    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        paths = args.files or generated(Path(scratch))
        results = list(driver.in_parallel(lambda path: check(args.binary, path, args.all or bool(args.files)), paths))
    failures = [line for wrong, _ in results for line in wrong]
    refused, answered = (sum(counts[key] for _, counts in results) for key in ("refused", "answered"))
    for line in failures:
        print(f"FAIL {line}")
    print(f"bombs: {len(paths)} files, {refused} calls refused, {answered} answered, {len(failures)} failures")
    sys.exit(bool(failures or missing))


if __name__ == "__main__":
    main()
