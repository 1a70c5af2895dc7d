"""Families of random graphs of whole layers: recurrent layers, attention, transposed and 3D convolutions, pooling of
every kind, normalizations, resizing with every filter; every attribute is random.
"""

import numpy as np

from parity.cases import case, window
from parity.graph import Graph

FUNCTIONS = (
    ("Relu", 0, 0), ("Tanh", 0, 0), ("Sigmoid", 0, 0), ("HardSigmoid", 1, 1), ("LeakyRelu", 1, 0), ("Softsign", 0, 0),
    ("Elu", 1, 0), ("ThresholdedRelu", 1, 0), ("ScaledTanh", 1, 1), ("Affine", 1, 1), ("Softplus", 0, 0),
)  # fmt: skip


def _recurrent(g: Graph, op: str, gates: int, functions: int):
    direction = g.pick("forward", "reverse", "bidirectional")
    directions = 2 if direction == "bidirectional" else 1
    steps, batch, inputs, hidden = g.between(1, 6), g.between(1, 3), g.size(10), g.size(18)
    attributes = {"direction": direction, "hidden_size": hidden}
    if g.chance(0.3):
        attributes["clip"] = g.pick(0.3, 1.0)
    if g.chance(0.4):
        chosen = [g.pick(*FUNCTIONS) for _ in range(functions * directions)]
        attributes["activations"] = [name for name, *_ in chosen]
        # ONNX Runtime assigns parameters in order to the functions that have one.
        attributes["activation_alpha"] = [g.pick(0.3, 0.5) for _, alpha, _ in chosen if alpha] or None
        attributes["activation_beta"] = [g.pick(0.2, 0.4) for *_, beta in chosen if beta] or None
    if op == "GRU":
        attributes["linear_before_reset"] = g.between(0, 1)
    if op == "LSTM":
        attributes["input_forget"] = g.between(0, 1)
    scale = 0.4
    rows = gates * hidden
    operands = [g.input(g.normal(steps, batch, inputs))]
    fixed = g.constant if g.chance(0.7) else g.input
    operands += [fixed(g.normal(directions, rows, width, scale=scale)) for width in (inputs, hidden)]
    optional = [
        lambda: g.constant(g.normal(directions, 2 * rows, scale=scale)),
        lambda: g.either(g.random.integers(1, steps + 1, batch).astype(np.int32)),
        lambda: g.either(g.normal(directions, batch, hidden)),
    ]
    if op == "LSTM":
        optional.append(lambda: g.either(g.normal(directions, batch, hidden)))
        optional.append(lambda: g.constant(g.normal(directions, 3 * hidden, scale=scale)))
    operands += [make() if g.chance() else "" for make in optional]
    return g.node(op, *operands, outputs=3 if op == "LSTM" else 2, **attributes)


@case
def lstm(g):
    return _recurrent(g, "LSTM", 4, 3)


@case
def gru(g):
    return _recurrent(g, "GRU", 3, 2)


@case
def rnn(g):
    return _recurrent(g, "RNN", 1, 1)


@case
def attention(g):
    g.opset = g.pick(23, 24)
    batch, kv_heads, group = g.between(1, 2), g.between(1, 2), g.between(1, 3)
    heads, queries, new, size, v_size = kv_heads * group, g.size(), g.size(), g.size(10), g.size(10)
    flat = g.chance()
    shape = lambda n, length, width: (batch, length, n * width) if flat else (batch, n, length, width)
    operands = [g.input(g.normal(*shape(heads, queries, size)))]
    operands += [g.input(g.normal(*shape(kv_heads, new, width))) for width in (size, v_size)]
    past = g.between(0, 3) if g.chance(0.3) else None
    keys = new + (past or 0)
    mask = ""
    if g.chance():
        whole = (batch, heads, queries, keys)[g.between(0, 2) :]
        dims = tuple(1 if g.chance(0.3) else dim for dim in whole[:-2]) + whole[-2:]
        mask = g.either(g.random.random(dims) < 0.7 if g.chance() else g.normal(*dims))
    operands.append(mask)
    if past:
        operands += [g.input(g.normal(batch, kv_heads, past, width)) for width in (size, v_size)]
    attributes = {"is_causal": g.between(0, 1), "softcap": g.pick(None, 1.5), "scale": g.pick(None, 0.2)}
    if flat:
        attributes |= {"q_num_heads": heads, "kv_num_heads": kv_heads}
    while operands[-1] == "":
        operands.pop()
    return g.node("Attention", *operands, outputs=3 if past else 1, **attributes)


@case
def rotary_embedding(g):
    g.opset = 23
    batch, heads, length, half = g.between(1, 2), g.between(1, 3), g.size(10), g.between(1, 5)
    turned = 2 * half
    size = turned + (2 * g.between(0, 2) if g.chance(0.3) else 0)
    flat = g.chance()
    x = g.input(g.normal(*((batch, length, heads * size) if flat else (batch, heads, length, size))))
    attributes = {"interleaved": g.between(0, 1), "num_heads": heads if flat else None}
    if size != turned:
        attributes["rotary_embedding_dim"] = turned
    if g.chance():
        tables = [g.constant(g.normal(20, half)) for _ in range(2)]
        tables.append(g.either(g.random.integers(0, 20, (batch, length))))
    else:
        tables = [g.constant(g.normal(batch, length, half)) for _ in range(2)]
    return g.node("RotaryEmbedding", x, *tables, **attributes)


@case
def conv_transpose(g):
    rank, groups = g.between(1, 3), g.pick(1, 1, 2, 3)
    channels, out = (1, 1) if g.chance(0.2) else (g.size(10), g.size(10))
    kernel = [g.between(1, 4) for _ in range(rank)]
    strides = [g.between(1, 3) for _ in range(rank)]
    sides = [g.between(2, 6) for _ in range(rank)]
    attributes = {"strides": strides, "group": groups, "dilations": [g.pick(1, 1, 2) for _ in range(rank)]}
    extra = [g.between(0, stride - 1) for stride in strides]
    mode = g.pick("pads", "pads", "output_shape", "SAME_UPPER", "SAME_LOWER")
    if mode == "pads":
        attributes |= {"pads": [g.between(0, (k - 1) // 2) for k in kernel * 2], "output_padding": extra}
    elif mode == "output_shape":
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, attributes["dilations"])]
        whole = [(side - 1) * stride + r for side, stride, r in zip(sides, strides, reach)]
        attributes["output_shape"] = [size - g.between(0, min(2, size - 1)) for size in whole]
        attributes["auto_pad"] = g.pick(None, "SAME_UPPER", "SAME_LOWER")
    else:
        attributes["auto_pad"] = mode
        attributes["dilations"] = [1] * rank
    operands = [g.input(g.normal(g.between(1, 2), channels * groups, *sides))]
    operands.append(g.either(g.normal(channels * groups, out, *kernel, scale=channels**-0.5)))
    operands += [g.either(g.normal(out * groups))] if g.chance() else []
    return g.node("ConvTranspose", *operands, **attributes)


@case
def conv_3d(g):
    groups, channels, out = g.pick(1, 1, 2), g.size(10), g.size(10)
    kernel = [g.between(1, 3) for _ in range(3)]
    sides = [k + g.between(0, 5) for k in kernel]
    operands = [g.input(g.normal(g.between(1, 2), channels * groups, *sides))]
    operands.append(g.either(g.normal(out * groups, channels, *kernel, scale=channels**-0.5)))
    operands += [g.either(g.normal(out * groups))] if g.chance() else []
    return g.node("Conv", *operands, group=groups, **window(g, 3, sides, kernel))


@case
def convolution_of_volumes_along_some_axes(g):
    """A single tap along one axis or two, as in lambda layers and factored convolutions of videos."""
    flat = g.pick((2,), (1,), (0,), (1, 2), (0, 2))
    kernel = [1 if axis in flat else g.between(2, 9) for axis in range(3)]
    sides = [k + g.between(0, 9) for k in kernel]
    channels, out = g.pick(1, 1, 2, 9), g.pick(3, 16, 33)
    pads = [g.between(0, k // 2) for k in kernel * 2]
    strides = [1 if axis in flat or g.chance(0.7) else 2 for axis in range(3)]
    weights = g.normal(out, channels, *kernel, scale=(channels * np.prod(kernel)) ** -0.5)
    x = g.input(g.normal(g.pick(1, 2), channels, *sides))
    return g.node("Conv", x, g.constant(weights), g.constant(g.normal(out)), pads=pads, strides=strides)


def _window_of_pool(g: Graph, rank: int):
    kernel = [g.between(1, 3) for _ in range(rank)]
    sides = [2 * k + g.between(0, 5) for k in kernel]
    attributes = {"kernel_shape": kernel, "strides": [g.between(1, 3) for _ in kernel], "ceil_mode": g.between(0, 1)}
    attributes["pads"] = [g.between(0, k - 1) for k in kernel * 2]
    return g.input(g.normal(g.between(1, 2), g.size(6), *sides)), attributes


@case
def pool_3d(g):
    x, attributes = _window_of_pool(g, 3)
    if g.chance():
        return g.node("MaxPool", x, **attributes)
    return g.node("AveragePool", x, count_include_pad=g.between(0, 1), **(attributes | {"ceil_mode": 0}))


@case
def max_pool_places(g):
    x, attributes = _window_of_pool(g, g.between(1, 3))
    return g.node("MaxPool", x, outputs=2, storage_order=g.pick(0, 0, 1), **attributes)


@case
def lp_pool(g):
    g.opset = 18
    x, attributes = _window_of_pool(g, g.between(1, 3))
    return g.node("LpPool", x, p=g.pick(None, 1, 2, 3), **(attributes | {"ceil_mode": 0}))


@case
def global_lp_pool(g):
    x = g.input(g.normal(*g.shape(g.between(3, 5), 6)))
    return g.node("GlobalLpPool", x, p=g.pick(None, 1, 2, 3))


@case
def max_unpool(g):
    sides = [2 * g.between(1, 4) for _ in range(2)]
    x = g.input(g.normal(1, g.size(5), *sides))
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    values, places = g.node("MaxPool", x, outputs=2, **attributes)
    return g.node("MaxUnpool", values, places, **attributes)


@case
def local_response(g):
    x = g.input(g.normal(*g.shape(4, 10)))
    attributes = {"alpha": g.pick(None, 0.5), "beta": g.pick(None, 0.6), "bias": g.pick(None, 2.0)}
    return g.node("LRN", x, size=g.pick(1, 3, 5), **attributes)


@case
def instance_norm(g):
    shape = g.shape(g.between(3, 5), 10)
    parameters = [g.constant(g.normal(shape[1])) for _ in range(2)]
    return g.node("InstanceNormalization", g.input(g.normal(*shape)), *parameters, epsilon=g.pick(None, 1e-2))


@case
def group_norm(g):
    g.opset = 21
    groups, inside = g.between(1, 4), g.between(1, 4)
    x = g.input(g.normal(g.between(1, 2), groups * inside, *g.shape(g.between(1, 3), 10)))
    parameters = [g.constant(g.normal(groups * inside)) for _ in range(2)]
    return g.node("GroupNormalization", x, *parameters, num_groups=groups, epsilon=g.pick(None, 1e-2))


@case
def resize_filters(g):
    """Cubic and antialiased filters, which ONNX Runtime supports only on two axes of four."""
    g.opset = 18
    sides = (g.between(3, 9), g.between(3, 9))
    x = g.input(g.normal(1, g.between(1, 3), *sides))
    mode = g.pick("linear", "cubic", "cubic")
    transforms = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
    attributes = {"mode": mode, "coordinate_transformation_mode": g.pick(*transforms)}
    attributes["antialias"] = 1 if mode == "linear" else g.between(0, 1)
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": g.pick(None, -0.5), "exclude_outside": g.between(0, 1)}
    if g.chance():
        scales = [1, 1, g.pick(0.6, 1.7, 2.0), g.pick(0.5, 0.8, 1.3)]
        return g.node("Resize", x, "", g.constant(scales, np.float32), **attributes)
    sizes = g.ints(g.between(2, 12), g.between(2, 12))
    return g.node("Resize", x, "", "", sizes, axes=[2, 3], **attributes)


@case
def curves(g):
    """Activations with their parameters, at any magnitude."""
    x = g.input(g.normal(*g.shape(), scale=g.pick(0.1, 1, 10, 100)))
    op = g.pick("Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Shrink")
    attributes = {}
    if op in ("Elu", "Selu", "Celu", "ThresholdedRelu"):
        attributes["alpha"] = g.pick(None, 0.5, 1.5)
    if op == "Selu":
        attributes["gamma"] = g.pick(None, 1.2)
    if op == "Shrink":
        attributes |= {"lambd": g.pick(None, 1.0), "bias": g.pick(None, 0.3)}
    g.opset = 18
    return g.node(op, x, **attributes)
