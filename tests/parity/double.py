"""Families of random graphs of double precision, which has no kernels of its own, against ONNX Runtime or the reference
evaluator; all of them as packages too. `model.double()` and the converters of scikit-learn write such graphs.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference.op_run import OpRun

from parity.cases import AS_PACKAGES, CASES, case
from parity.graph import IR_VERSION, Graph

_before = set(CASES)


def _run_in_single(self, *inputs, **_):
    """The values of ONNX Runtime for the same numbers in f32, which it has more operators of."""
    node = self.onnx_node
    given = {name: array for name, array in zip(node.input, inputs) if name}
    feeds = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in given.items()}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "single", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23 if node.op_type == "Attention" else 17)], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return tuple(array.astype(np.float64) for array in session.run(None, feeds))


SINGLE = {
    name: type(name, (OpRun,), {"op_domain": "", "_run": _run_in_single})
    for name in ("Attention", "AveragePool", "ConvTranspose", "GRU", "LRN", "LSTM", "Resize", "RNN")
}


def _in_single(g: Graph, op: str, *operands, **attributes):
    """A node whose values are those of f32."""
    g.use_reference(SINGLE[op])
    return g.node(op, *operands, **attributes)


def _wide(g: Graph, *shape) -> np.ndarray:
    return g.random.standard_normal(shape)


def _image(g: Graph, channels: int | None = None) -> tuple[int, ...]:
    """A batch of lines, images or volumes."""
    axes = g.between(1, 3)
    return (g.between(1, 2), channels or g.between(1, 4), *(g.between(4, 9) for _ in range(axes)))


@case
def double_max_pool(g):
    shape = _image(g)
    axes = len(shape) - 2
    attributes = {"kernel_shape": [g.between(1, 3) for _ in range(axes)], "strides": [g.between(1, 2) for _ in range(axes)]}
    if g.chance():
        attributes["pads"] = [size // 2 for size in attributes["kernel_shape"]] * 2
    outputs = g.between(1, 2)
    made = g.node(
        "MaxPool", g.input(_wide(g, *shape)), outputs=outputs, ceil_mode=g.between(0, 1),
        storage_order=g.between(0, 1) if outputs == 2 else None, **attributes,
    )  # fmt: skip
    return made


@case
def double_average_pool(g):
    shape = (*_image(g)[:2], g.between(4, 9), g.between(4, 9))
    kernel = [g.between(1, 3), g.between(1, 3)]
    return _in_single(g, "AveragePool", g.input(_wide(g, *shape)), kernel_shape=kernel, strides=[1, g.between(1, 2)])


@case
def double_convolution(g):
    g.use_reference()
    groups = g.between(1, 2)
    shape = _image(g, 2 * groups)
    axes, filters = len(shape) - 2, groups * g.between(1, 3)
    weights = _wide(g, filters, 2, *(g.between(1, 3) for _ in range(axes)))
    operands = [g.input(_wide(g, *shape)), g.either(weights)]
    if g.chance():
        operands.append(g.either(_wide(g, filters)))
    return g.node("Conv", *operands, group=groups, strides=[g.between(1, 2) for _ in range(axes)])


@case
def double_transposed_convolution(g):
    groups = g.between(1, 2)
    shape = (g.between(1, 2), 2 * groups, g.between(2, 5), g.between(2, 5))
    kernel, strides = [g.between(1, 3), g.between(1, 3)], [g.between(1, 3), g.between(1, 3)]
    filters = g.between(1, 3)
    operands = [g.input(_wide(g, *shape)), g.either(_wide(g, 2 * groups, filters, *kernel))]
    if g.chance():
        operands.append(g.either(_wide(g, filters * groups)))
    pads = [g.between(0, size - 1) for size in kernel] * 2 if g.chance() else None
    return _in_single(g, "ConvTranspose", *operands, group=groups, strides=strides, pads=pads, kernel_shape=kernel)


def _norm(g: Graph, op: str):
    g.opset = 23
    shape = (*_image(g, 4)[:2], g.between(2, 5), g.between(2, 5))
    x, of_channels = g.input(_wide(g, *shape)), [g.either(_wide(g, 4)) for _ in range(2)]
    g.use_reference()
    match op:
        case "InstanceNormalization":
            return g.node(op, x, *of_channels)
        case "GroupNormalization":
            return g.node(op, x, *of_channels, num_groups=g.pick(1, 2, 4))
        case "RMSNormalization":
            return g.node(op, x, g.either(_wide(g, shape[-1])))
        case "LRN":
            g.opset = 17
            return _in_single(g, op, x, size=g.pick(1, 3), alpha=0.3)
    return g.node(op, x, g.either(_wide(g, shape[-1])), g.either(_wide(g, shape[-1])))


for _name in ("InstanceNormalization", "GroupNormalization", "RMSNormalization", "LayerNormalization", "LRN"):
    CASES[f"double_{_name.lower()}"] = lambda g, name=_name: _norm(g, name)


@case
def double_recurrent(g):
    op, steps, batch, width = g.pick("LSTM", "GRU", "RNN"), g.between(1, 5), g.between(1, 3), g.between(1, 5)
    hidden, direction = g.between(1, 6), g.pick("forward", "reverse", "bidirectional")
    directions, gates = 1 + (direction == "bidirectional"), {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    some = lambda *shape: g.constant(_wide(g, *shape)) if g.chance() else ""
    operands = [g.input(_wide(g, steps, batch, width))]
    operands += [g.either(_wide(g, directions, gates * hidden, size)) for size in (width, hidden)]
    operands.append(some(directions, 2 * gates * hidden))
    operands.append(g.either(g.random.integers(1, steps + 1, batch).astype(np.int32)) if g.chance() else "")
    operands.append(some(directions, batch, hidden))
    attributes = {"direction": direction, "hidden_size": hidden, "clip": g.pick(None, 0.7)}
    if op == "LSTM":
        operands += [some(directions, batch, hidden), some(directions, 3 * hidden)]
        attributes["input_forget"] = g.between(0, 1)
    if op == "GRU":
        attributes["linear_before_reset"] = g.between(0, 1)
    if op == "RNN" and g.chance():
        attributes["activations"] = [g.pick("Relu", "Softsign", "Elu")] * directions
    while not operands[-1]:
        operands.pop()
    return _in_single(g, op, *operands, outputs=3 if op == "LSTM" else 2, **attributes)


@case
def double_attention(g):
    g.opset = 23
    batch, heads, queries, keys, size = g.between(1, 2), g.pick(1, 2), g.between(1, 5), g.between(2, 6), g.between(1, 4)
    is_rows, group = g.chance(), g.between(1, 2)
    of = lambda count, length: (batch, length, count * size) if is_rows else (batch, count, length, size)
    operands = [g.input(_wide(g, *of(heads * group, queries))), *(g.input(_wide(g, *of(heads, keys))) for _ in range(2))]
    causal = g.between(0, 1)
    if g.chance():
        mask = g.random.random((queries, keys)) < 0.7 if g.chance() else _wide(g, queries, keys)
        if mask.dtype == bool:
            mask[:, 0] = True
        operands.append(g.input(mask))
    named = {"q_num_heads": heads * group, "kv_num_heads": heads} if is_rows else {}
    return _in_single(g, "Attention", *operands, is_causal=causal, softcap=g.pick(None, 2.0), **named)


@case
def double_resize(g):
    scales = g.constant([1, 1, g.pick(0.5, 1.5, 2.0), g.pick(0.75, 2.0, 3.0)], np.float32)
    x = g.input(_wide(g, 1, g.between(1, 2), g.between(2, 6), g.between(2, 6)))
    coordinates = g.pick("half_pixel", "asymmetric", "align_corners")
    mode = g.pick("linear", "cubic", "nearest")
    return _in_single(g, "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=coordinates)


@case
def double_activations(g):
    g.use_reference()
    op = g.pick("Softmax", "LogSoftmax", "Sigmoid", "Softplus", "Elu", "Selu", "HardSigmoid", "Mish", "Gelu")
    g.opset = 20
    return g.node(op, g.input(3 * _wide(g, 2, g.between(1, 9))))


AS_PACKAGES |= set(CASES) - _before
