"""Invalid models for hostile/malformed.py: inconsistent with the format or with themselves, or too demanding.

Bytes, not files: nothing here has been checked. Each family is a function that returns models by title; all of them
must be refused.
"""

import math
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
HUGE = 1 << 40


def graph(*nodes, inputs=(("x", (1, 3, 8, 8)),), outputs=("y",), constants=(), opset: int = 17) -> bytes:
    """A model that skips `onnx.checker`."""
    inputs = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs]
    outputs = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    made = helper.make_graph(list(nodes), "malformed", inputs, outputs, list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def tensor(name: str, dims, raw: bytes, kind=FLOAT) -> TensorProto:
    """An initializer whose data may not match its shape."""
    made = TensorProto(name=name, data_type=kind, raw_data=raw)
    made.dims.extend(dims)
    return made


def ints(name: str, *values: int) -> TensorProto:
    return tensor(name, [len(values)], np.asarray(values, "<i8").tobytes(), TensorProto.INT64)


def floats(name: str, *values: float) -> TensorProto:
    return tensor(name, [len(values)], np.asarray(values, "<f4").tobytes())


def vector(count: int):
    """An input `x` with this many elements."""
    return (("x", (count,)),)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field: protobuf's own encoder refuses to nest this deep."""
    size, length = [], len(payload)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + payload


def nested(depth: int) -> bytes:
    """A model of nested Ifs, each with the next in its then-branch."""
    graph_attribute = field(1, b"then_branch") + b"\xa0\x01\x05"  # type: GRAPH
    body = field(1, helper.make_node("Relu", ["x"], ["y"]).SerializeToString())
    for _ in range(depth):
        attribute = graph_attribute + field(6, body)
        body = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    return graph() + field(7, body)  # protobuf merges the two graphs


def bad_wire() -> dict[str, bytes]:
    """Bytes that are not a protobuf message, and messages nested too deep."""
    good = graph(helper.make_node("Relu", ["x"], ["y"]))
    deep = b""
    for _ in range(10_000):
        deep = field(4, field(1, deep))  # a sequence of sequences of ...
    return {
        "length past the end": good + b"\x3a\xff\x7f",
        "length of 2^64": good + b"\x3a" + b"\xff" * 9 + b"\x01",
        "over-long varint": b"\x08" + b"\x80" * 20 + b"\x08" + good,
        "field 0": good + b"\x00\x01",
        "unknown wire type": good + b"\x0f",
        "group": good + b"\x0b\x0c",
        "a type 10,000 deep": good + field(7, field(11, field(1, b"z") + field(2, deep))),
        "a million nodes": field(7, field(1, b"") * 1_000_000),
        "a million tiny nodes": field(7, field(1, field(4, b"Relu")) * 1_000_000),
    }


def bad_headers() -> dict[str, bytes]:
    """Missing, unknown or contradictory versions, inputs and outputs."""
    relu = helper.make_node("Relu", ["x"], ["y"])

    def changed(change) -> bytes:
        model = onnx.ModelProto.FromString(graph(relu))
        change(model)
        return model.SerializeToString()

    def rename(name):
        return lambda model: setattr(model.graph.node[0], "name", name)

    def size(value):
        return lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", value)

    # protobuf's encoder refuses text that is not UTF-8.
    odd_name = graph(helper.make_node("Relu", ["x"], ["y"], name="NAME")).replace(b"NAME", b"\xff\xfe\xfd\xfc")
    return {
        "no nodes": changed(lambda model: model.graph.ClearField("node")),
        "no outputs": changed(lambda model: model.graph.ClearField("output")),
        "opset 0": graph(relu, opset=0),
        "opset 999": graph(relu, opset=999),
        "no opset": changed(lambda model: model.ClearField("opset_import")),
        "no version": changed(lambda model: model.ClearField("ir_version")),
        "version 999": changed(lambda model: setattr(model, "ir_version", 999)),
        "input of another type": changed(
            lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 99)
        ),
        "negative input": changed(size(-3)),
        "input of 2^40 rows": changed(size(HUGE)),
        "name of 10 megabytes": changed(rename("n" * 10_000_000)),
        "name that is not UTF-8": odd_name,
    }


def bad_tensors() -> dict[str, bytes]:
    """Weights whose shape, element type and data are inconsistent."""
    add = helper.make_node("Add", ["x", "w"], ["y"])

    def weights(**fields) -> bytes:
        made = tensor("w", [3], bytes(12))
        for name, value in fields.items():
            if isinstance(value, list):
                made.ClearField(name)
                getattr(made, name).extend(value)
            else:
                setattr(made, name, value)
        return graph(add, inputs=vector(3), constants=[made])

    def sparse(indices, dims=(3,)) -> bytes:
        model = onnx.ModelProto.FromString(graph(add, inputs=vector(3)))
        values = tensor("w", [len(indices)], bytes(4 * len(indices)))
        made = model.graph.sparse_initializer.add(values=values, indices=ints("", *indices))
        made.dims.extend(dims)
        return model.SerializeToString()

    return {
        "raw and typed data": weights(float_data=[1.0, 2.0, 3.0]),
        "data for no elements": weights(dims=[0]),
        "dimensions of INT_MAX": weights(dims=[2**31 - 1, 2**31 - 1, 2**31 - 1]),
        "dimensions whose product wraps": weights(dims=[2**62, 4, 3]),
        "a hundred dimensions": weights(dims=[1] * 99 + [3]),
        "unknown type": weights(data_type=99),
        "undefined type": weights(data_type=0),
        "raw strings": weights(data_type=TensorProto.STRING),
        "float8 as float": weights(data_type=TensorProto.FLOAT8E4M3FN),
        "typed data of another type": weights(raw_data=b"", int32_data=[1, 2, 3]),
        "too little typed data": weights(raw_data=b"", float_data=[1.0, 2.0]),
        "two of one name": graph(add, inputs=vector(3), constants=[floats("w", 1, 2, 3), floats("w", 1, 2, 3)]),
        "named like an input of another shape": graph(
            add, inputs=(("x", (3,)), ("w", (4,))), constants=[floats("w", 1, 2, 3)]
        ),
        "named like an output of a node": graph(
            helper.make_node("Relu", ["x"], ["w"]), add, inputs=vector(3), constants=[floats("w", 1, 2, 3)]
        ),
        "sparse, unsorted": sparse([2, 0]),
        "sparse, twice the same": sparse([1, 1]),
        "sparse, out of range": sparse([1, 3]),
        "sparse, negative": sparse([-1]),
        "sparse without bound": sparse([1], (HUGE, HUGE)),
    }


def bad_external(folder: Path) -> dict[str, bytes]:
    """External data with invalid locations, in `folder` or outside of it."""
    (folder / "data").write_bytes(bytes(12))
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to("../data")
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "first").write_bytes(bytes(12))
    os.link(folder / "first", folder / "twin")
    os.mkfifo(folder / "pipe")

    def kept(**entries) -> bytes:
        made = TensorProto(name="w", data_type=FLOAT, data_location=TensorProto.EXTERNAL)
        made.dims.append(3)
        for key, value in ({"location": "data"} | entries).items():
            made.external_data.add(key=key, value=value)
        return graph(helper.make_node("Add", ["x", "w"], ["y"]), inputs=vector(3), constants=[made])

    cases = {
        "folder above": kept(location="../data"),
        "folder above, inside": kept(location="inner/../data"),
        "absolute": kept(location="/etc/passwd"),
        "link": kept(location="outside"),
        "link in a folder": kept(location="inner/link"),
        "hard link": kept(location="twin"),
        "device": kept(location="/dev/zero"),
        "pipe": kept(location="pipe"),
        "a folder": kept(location="inner"),
        "nowhere": kept(location="nowhere"),
        "nothing": kept(location=""),
        "NUL": kept(location="da\0ta"),
        "backslash": kept(location="..\\data"),
        "negative offset": kept(offset="-4"),
        "overflowing offset": kept(offset=str(1 << 65)),
        "offset past the end": kept(offset="4"),
        "negative length": kept(length="-12"),
        "length past the end": kept(length="16"),
        "length of another shape": kept(length="8"),
        "length that is not a number": kept(length="twelve"),
        "unknown key": kept(color="red"),
    }
    return {f"data elsewhere, {title}": data for title, data in cases.items()}


def bad_operators() -> dict[str, bytes]:
    """Operators with attributes and constants that their definition forbids."""
    node = helper.make_node
    row = vector(6)

    def one(op: str, *constants: TensorProto, inputs=row, outputs=("y",), opset: int = 17, **attributes) -> bytes:
        names = ["x", *(constant.name for constant in constants)]
        return graph(
            node(op, names, list(outputs), **attributes),
            inputs=inputs,
            outputs=outputs,
            constants=[constant for constant in constants if constant.name],
            opset=opset,
        )

    image = (("x", (1, 3, 8, 8)),)
    skip = TensorProto()  # an operand left out
    scale, zero = floats("s", 0.1), tensor("z", [1], b"\0", TensorProto.UINT8)
    per_channel = floats("s", 0.1, 0.2)
    cases = {
        # Axes.
        "LogSoftmax, axis": one("LogSoftmax", axis=1),
        "Softmax, axis before the first": one("Softmax", axis=-2),
        "Softmax of what is computed, axis": graph(
            node("Conv", ["x", "w"], ["c"]),
            node("Softmax", ["c"], ["y"], axis=4),
            constants=[tensor("w", (4, 3, 3, 3), bytes(432))],
        ),
        "ArgMax, axis": one("ArgMax", axis=1),
        "ReduceMean, axes": one("ReduceMean", axes=[3]),
        "ReduceSum, axes": one("ReduceSum", ints("a", 3)),
        "ReduceSum, axes twice the same": one("ReduceSum", ints("a", 1, 1), inputs=image),
        "LayerNormalization, axis": one("LayerNormalization", floats("s", *[1] * 6), axis=5),
        "Concat, axis": one("Concat", floats("s", 1), axis=1),
        "Gather, axis": one("Gather", ints("i", 0), axis=1),
        "Flatten, axis": one("Flatten", axis=2),
        "CumSum, axis": one("CumSum", tensor("a", [], bytes([9, 0, 0, 0, 0, 0, 0, 0]), TensorProto.INT64)),
        "Split, axis": one("Split", ints("s", 3, 3), axis=1, outputs=("y", "z")),
        "Squeeze, axis": one("Squeeze", ints("a", 1)),
        "Squeeze of 6": one("Squeeze", ints("a", 0)),
        "Unsqueeze, axis": one("Unsqueeze", ints("a", 3)),
        "Unsqueeze, axes twice the same": one("Unsqueeze", ints("a", 0, 0)),
        # Shapes.
        "Reshape with two -1": one("Reshape", ints("s", -1, -1)),
        "Reshape with -2": one("Reshape", ints("s", -2, 3)),
        "Reshape that does not divide": one("Reshape", ints("s", -1, 4)),
        "Concat of other shapes": graph(
            node("Concat", ["x", "z"], ["y"], axis=0), inputs=(("x", (2, 3)), ("z", (2, 4)))
        ),
        "MatMul of other shapes": graph(node("MatMul", ["x", "z"], ["y"]), inputs=(("x", (2, 3)), ("z", (2, 3)))),
        "Gemm of other shapes": graph(node("Gemm", ["x", "z"], ["y"]), inputs=(("x", (2, 3)), ("z", (2, 3)))),
        "Where of other shapes": graph(
            node("Greater", ["x", "x"], ["c"]), node("Where", ["c", "x", "z"], ["y"]), inputs=(("x", (3,)), ("z", (4,)))
        ),
        "Max of other shapes": graph(node("Max", ["x", "z"], ["y"]), inputs=(("x", (3,)), ("z", (4,)))),
        "broadcast of what is computed": graph(
            node("Relu", ["x"], ["a"]),
            node("Concat", ["z", "z"], ["b"], axis=0),
            node("Mul", ["a", "b"], ["c"]),
            node("Neg", ["c"], ["y"]),
            inputs=(("x", (3,)), ("z", (4,))),
        ),
        "Expand to another shape": one("Expand", ints("s", 5)),
        "Conv, bias of another length": graph(
            node("Conv", ["x", "w", "b"], ["y"]), constants=[tensor("w", (4, 3, 3, 3), bytes(432)), floats("b", 1, 2)]
        ),
        "Conv, kernel of 0": graph(
            node("Conv", ["x", "w"], ["y"], kernel_shape=[0, 0]), constants=[tensor("w", (4, 3, 0, 0), b"")]
        ),
        "Conv, negative pads": graph(
            node("Conv", ["x", "w"], ["y"], pads=[-9] * 4), constants=[tensor("w", (4, 3, 3, 3), bytes(432))]
        ),
        "BatchNormalization of other channels": graph(
            node("BatchNormalization", ["x", *"sbmv"], ["y"]), constants=[floats(name, 1, 1) for name in "sbmv"]
        ),
        "MaxPool, stride of 0": one("MaxPool", inputs=image, kernel_shape=[2, 2], strides=[0, 0]),
        "AveragePool, kernel of 0": one("AveragePool", inputs=image, kernel_shape=[0, 0]),
        "Pad, negative beyond the tensor": one("Pad", ints("p", -4, -4)),
        "Pad, unknown mode": one("Pad", ints("p", 1, 1), mode="sideways"),
        "DepthToSpace, blocks of 0": one("DepthToSpace", inputs=image, blocksize=0),
        "DepthToSpace that does not divide": one("DepthToSpace", inputs=image, blocksize=2),
        "Resize by 0": one("Resize", skip, floats("s", 1, 1, 0, 2), inputs=image),
        "Resize by NaN": one("Resize", skip, floats("s", 1, 1, math.nan, 2), inputs=image),
        "Resize by infinity": one("Resize", skip, floats("s", 1, 1, math.inf, 2), inputs=image),
        "Resize by -1": one("Resize", skip, floats("s", 1, 1, -1, 2), inputs=image),
        "Resize without bound": one("Resize", skip, floats("s", 1, 1, 1e30, 2), inputs=image),
        "Resize to 0": one("Resize", skip, skip, ints("s", 1, 3, 0, 8), inputs=image),
        "Resize to -1": one("Resize", skip, skip, ints("s", 1, 3, -1, 8), inputs=image),
        "Resize to a size without bound": one("Resize", skip, skip, ints("s", 1, 3, HUGE, HUGE), inputs=image),
        "Resize of other axes": one("Resize", skip, floats("s", 2, 2), inputs=image),
        "Resize, unknown mode": one("Resize", skip, floats("s", 1, 1, 2, 2), inputs=image, mode="psychic"),
        "Resize, unknown coordinates": one(
            "Resize", skip, floats("s", 1, 1, 2, 2), inputs=image, coordinate_transformation_mode="polar"
        ),
        # Indices.
        "Slice by 0": one("Slice", ints("b", 0), ints("e", 6), ints("a", 0), ints("t", 0)),
        "Slice, axes twice the same": one("Slice", ints("b", 0, 0), ints("e", 6, 6), ints("a", 0, 0)),
        "Slice of unlike lists": one("Slice", ints("b", 0), ints("e", 6, 6)),
        "Gather before the first": one("Gather", ints("i", -7)),
        "GatherElements out of range": one("GatherElements", ints("i", 6)),
        "GatherND out of range": one("GatherND", tensor("i", [1, 1], ints("", 6).raw_data, TensorProto.INT64)),
        "ScatterElements out of range": one("ScatterElements", ints("i", 6), floats("u", 1)),
        "ScatterND out of range": one(
            "ScatterND", tensor("i", [1, 1], ints("", 6).raw_data, TensorProto.INT64), floats("u", 1)
        ),
        "TopK of more than there are": one("TopK", ints("k", 7), outputs=("y", "i")),
        "TopK of -1": one("TopK", ints("k", -1), outputs=("y", "i")),
        "OneHot without bound": graph(
            node("ArgMax", ["x"], ["i"], axis=0), node("OneHot", ["i", "d", "v"], ["y"]),
            inputs=row, constants=[ints("d", HUGE), floats("v", 0, 1)],
        ),
        # Computed while the model is loaded.
        "Range without bound": graph(
            node("Range", ["a", "b", "c"], ["r"]),
            node("ConstantOfShape", ["r"], ["y"]),
            constants=[tensor(n, [], ints("", v).raw_data, TensorProto.INT64) for n, v in zip("abc", (0, HUGE, 1))],
        ),
        "Range by 0": graph(
            node("Range", ["a", "b", "c"], ["y"]),
            constants=[tensor(n, [], ints("", v).raw_data, TensorProto.INT64) for n, v in zip("abc", (0, 9, 0))],
        ),
        "tile of a tile": graph(
            *(node("Tile", [f"t{i}", "s"], [f"t{i + 1}"]) for i in range(12)),
            node("ReduceSum", ["t12"], ["z"]), node("Add", ["x", "z"], ["y"]),
            inputs=row, constants=[floats("t0", 1), ints("s", 1000)],
        ),
        "constants divided by 0": graph(
            node("Div", ["a", "b"], ["c"]), node("Reshape", ["x", "c"], ["y"]),
            inputs=row, constants=[ints("a", 6), ints("b", 0)],
        ),
        "least integer divided by -1": graph(
            node("Div", ["a", "b"], ["c"]), node("Reshape", ["x", "c"], ["y"]),
            inputs=row, constants=[ints("a", -(2**63)), ints("b", -1)],
        ),
        "remainder by 0": graph(
            node("Mod", ["a", "b"], ["c"]), node("Reshape", ["x", "c"], ["y"]),
            inputs=row, constants=[ints("a", 6), ints("b", 0)],
        ),
        # Quantization.
        "scale of 0": one("QuantizeLinear", floats("s", 0), zero),
        "scale of NaN": one("QuantizeLinear", floats("s", math.nan), zero),
        "negative scale": one("QuantizeLinear", floats("s", -1), zero),
        "scales of other channels": one("QuantizeLinear", per_channel, axis=0),
        "zero point of another length": one("QuantizeLinear", scale, tensor("z", [2], b"\0\0", TensorProto.UINT8)),
        # Attributes.
        "attribute of NaN": one("LeakyRelu", alpha=math.nan),
        "attribute of infinity": one("Elu", alpha=math.inf),
        "cast to an unknown type": one("Cast", to=99),
        "Einsum of nonsense": one("Einsum", equation="ij->->k"),
        "Concat of nothing": graph(node("Concat", [], ["y"], axis=0)),
        "Split of nothing": graph(node("Split", [], ["y"])),
        "Squeeze of nothing": graph(node("Squeeze", [], ["y"])),
        "a node that reads itself": graph(node("Relu", ["y"], ["y"])),
        "MoE of more experts than there are": graph(
            node("MoE", ["x", "r", "w", "", "v"], ["y"], domain="com.microsoft", k=9),
            inputs=(("x", (1, 4)), ("r", (1, 2))),
            constants=[tensor("w", (2, 4, 8), bytes(256)), tensor("v", (2, 8, 4), bytes(256))],
        ),
        "If of another output": branches((1,), (1,), outputs=2),
    }
    return {f"operator, {title}": data for title, data in cases.items()}


def bad_quantized() -> dict[str, bytes]:
    """Quantized models whose operands, scales and zero points are inconsistent."""
    node = helper.make_node
    u8, i8, i32, i64 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64
    rows, image = (("x", (2, 3)),), (("x", (1, 3, 8, 8)),)

    def number(name: str, kind=u8, count: int | None = None) -> TensorProto:
        """A zero point, or `count` of them."""
        width = {u8: 1, i8: 1, i32: 4, i64: 8, FLOAT: 4}[kind]
        return tensor(name, [] if count is None else [count], bytes(width * (count or 1)), kind)

    def quantize(scale: TensorProto, zero: TensorProto, **attributes) -> bytes:
        return graph(node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes), inputs=rows, constants=[scale, zero])

    def dequantize(scale: TensorProto, zero: TensorProto, weights: TensorProto | None = None, **attributes) -> bytes:
        weights = weights or tensor("w", [2, 3], bytes(6), i8)
        nodes = node("DequantizeLinear", ["w", "s", "z"], ["d"], **attributes), node("Add", ["x", "d"], ["y"])
        return graph(*nodes, inputs=rows, constants=[weights, scale, zero])

    def behind(op: str, inputs, constants, shape=image, dynamic: bool = False, count: int = 1) -> bytes:
        """An operator on `q`, which is `x` quantized with scale `s` and zero point `z`."""
        first = node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]) if dynamic else None
        first = first or node("QuantizeLinear", ["x", "s", "z"], ["q"])
        fixed = [] if dynamic else [floats("s", 0.1), number("z")]
        outputs = ["y", "y2", "y3", "y4"][:count]
        return graph(first, node(op, inputs, outputs), inputs=shape, constants=[*fixed, *constants])

    def convolution(inputs=("q", "s", "z", "w", "ws", "wz", "ys", "yz"), **changed: TensorProto) -> bytes:
        constants = {
            "w": tensor("w", (4, 3, 3, 3), bytes(108), i8), "ws": floats("ws", 0.1), "wz": number("wz", i8),
            "ys": floats("ys", 0.1), "yz": number("yz"), "b": number("b", i32, 4),
        } | changed
        return behind("QLinearConv", inputs, [constants[name] for name in constants if name in inputs])

    def product(**changed: TensorProto) -> bytes:
        constants = {
            "w": tensor("w", (3, 5), bytes(15), i8), "ws": floats("ws", 0.1), "wz": number("wz", i8),
            "ys": floats("ys", 0.1), "yz": number("yz"),
        } | changed
        inputs = ["q", "s", "z", *constants]
        return behind("QLinearMatMul", inputs, constants.values(), shape=rows)

    def integer(op: str, *constants: TensorProto, zero: str = "z") -> bytes:
        """An integer product with zero points for the weights."""
        shape = rows if op == "MatMulInteger" else image
        return behind(op, ["q", constants[0].name, zero, *(c.name for c in constants[1:])], constants, shape, True)

    kernels, matrix = tensor("w", (4, 3, 3, 3), bytes(108), i8), tensor("w", (3, 5), bytes(15), i8)
    scale, zero, several = floats("s", 0.1), number("z"), floats("s", 0.1, 0.2, 0.3)
    with_bias = ("q", "s", "z", "w", "ws", "wz", "ys", "yz", "b")
    cases = {
        "QuantizeLinear, infinite scale": quantize(floats("s", math.inf), zero),
        "QuantizeLinear, one of three scales is NaN": quantize(floats("s", 1, math.nan, 1), number("z", u8, 3)),
        "QuantizeLinear, integer scale": quantize(ints("s", 1), zero),
        "QuantizeLinear, zero point of floats": quantize(scale, number("z", FLOAT)),
        "QuantizeLinear, zero point of 64 bits": quantize(scale, number("z", i64)),
        "QuantizeLinear, axis": quantize(several, number("z", u8, 3), axis=2),
        "QuantizeLinear, least axis": quantize(several, number("z", u8, 3), axis=-(2**63)),
        "QuantizeLinear, scales of no axis": quantize(tensor("s", [3, 1], several.raw_data), number("z", u8, 3)),
        "QuantizeLinear without a scale": graph(node("QuantizeLinear", ["x"], ["y"])),
        "QuantizeLinear, scale from nowhere": graph(
            node("QuantizeLinear", ["x", "nowhere", "z"], ["y"]), inputs=rows, constants=[zero]
        ),
        "QuantizeLinear, scale left out": graph(
            node("QuantizeLinear", ["x", "", "z"], ["y"]), inputs=rows, constants=[zero]
        ),
        "DequantizeLinear, zero point of another type": dequantize(scale, zero),
        "DequantizeLinear, scale of 0": dequantize(floats("s", 0), number("z", i8)),
        "DequantizeLinear, negative scale": dequantize(floats("s", -0.1), number("z", i8)),
        "DequantizeLinear, scales of other channels": dequantize(several, number("z", i8, 3), axis=0),
        "DequantizeLinear, zero points of another length": dequantize(several, number("z", i8, 2)),
        "DequantizeLinear, axis": dequantize(several, number("z", i8, 3), axis=-3),
        "DequantizeLinear, weights too short": dequantize(scale, number("z", i8), tensor("w", [2, 3], bytes(5), i8)),
        "DequantizeLinear, weights too long": dequantize(scale, number("z", i8), tensor("w", [2, 3], bytes(7), i8)),
        "DequantizeLinear, weights without bound": dequantize(
            scale, number("z", i8), tensor("w", [HUGE, HUGE], bytes(6), i8)
        ),
        "DequantizeLinear of floats": graph(
            node("DequantizeLinear", ["x", "s", "z"], ["y"]), inputs=rows, constants=[scale, zero]
        ),
        "QLinearConv without operands": convolution(("q", "s", "z", "w", "ws")),
        "QLinearConv, scale left out": convolution(("q", "", "z", "w", "ws", "wz", "ys", "yz")),
        "QLinearConv, scale from nowhere": convolution(("q", "s", "z", "w", "nowhere", "wz", "ys", "yz")),
        "QLinearConv, zero point of another type": convolution(wz=number("wz", u8)),
        "QLinearConv, zero points of another length": convolution(wz=number("wz", i8, 3)),
        "QLinearConv, scales of another length": convolution(ws=floats("ws", 1, 1, 1), wz=number("wz", i8, 3)),
        "QLinearConv, infinite scale": convolution(ys=floats("ys", math.inf)),
        "QLinearConv, negative scale of a filter": convolution(ws=floats("ws", 1, 1, -1, 1), wz=number("wz", i8, 4)),
        "QLinearConv, result of floats": convolution(yz=number("yz", FLOAT)),
        "QLinearConv, bias of floats": convolution(with_bias, b=number("b", FLOAT, 4)),
        "QLinearConv, bias of another length": convolution(with_bias, b=number("b", i32, 3)),
        "QLinearConv, bias too short": convolution(with_bias, b=tensor("b", [4], bytes(15), i32)),
        "QLinearConv, weights too short": convolution(w=tensor("w", (4, 3, 3, 3), bytes(107), i8)),
        "QLinearConv, weights of floats": convolution(w=tensor("w", (4, 3, 3, 3), bytes(432))),
        "QLinearConv, weights of other channels": convolution(w=tensor("w", (4, 2, 3, 3), bytes(72), i8)),
        "QLinearConv, weights without bound": convolution(w=tensor("w", (HUGE, 3, 3, 3), bytes(108), i8)),
        "QLinearMatMul of other shapes": product(w=tensor("w", (2, 5), bytes(10), i8)),
        "QLinearMatMul, scale of NaN": product(ws=floats("ws", math.nan)),
        "QLinearMatMul, zero point of another type": product(wz=number("wz", i32)),
        "QLinearMatMul, zero points of another length": product(ws=floats("ws", *[1] * 4), wz=number("wz", i8, 4)),
        "ConvInteger, zero point of another type": integer("ConvInteger", kernels, number("wz", u8)),
        "ConvInteger, zero points of another length": integer("ConvInteger", kernels, number("wz", i8, 3)),
        "ConvInteger, floats for a zero point": integer("ConvInteger", kernels, zero="s"),
        "ConvInteger, zero point from nowhere": integer("ConvInteger", kernels, zero="nowhere"),
        "ConvInteger, weights too short": integer("ConvInteger", tensor("w", (4, 3, 3, 3), bytes(107), i8)),
        "ConvInteger, weights of floats": integer("ConvInteger", tensor("w", (4, 3, 3, 3), bytes(432))),
        "ConvInteger of other channels": integer("ConvInteger", tensor("w", (4, 5, 1, 1), bytes(20), i8)),
        "ConvInteger with a bias": integer("ConvInteger", kernels, number("wz", i8), number("b", i32, 4)),
        "ConvInteger of floats": graph(node("ConvInteger", ["x", "w"], ["y"]), constants=[kernels]),
        "MatMulInteger, zero point of another type": integer("MatMulInteger", matrix, number("wz", u8)),
        "MatMulInteger, zero points of another length": integer("MatMulInteger", matrix, number("wz", i8, 4)),
        "MatMulInteger, no zero points": integer("MatMulInteger", matrix, number("wz", i8, 0)),
        "MatMulInteger, zero points of other rows": behind(
            "MatMulInteger", ["q", "w", "az"], [matrix, number("az", u8, 3)], rows, True
        ),
        "MatMulInteger of a vector": integer("MatMulInteger", tensor("w", (3,), bytes(3), i8)),
        "MatMulInteger of other shapes": integer("MatMulInteger", tensor("w", (2, 5), bytes(10), i8)),
        "MatMulInteger, weights too short": integer("MatMulInteger", tensor("w", (3, 5), bytes(14), i8)),
        "MatMulInteger, weights without bound": integer("MatMulInteger", tensor("w", (3, HUGE), bytes(15), i8)),
        "MatMulInteger, one operand": graph(node("MatMulInteger", ["x"], ["y"])),
        "MatMulInteger of floats": graph(node("MatMulInteger", ["x", "w"], ["y"]), inputs=rows, constants=[matrix]),
        "DynamicQuantizeLinear of bytes": behind("DynamicQuantizeLinear", ["q"], [], count=3),
        "DynamicQuantizeLinear of two": behind("DynamicQuantizeLinear", ["x", "x"], [], count=3),
        "DynamicQuantizeLinear with four results": behind("DynamicQuantizeLinear", ["x"], [], count=4),
        "DynamicQuantizeLinear of nothing": graph(node("DynamicQuantizeLinear", [], ["y", "s", "z"])),
    }
    return {f"quantized, {title}": data for title, data in cases.items()}


def branches(then, otherwise, outputs: int = 1) -> bytes:
    """An If whose branches return constants of these shapes."""

    def branch(name: str, shape) -> onnx.GraphProto:
        value = tensor(f"{name}_value", shape, bytes(4 * math.prod(shape)))
        constant = helper.make_node("Constant", [], [name], value=value)
        return helper.make_graph([constant], name, [], [helper.make_tensor_value_info(name, FLOAT, shape)])

    names = [f"y{i}" for i in range(outputs)]
    decide = helper.make_node("Greater", ["x", "zero"], ["c"])
    node = helper.make_node("If", ["c"], names, then_branch=branch("t", then), else_branch=branch("e", otherwise))
    return graph(decide, node, inputs=(("x", ()),), outputs=names, constants=[tensor("zero", (), bytes(4))])


def bad_graphs() -> dict[str, bytes]:
    """Models that are inconsistent with themselves or with the format."""
    node = helper.make_node
    weights = np.zeros((4, 3, 3, 3), "<f4").tobytes()
    conv = node("Conv", ["x", "w"], ["y"])
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
        "overflowing dimensions": graph(conv, constants=[tensor("w", (HUGE, HUGE, HUGE, 3), weights)]),
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
            node("Conv", ["x", "w"], ["y"], dilations=[HUGE, HUGE]), constants=[tensor("w", (4, 3, 3, 3), weights)]
        ),
        "huge pads": graph(
            node("Conv", ["x", "w"], ["y"], pads=[HUGE] * 4), constants=[tensor("w", (4, 3, 3, 3), weights)]
        ),
        "kernel beyond the image": graph(node("MaxPool", ["x"], ["y"], kernel_shape=[99, 99])),
        "pool without a kernel": graph(node("MaxPool", ["x"], ["y"])),
        "axis out of range": graph(node("Softmax", ["x"], ["y"], axis=9)),
        "permutation twice the same": graph(node("Transpose", ["x"], ["y"], perm=[0, 1, 1, 3])),
        "impossible reshape": graph(node("Reshape", ["x", "s"], ["y"]), constants=[ints("s", 7, 5)]),
        "shapes that do not broadcast": graph(
            node("Add", ["x", "b"], ["y"]), inputs=(("x", (1, 3)), ("b", (1, 4)))
        ),
        "expanding without bound": graph(node("Expand", ["x", "s"], ["y"]), constants=[ints("s", HUGE, 3, 8, 8)]),
        "tiling without bound": graph(node("Tile", ["x", "s"], ["y"]), constants=[ints("s", HUGE, HUGE, 1, 1)]),
        "padding without bound": graph(
            node("Pad", ["x", "s"], ["y"]), constants=[ints("s", 0, 0, 0, 0, 0, HUGE, HUGE, HUGE)]
        ),
        "constant without bound": graph(
            node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"]), constants=[ints("s", HUGE, HUGE)]
        ),
        "gather out of range": graph(node("Gather", ["x", "i"], ["y"], axis=1), constants=[ints("i", 77)]),
        "split that does not add up": graph(
            node("Split", ["x", "s"], ["y", "z"], axis=1), constants=[ints("s", 1, 9)], outputs=("y", "z")
        ),
        "a thousand nested Ifs": nested(1000),
        "attribute of another type": graph(node("Softmax", ["x"], ["y"], axis="last")),
    }


