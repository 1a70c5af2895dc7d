"""The families of random graphs: one function each, with the name of the family.

A function adds operands and nodes to an empty `Graph` and returns the output, or a tuple.
"""

import numpy as np
from onnx import TensorProto as T

from parity.graph import Graph

CASES = {}

# Families that also run as packages.
AS_PACKAGES = set()


def case(function):
    """Register a family."""
    CASES[function.__name__] = function
    return function


def _enter_each(names, make):
    for name in names:
        CASES[name.lower()] = lambda graph, name=name: make(graph, name)


# Convolution and matrix multiplication.


def window(g: Graph, rank: int, sides, kernel) -> dict:
    """Strides, dilations and padding for a window of `kernel` over `sides` that fits."""
    dilations = [g.pick(1, 1, 2) if (k - 1) * 2 < side else 1 for k, side in zip(kernel, sides)]
    attributes = {"strides": [g.pick(1, 1, 2, 3) for _ in range(rank)], "dilations": dilations}
    mode = g.pick("pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID")
    if mode == "pads":
        attributes["pads"] = [g.between(0, k // 2) for k in kernel] + [g.between(0, k // 2) for k in kernel]
    else:
        attributes["auto_pad"] = mode
        if mode != "VALID":
            attributes["dilations"] = [1] * rank
    return attributes


def _conv(g: Graph, rank: int, channels: int, out: int, groups: int):
    kernel = [g.pick(1, 2, 3, 3, 5, 7) for _ in range(rank)]
    sides = [k + g.between(0, 16) for k in kernel]
    x = g.input(g.normal(g.pick(1, 1, 2), channels, *sides))
    fan_in = channels // groups * int(np.prod(kernel))
    weights = g.normal(out, channels // groups, *kernel, scale=fan_in**-0.5)
    operands = [x, g.constant(weights)] + ([g.either(g.normal(out))] if g.chance() else [])
    return g.node("Conv", *operands, group=groups, **window(g, rank, sides, kernel))


@case
def conv(g):
    return _conv(g, 2, g.size(), g.size(), 1)


@case
def conv_1d(g):
    groups = g.pick(1, 2)
    return _conv(g, 1, g.size() * groups, g.size() * groups, groups)


@case
def conv_grouped(g):
    groups = g.pick(2, 3, 4)
    return _conv(g, 2, g.size(10) * groups, g.size(10) * groups, groups)


@case
def conv_depthwise(g):
    channels, multiplier = g.size(), g.pick(1, 1, 2)
    return _conv(g, 2, channels, channels * multiplier, channels)


@case
def conv_pointwise(g):
    channels, out = g.size(), g.size()
    x = g.input(g.normal(1, channels, g.size(), g.size()))
    return g.node("Conv", x, g.constant(g.normal(out, channels, 1, 1)), strides=[g.pick(1, 2)] * 2)


@case
def conv_3x3(g):
    """The shape that Winograd kernels take, also at sides their tiles do not divide."""
    channels, out = g.pick(8, 16, 24, 33), g.pick(8, 16, 31, 64)
    x = g.input(g.normal(g.pick(1, 2), channels, g.between(4, 20), g.between(4, 20)))
    weights = g.constant(g.normal(out, channels, 3, 3, scale=(channels * 9) ** -0.5))
    return g.node("Conv", x, weights, g.constant(g.normal(out)), pads=[g.pick(0, 1)] * 4)


@case
def gemm(g):
    m, k, n = g.size(), g.size(), g.size()
    trans_a, trans_b = g.between(0, 1), g.between(0, 1)
    a = g.input(g.normal(*((k, m) if trans_a else (m, k))))
    b = g.either(g.normal(*((n, k) if trans_b else (k, n))))
    operands = [a, b]
    if g.chance(0.7):
        operands.append(g.either(g.normal(*g.pick((n,), (1, n), (m, 1), (m, n), (1,)))))
    scales = {"alpha": 0.5, "beta": 2.0} if g.chance(0.3) else {}
    return g.node("Gemm", *operands, transA=trans_a, transB=trans_b, **scales)


@case
def matmul(g):
    m, k, n = g.size(), g.size(), g.size()
    batch = g.shape(g.between(1, 2), 6) if g.chance(0.7) else ()
    left = (k,) if not batch and g.chance(0.2) else (*batch, m, k)
    right = (*g.broadcastable(batch), k, n) if batch else (k, n)
    return g.node("MatMul", g.input(g.normal(*left)), g.either(g.normal(*right)))


@case
def batch_normalization(g):
    shape = g.shape(g.between(2, 4))
    channels = shape[1]
    parameters = [g.positive(channels), g.normal(channels), g.normal(channels), g.positive(channels)]
    return g.node("BatchNormalization", g.input(g.normal(*shape)), *map(g.constant, parameters), epsilon=1e-3)


# Elementwise.

_enter_each(
    ["Relu", "HardSwish", "Sigmoid", "Tanh", "Erf", "Exp", "Abs", "Neg", "Floor", "Ceil", "Softplus", "Sign"],
    lambda g, op: g.node(op, g.input(g.normal(*g.shape(), scale=g.pick(0.1, 1, 4, 10)))),
)
_enter_each(["Sqrt", "Log", "Reciprocal"], lambda g, op: g.node(op, g.input(g.positive(*g.shape()))))


@case
def clip(g):
    x = g.input(g.normal(*g.shape()))
    low, high = g.constant(np.float32(-0.5)), g.constant(np.float32(0.75))
    return g.node("Clip", x, *g.pick((low, high), (low,), ("", high), ()))


@case
def leaky_relu(g):
    return g.node("LeakyRelu", g.input(g.normal(*g.shape())), alpha=g.pick(None, 0.2))


@case
def elu(g):
    return g.node("Elu", g.input(g.normal(*g.shape())), alpha=g.pick(None, 0.7))


@case
def prelu(g):
    shape = g.shape(4)
    slope = g.pick((shape[1], 1, 1), (1,), shape)
    return g.node("PRelu", g.input(g.normal(*shape)), g.constant(g.normal(*slope)))


@case
def hard_sigmoid(g):
    settings = g.pick({}, {"alpha": 1 / 6, "beta": 0.5})
    return g.node("HardSigmoid", g.input(g.normal(*g.shape(), scale=4)), **settings)


@case
def gelu(g):
    g.opset = 20
    return g.node("Gelu", g.input(g.normal(*g.shape(), scale=2)), approximate=g.pick(None, "tanh"))


@case
def gelu_by_erf(g):
    """GELU as exporters of older opsets write it."""
    x = g.input(g.normal(*g.shape(), scale=2))
    erf = g.node("Erf", g.node("Div", x, g.constant(np.float32(2**0.5))))
    product = g.node("Mul", x, g.node("Add", erf, g.constant(np.float32(1))))
    return g.node("Mul", product, g.constant(np.float32(0.5)))


@case
def silu(g):
    x = g.input(g.normal(*g.shape(), scale=3))
    return g.node("Mul", x, g.node("Sigmoid", x))


def _binary(g: Graph, op: str):
    shape = g.shape()
    left, right = g.positive(*shape), g.positive(*g.broadcastable(shape))
    if op not in ("Pow", "Div"):
        left, right = left - 1.5, right - 1.5
    operands = [g.input(left), g.either(right)]
    if g.chance(0.3):
        operands.reverse()
    return g.node(op, *operands)


_enter_each(["Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"], _binary)


@case
def integer_arithmetic(g):
    dtype, shape = g.pick(np.int32, np.int64), g.shape()
    left = g.random.integers(-50, 50, shape).astype(dtype)
    right = g.random.integers(1, 9, g.broadcastable(shape)).astype(dtype)
    return g.node(g.pick("Add", "Sub", "Mul", "Div"), g.input(left), g.either(right))


@case
def comparison(g):
    shape, dtype = g.shape(), g.pick(np.float32, np.int64)
    left, right = g.random.integers(-2, 3, shape), g.random.integers(-2, 3, g.broadcastable(shape))
    op = g.pick("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
    return g.node(op, g.input(left.astype(dtype)), g.either(right.astype(dtype)))


@case
def boolean(g):
    shape = g.shape()
    left, right = g.random.random(shape) < 0.5, g.random.random(g.broadcastable(shape)) < 0.5
    combined = g.node(g.pick("And", "Or", "Xor"), g.input(left), g.either(right))
    return g.node("Not", combined) if g.chance() else combined


@case
def where(g):
    shape, dtype = g.shape(), g.pick(np.float32, np.int64)
    condition = g.input(g.random.random(g.broadcastable(shape)) < 0.5)
    values = [(g.normal(*s) * 9).astype(dtype) for s in (shape, g.broadcastable(shape))]
    return g.node("Where", condition, g.input(values[0]), g.either(values[1]))


@case
def cast(g):
    source = g.pick(np.float32, np.int32, np.int64, np.uint8, np.bool_)
    values = g.random.integers(0, 5, g.shape()).astype(source)
    return g.node("Cast", g.input(values), to=g.pick(T.FLOAT, T.INT32, T.INT64, T.BOOL))


# Windows, reductions and normalizations.


def _pool(g: Graph, op: str):
    kernel = [g.pick(1, 2, 2, 3, 3, 5) for _ in range(2)]
    sides = [k + g.between(0, 14) for k in kernel]
    x = g.input(g.normal(g.pick(1, 2), g.size(), *sides))
    attributes = window(g, 2, sides, kernel)
    if "pads" in attributes:  # a pad may not be as wide as the window
        attributes["pads"] = [min(pad, k - 1) for pad, k in zip(attributes["pads"], kernel * 2)]
    else:  # ONNX Runtime refuses the negative pads of a stride beyond the window
        attributes["strides"] = [min(stride, k) for stride, k in zip(attributes["strides"], kernel)]
    del attributes["dilations"]
    if "pads" in attributes and g.chance(0.3):
        attributes["ceil_mode"] = 1
    if op == "AveragePool":
        attributes["count_include_pad"] = g.between(0, 1)
        # ONNX Runtime and the specification disagree on this pair for windows past the edge.
        if attributes["count_include_pad"]:
            attributes.pop("ceil_mode", None)
    return g.node(op, x, kernel_shape=kernel, **attributes)


_enter_each(["MaxPool", "AveragePool"], _pool)
_enter_each(
    ["GlobalAveragePool", "GlobalMaxPool"],
    lambda g, op: g.node(op, g.input(g.normal(g.pick(1, 2), g.size(), g.size(), g.size()))),
)


def _reduce(g: Graph, op: str):
    shape = g.shape(below=25)
    rank = len(shape)
    axes = sorted(g.random.choice(rank, g.between(1, rank), replace=False).tolist())
    axes = [axis - rank if g.chance(0.3) else axis for axis in axes]
    x, keep = g.input(g.normal(*shape)), g.between(0, 1)
    if op == "ReduceSum":
        return g.node(op, x, g.ints(*axes), keepdims=keep)
    return g.node(op, x, axes=axes, keepdims=keep)


_enter_each(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"], _reduce)


def _along_axis(g: Graph, op: str):
    shape = g.shape(below=34)
    axis = g.between(-len(shape), len(shape) - 1)
    return g.node(op, g.input(g.normal(*shape, scale=g.pick(1, 8))), axis=axis)


_enter_each(["Softmax", "LogSoftmax"], _along_axis)


@case
def layer_normalization(g):
    shape = g.shape(g.between(2, 4), 34)
    axis = g.pick(-1, -1, len(shape) - 2)
    operands = [g.input(g.normal(*shape)), g.constant(g.normal(*shape[axis:]))]
    if g.chance(0.7):
        operands.append(g.constant(g.normal(*shape[axis:])))
    return g.node("LayerNormalization", *operands, axis=axis, epsilon=1e-5)


@case
def layer_normalization_by_parts(g):
    """The normalization as exporters of older opsets write it."""
    shape = g.shape(3, 34)
    x = g.input(g.normal(*shape))
    centered = g.node("Sub", x, g.node("ReduceMean", x, axes=[-1], keepdims=1))
    square = g.node("Pow", centered, g.constant(np.float32(2)))
    variance = g.node("ReduceMean", square, axes=[-1], keepdims=1)
    deviation = g.node("Sqrt", g.node("Add", variance, g.constant(np.float32(1e-5))))
    scaled = g.node("Mul", g.node("Div", centered, deviation), g.constant(g.normal(shape[-1])))
    return g.node("Add", scaled, g.constant(g.normal(shape[-1])))


@case
def argmax(g):
    shape = g.shape()
    axis = g.between(-len(shape), len(shape) - 1)
    op = g.pick("ArgMax", "ArgMin")
    return g.node(op, g.input(g.normal(*shape)), axis=axis, keepdims=g.between(0, 1))


@case
def topk(g):
    shape = g.shape(g.between(1, 3), 34)
    axis = g.between(0, len(shape) - 1)
    count = g.ints(g.between(1, shape[axis]))
    x = g.input(g.normal(*shape))
    return g.node("TopK", x, count, outputs=2, axis=axis, largest=g.between(0, 1), sorted=1)


# Moving data.


@case
def concat(g):
    shape = list(g.shape())
    axis = g.between(0, len(shape) - 1)
    parts = []
    for _ in range(g.between(2, 4)):
        shape[axis] = g.size(18)
        parts.append(g.either(g.normal(*shape)) if parts else g.input(g.normal(*shape)))
    return g.node("Concat", *parts, axis=axis - len(shape) if g.chance(0.3) else axis)


@case
def split(g):
    shape = list(g.shape())
    axis, sizes = g.between(0, len(shape) - 1), [g.size(10) for _ in range(g.between(2, 4))]
    shape[axis] = sum(sizes)
    return g.node("Split", g.input(g.normal(*shape)), g.ints(*sizes), outputs=len(sizes), axis=axis)


@case
def pad(g):
    mode = g.pick("constant", "constant", "reflect", "edge")
    shape = tuple(g.between(3, 12) for _ in range(g.between(2, 4)))
    pads = [g.between(0, 2) for _ in shape * 2]
    operands = [g.input(g.normal(*shape)), g.ints(*pads)]
    if mode == "constant" and g.chance():
        operands.append(g.constant(np.float32(1.5)))
    return g.node("Pad", *operands, mode=mode)


@case
def slicing(g):
    shape = g.shape(below=25)
    axes = sorted(g.random.choice(len(shape), g.between(1, len(shape)), replace=False).tolist())
    starts, ends, steps = [], [], []
    for axis in axes:
        size, step = shape[axis], g.pick(1, 1, 2, 3, -1, -2)
        low, high = sorted((g.between(0, size - 1), g.between(0, size - 1)))
        starts.append(high if step < 0 else low - size if g.chance(0.3) else low)
        ends.append((low - 1 if low else -(2**31)) if step < 0 else g.pick(high + 1, 2**31))
        steps.append(step)
    return g.node("Slice", g.input(g.normal(*shape)), g.ints(*starts), g.ints(*ends), g.ints(*axes), g.ints(*steps))


@case
def gather(g):
    shape = g.shape()
    axis = g.between(0, len(shape) - 1)
    indices = g.random.integers(-shape[axis], shape[axis], g.shape(g.between(1, 2), 6))
    if g.chance(0.3):
        indices = indices.flat[0]
    return g.node("Gather", g.input(g.normal(*shape)), g.either(np.asarray(indices, np.int64)), axis=axis)


@case
def reshape(g):
    shape = g.shape()
    flat = int(np.prod(shape))
    target = g.pick((-1,), (1, flat), (flat, 1, -1), (0, -1))
    return g.node("Reshape", g.input(g.normal(*shape)), g.ints(*target))


@case
def flatten(g):
    shape = g.shape()
    return g.node("Flatten", g.input(g.normal(*shape)), axis=g.between(0, len(shape)))


@case
def transpose(g):
    shape = g.shape(g.between(2, 4), 25)
    return g.node("Transpose", g.input(g.normal(*shape)), perm=g.random.permutation(len(shape)).tolist())


@case
def squeeze_unsqueeze(g):
    shape = g.shape(g.between(1, 3))
    axes = g.pick((0,), (1,), (0, 2), (-1,))
    wide = g.node("Unsqueeze", g.input(g.normal(*shape)), g.ints(*axes))
    doubled = g.node("Add", wide, wide)
    return doubled, g.node("Squeeze", doubled, g.ints(*axes))


@case
def expand(g):
    shape = g.shape()
    return g.node("Expand", g.input(g.normal(*g.broadcastable(shape))), g.ints(*shape))


def _resize_kind(g: Graph) -> dict:
    """Attributes of a Resize."""
    mode = g.pick("nearest", "linear")
    coordinates = g.pick("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = g.pick("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    return attributes


@case
def resize(g):
    batch, channels, height, width = g.pick(1, 2), g.size(18), g.between(1, 12), g.between(1, 12)
    x = g.input(g.normal(batch, channels, height, width))
    if g.chance():
        factors = (1, 1, g.pick(1, 2, 3, 1.5), g.pick(1, 2, 4, 2.5))
        return g.node("Resize", x, "", g.constant(factors, np.float32), **_resize_kind(g))
    sizes = g.ints(batch, channels, g.between(1, 20), g.between(1, 20))
    return g.node("Resize", x, "", "", sizes, **_resize_kind(g))


@case
def resize_axes(g):
    """Only some axes, as the operator allows since opset 18."""
    g.opset = 18
    x = g.input(g.normal(1, g.size(18), g.between(2, 12), g.between(2, 12)))
    axes = g.pick([2, 3], [3, 2], [-2, -1], [3], [2])
    scales = [g.pick(1, 2, 3) for _ in axes]
    return g.node("Resize", x, "", g.constant(scales, np.float32), axes=axes, **_resize_kind(g))


@case
def resize_channels_last(g):
    height, width, channels = g.between(2, 12), g.between(2, 12), g.size(34)
    x = g.input(g.normal(1, height, width, channels))
    factors = g.constant((1, g.pick(1, 2, 3), g.pick(2, 4), 1), np.float32)
    return g.node("Resize", x, "", factors, **_resize_kind(g))


# Chains of operators, which fusion must handle correctly.


def _activation(g: Graph, x: str) -> str:
    op = g.pick("Relu", "HardSwish", "Clip", "LeakyRelu", "Sigmoid", "SiLU", "none")
    if op == "Clip":
        return g.node("Clip", x, g.constant(np.float32(0)), g.constant(np.float32(6)))
    if op == "SiLU":
        return g.node("Mul", x, g.node("Sigmoid", x))
    return x if op == "none" else g.node(op, x)


def _conv_norm(g: Graph, x: str, channels: int, out: int, kernel: int, groups: int = 1) -> str:
    scale = (channels // groups * kernel**2) ** -0.5
    weights = g.constant(g.normal(out, channels // groups, kernel, kernel, scale=scale))
    y = g.node("Conv", x, weights, pads=[kernel // 2] * 4, group=groups)
    if g.chance(0.7):
        y = g.node(
            "BatchNormalization",
            y,
            *map(g.constant, (g.positive(out), g.normal(out), g.normal(out), g.positive(out))),
        )
    return y


@case
def chain_residual(g):
    channels, mid = g.size(), g.size()
    x = g.input(g.normal(1, channels, g.size(18), g.size(18)))
    y = _activation(g, _conv_norm(g, x, channels, mid, g.pick(1, 3)))
    y = _conv_norm(g, y, mid, channels, g.pick(1, 3))
    y = g.node("Add", *((x, y) if g.chance() else (y, x)))
    return _activation(g, y)


@case
def chain_squeeze_excite(g):
    channels, reduced = g.size(), g.size(10)
    x = g.input(g.normal(1, channels, g.size(18), g.size(18)))
    y = _activation(g, _conv_norm(g, x, channels, channels, g.pick(3, 5), groups=channels))
    if g.chance():
        pooled = g.node("GlobalAveragePool", y)
    else:
        pooled = g.node("ReduceMean", y, axes=[2, 3], keepdims=1)
    gate = g.node("Relu", _conv_norm(g, pooled, channels, reduced, 1))
    gate = g.node(g.pick("HardSigmoid", "Sigmoid"), _conv_norm(g, gate, reduced, channels, 1))
    y = g.node("Mul", *((y, gate) if g.chance() else (gate, y)))
    return _conv_norm(g, y, channels, g.size(), 1)


@case
def chain_affine(g):
    """A convolution whose scale and shift are separate nodes."""
    channels, out = g.size(), g.size()
    x = g.input(g.normal(1, channels, g.size(18), g.size(18)))
    y = _conv_norm(g, x, channels, out, g.pick(1, 3))
    y = g.node("Mul", y, g.constant(g.normal(1, out, 1, 1)))
    y = g.node("Add", y, g.constant(g.normal(out, 1, 1)))
    return _activation(g, y)


@case
def chain_shared(g):
    """A convolution read by two nodes: it may not be fused into either."""
    channels, out = g.size(), g.size()
    x = g.input(g.normal(1, channels, g.size(18), g.size(18)))
    y = _conv_norm(g, x, channels, out, g.pick(1, 3))
    return g.node("Relu", y), g.node("Add", y, g.node("Sigmoid", y))


@case
def chain_branches(g):
    channels = g.size()
    x = g.input(g.normal(1, channels, g.between(3, 16), g.between(3, 16)))
    widths = [g.size() for _ in range(3)]
    parts = [_activation(g, _conv_norm(g, x, channels, width, g.pick(1, 3, 5))) for width in widths]
    parts.append(g.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4))
    return g.node("Concat", *parts, axis=1)


@case
def chain_classifier(g):
    channels, hidden, classes = g.size(), g.size(), g.size()
    x = g.input(g.normal(g.pick(1, 2), channels, g.size(10), g.size(10)))
    y = g.node("Flatten", g.node(g.pick("GlobalAveragePool", "GlobalMaxPool"), x))
    y = _activation(g, g.node("Gemm", y, g.constant(g.normal(channels, hidden)), g.constant(g.normal(hidden))))
    y = g.node("Add", g.node("MatMul", y, g.constant(g.normal(hidden, classes))), g.constant(g.normal(classes)))
    return g.node("Softmax", y, axis=-1)


@case
def chain_attention(g):
    tokens, heads, width = g.size(18), g.pick(1, 2, 3), g.size(18)
    x = g.input(g.normal(1, tokens, heads * width))

    def projected(perm):
        y = g.node("MatMul", x, g.constant(g.normal(heads * width, heads * width, scale=0.2)))
        y = g.node("Add", y, g.constant(g.normal(heads * width)))
        return g.node("Transpose", g.node("Reshape", y, g.ints(0, 0, heads, width)), perm=perm)

    scores = g.node("MatMul", projected([0, 2, 1, 3]), projected([0, 2, 3, 1]))
    shares = g.node("Softmax", g.node("Div", scores, g.constant(np.float32(width**0.5))), axis=-1)
    mixed = g.node("Transpose", g.node("MatMul", shares, projected([0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return g.node("Add", x, g.node("Reshape", mixed, g.ints(0, 0, -1)))


@case
def chain_upsample(g):
    """A decoder's step: resized, padded and joined with the finer map, then convolved."""
    channels, out = g.size(18), g.size()
    height, width = g.between(2, 7), g.between(2, 7)
    coarse, fine = g.input(g.normal(1, channels, height, width)), g.normal(1, 5, 2 * height, 2 * width)
    y = g.node("Resize", coarse, "", g.constant((1, 1, 2, 2), np.float32), mode="linear")
    y = g.node("Concat", y, g.input(fine), axis=1)
    return _activation(g, _conv_norm(g, y, channels + 5, out, 3))
