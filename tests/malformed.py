"""What a file or a command line can get wrong: an error of one line each, never a crash.

The process gets 4 GiB of address space, so that a model which makes it allocate without
bound dies here and not on a phone.
"""

import re
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import driver
import fill

ADDRESS_SPACE = 4 << 30
TIMEOUT_SECONDS = 60
CODE = re.compile(r"[a-z0-9_.-]+")
FLOAT = TensorProto.FLOAT


def limit() -> None:
    """Called in the child before it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def graph(*nodes, inputs=(("x", (1, 3, 8, 8)),), outputs=("y",), constants=()) -> bytes:
    """A model that nothing has checked."""
    inputs = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs]
    outputs = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    made = helper.make_graph(list(nodes), "malformed", inputs, outputs, list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def tensor(name: str, dims, raw: bytes, kind=FLOAT) -> TensorProto:
    """An initializer whose bytes need not fit its shape."""
    made = TensorProto(name=name, data_type=kind, raw_data=raw)
    made.dims.extend(dims)
    return made


def ints(name: str, *values: int) -> TensorProto:
    return tensor(name, [len(values)], np.asarray(values, "<i8").tobytes(), TensorProto.INT64)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field: protobuf's own encoder refuses to nest this deep."""
    size, length = [], len(payload)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + payload


def nested(depth: int) -> bytes:
    """A model of If in If in If, each holding the next in its then-branch."""
    graph_attribute = field(1, b"then_branch") + b"\xa0\x01\x05"  # type: GRAPH
    body = field(1, helper.make_node("Relu", ["x"], ["y"]).SerializeToString())
    for _ in range(depth):
        attribute = graph_attribute + field(6, body)
        body = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    return graph() + field(7, body)  # protobuf merges the two graphs


def bad_graphs() -> dict[str, bytes]:
    """Models that contradict themselves or the format."""
    node = helper.make_node
    weights = np.zeros((4, 3, 3, 3), "<f4").tobytes()
    conv = node("Conv", ["x", "w"], ["y"])
    huge = 1 << 40
    return {
        "no graph": onnx.ModelProto(ir_version=8).SerializeToString(),
        "cycle": graph(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), outputs=("b",)),
        "unknown input": graph(node("Relu", ["nowhere"], ["y"])),
        "output that no node makes": graph(node("Relu", ["x"], ["z"])),
        "name made twice": graph(node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])),
        "unknown operator": graph(node("Frobnicate", ["x"], ["y"])),
        "unknown domain": graph(node("Relu", ["x"], ["y"], domain="nowhere.example")),
        "missing operand": graph(node("Conv", ["x"], ["y"])),
        "too many operands": graph(node("Relu", ["x", "x", "x"], ["y"])),
        "weights too short": graph(conv, constants=[tensor("w", (4, 3, 3, 3), weights[:-4])]),
        "weights without bytes": graph(conv, constants=[tensor("w", (4, 3, 3, 3), b"")]),
        "negative dimension": graph(conv, constants=[tensor("w", (4, -3, 3, 3), weights)]),
        "overflowing dimensions": graph(conv, constants=[tensor("w", (huge, huge, huge, 3), weights)]),
        "wrong channels": graph(conv, constants=[tensor("w", (4, 9, 3, 1), weights)]),
        "wrong rank": graph(conv, constants=[tensor("w", (36, 3), weights)]),
        "group 0": graph(node("Conv", ["x", "w"], ["y"], group=0), constants=[tensor("w", (4, 3, 3, 3), weights)]),
        "group that does not divide": graph(
            node("Conv", ["x", "w"], ["y"], group=2), constants=[tensor("w", (4, 3, 3, 3), weights)]
        ),
        "stride 0": graph(
            node("Conv", ["x", "w"], ["y"], strides=[0, 0]), constants=[tensor("w", (4, 3, 3, 3), weights)]
        ),
        "huge dilation": graph(
            node("Conv", ["x", "w"], ["y"], dilations=[huge, huge]), constants=[tensor("w", (4, 3, 3, 3), weights)]
        ),
        "huge pads": graph(
            node("Conv", ["x", "w"], ["y"], pads=[huge] * 4), constants=[tensor("w", (4, 3, 3, 3), weights)]
        ),
        "kernel beyond the image": graph(node("MaxPool", ["x"], ["y"], kernel_shape=[99, 99])),
        "pool without a kernel": graph(node("MaxPool", ["x"], ["y"])),
        "axis out of range": graph(node("Softmax", ["x"], ["y"], axis=9)),
        "permutation twice the same": graph(node("Transpose", ["x"], ["y"], perm=[0, 1, 1, 3])),
        "impossible reshape": graph(node("Reshape", ["x", "s"], ["y"]), constants=[ints("s", 7, 5)]),
        "shapes that do not broadcast": graph(
            node("Add", ["x", "b"], ["y"]), inputs=(("x", (1, 3)), ("b", (1, 4)))
        ),
        "expanding without bound": graph(node("Expand", ["x", "s"], ["y"]), constants=[ints("s", huge, 3, 8, 8)]),
        "tiling without bound": graph(node("Tile", ["x", "s"], ["y"]), constants=[ints("s", huge, huge, 1, 1)]),
        "padding without bound": graph(
            node("Pad", ["x", "s"], ["y"]), constants=[ints("s", 0, 0, 0, 0, 0, huge, huge, huge)]
        ),
        "constant without bound": graph(
            node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"]), constants=[ints("s", huge, huge)]
        ),
        "gather out of range": graph(node("Gather", ["x", "i"], ["y"], axis=1), constants=[ints("i", 77)]),
        "split that does not add up": graph(
            node("Split", ["x", "s"], ["y", "z"], axis=1), constants=[ints("s", 1, 9)], outputs=("y", "z")
        ),
        "a thousand nested Ifs": nested(1000),
        "attribute of another type": graph(node("Softmax", ["x"], ["y"], axis="last")),
    }


def write_models(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files that are wrong for sure, and files that may happen to be right."""
    good = fill.fill("simplenet_310k").read_bytes()
    random = np.random.default_rng(1)
    wrong = {"empty": b"", "one byte": b"\x08", "text": b"this is not a model\n"}
    wrong |= {f"random {size}": random.bytes(size) for size in (10, 1000, 100_000)}
    wrong |= {f"truncated to {share}": good[: int(len(good) * share)] for share in (0.001, 0.1, 0.5, 0.99)}
    wrong["last byte missing"] = good[:-1]
    wrong["graph without weights"] = (fill.GRAPHS / "skipnet_m.onnx").read_bytes()
    wrong |= bad_graphs()
    # Most flips are in the weights: half of these hit the structure, which is at both ends.
    flipped = {}
    for index in range(60):
        data = bytearray(good)
        ends = [*range(4000), *range(len(data) - 2000, len(data))]
        for _ in range(3):
            at = int(random.choice(ends)) if index % 2 else int(random.integers(len(data)))
            data[at] ^= 1 << int(random.integers(8))
        flipped[f"flipped bits {index}"] = bytes(data)

    def write(models):
        paths = {}
        for number, (title, data) in enumerate(models.items()):
            paths[title] = folder / f"{len(models)}_{number}.onnx"
            paths[title].write_bytes(data)
        return paths

    return write(wrong), write(flipped)


def write_inputs(folder: Path) -> dict[str, list]:
    """Arguments behind `run MODEL` that are wrong for a model of input `[1, 3, 32, 32]`."""
    good = folder / "good.npy"
    np.save(good, np.zeros((1, 3, 32, 32), np.float32))
    data = good.read_bytes()

    def array(name, value):
        np.save(folder / f"{name}.npy", value)
        return ["--input", f"input={folder / name}.npy"]

    def file(name, content):
        (folder / name).write_bytes(content)
        return ["--input", f"input={folder / name}"]

    return {
        "no input": [],
        "unknown input": ["--input", f"nowhere={good}", "--input", f"input={good}"],
        "wrong shape": array("shape", np.zeros((1, 3, 31, 32), np.float32)),
        "wrong rank": array("rank", np.zeros((3, 32, 32), np.float32)),
        "no elements": array("none", np.zeros((0, 3, 32, 32), np.float32)),
        "wrong type": array("type", np.zeros((1, 3, 32, 32), np.int64)),
        "array of objects": array("objects", np.array([{}], dtype=object)),
        "no such file": ["--input", f"input={folder / 'nowhere.npy'}"],
        "a folder": ["--input", f"input={folder}"],
        "empty npy": file("empty.npy", b""),
        "truncated npy": file("short.npy", data[:-5]),
        "truncated header": file("header.npy", data[:20]),
        "text": file("text.npy", b"1 2 3\n"),
        "huge npy": file("huge.npy", data.replace(b"(1, 3, 32, 32)", b"(1<<40,3,32,4)")),
        "overflowing npy": file("overflow.npy", data.replace(b"(1, 3, 32, 32)", b"(9999999999, )")),
    }


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    # An emulator needs more address space than the program it runs.
    prepare = None if args.runner else limit

    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        folder = Path(scratch)
        wrong, flipped = write_models(folder)
        good = fill.fill("simplenet_310k")
        inputs = write_inputs(folder)
        right = ["--input", f"input={folder / 'good.npy'}"]
        out = ["--output-dir", folder / "out"]
        (folder / "file").touch()

        # title, arguments, whether success would be fine
        calls = [(f"model, {title}: inspect", ["inspect", path], False) for title, path in wrong.items()]
        calls += [(f"model, {title}: run", ["run", path, *right, *out], True) for title, path in flipped.items()]
        calls += [(f"input, {title}", ["run", good, *extra, *out], False) for title, extra in inputs.items()]
        calls += [
            ("no such model", ["inspect", folder / "nowhere.onnx"], False),
            ("a folder as model", ["inspect", folder], False),
            ("output into a file", ["run", good, *right, "--output-dir", folder / "file"], False),
            ("shape that contradicts", ["run", good, *right, *out, "--shape", "input=1x3x99x99"], False),
            ("image that is none", ["classify", good, folder / "file"], False),
        ]

        def check(call) -> str | None:
            title, arguments, may_succeed = call
            try:
                skipstone.call(*arguments, timeout=TIMEOUT_SECONDS, prepare=prepare)
                return None if may_succeed else f"{title}: accepted"
            except driver.Refused as refusal:
                return None if CODE.fullmatch(refusal.code) else f"{title}: strange code: {refusal}"
            except driver.Crashed as crash:
                return f"{title}: {crash}"

        failures = [line for line in driver.in_parallel(check, calls) if line]
    for line in failures:
        print(f"FAIL {line}")
    print(f"malformed: {len(calls)} calls, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
