"""Recipes of quantized operators, ONNX's and ONNX Runtime's."""

import numpy as np

from fuzz.draw import Draw
from fuzz.pointwise import operand_beside
from fuzz.recipes import microsoft, recipe
from fuzz.windows import images, window


def scale(d: Draw, shape=(), dtype=np.float32) -> np.ndarray:
    """Scales for quantized values: of any size, so that hardly a result is halfway between two steps."""
    return np.asarray(d.random.uniform(0.01, 0.3, shape)).astype(dtype)


def zero(d: Draw, dtype, shape=()) -> np.ndarray:
    """Zero points, usually not at the ends of the type."""
    dtype = np.dtype(dtype)
    low, high = (0, 255) if dtype.kind == "u" else (-128, 127)
    return np.asarray(d.random.integers(low, high + 1, shape)).astype(dtype) if dtype.itemsize == 1 else np.zeros(shape, dtype)


def _of_blocks(d: Draw, shape, axis: int) -> tuple[tuple[int, ...], int] | None:
    """The shape of scales for blocks along an axis, and their size."""
    size = d.between(1, max(1, shape[axis]))
    return (*shape[:axis], -(-shape[axis] // size), *shape[axis + 1 :]), size


def _granularity(d: Draw, shape) -> tuple[int, ...]:
    """The shape of scales: of a tensor, an axis, or blocks along it."""
    axis = d.between(0, len(shape) - 1) if shape else 0
    kinds = ["tensor"] + ["axis"] * (d.opset >= 13 and len(shape) > 0) + ["block"] * (d.opset >= 21 and len(shape) > 0)
    kind = d.pick(*kinds)
    if kind == "tensor":
        return ()
    d.set(axis=axis if d.chance(0.7) else axis - len(shape))
    if kind == "axis":
        return (shape[axis],)
    dims, size = _of_blocks(d, shape, axis)
    d.set(block_size=size)
    return dims


@recipe("QuantizeLinear", sharp=True)
def quantize(d: Draw):
    shape = d.main(0, 4, empty=False)
    dims = _granularity(d, shape)
    # Powers of two, because halves are rounded to even.
    dtype = d.like(1, d.dtype(0) if d.dtype(0).kind != "i" else "f4")
    d.put(1, np.asarray(d.random.choice((1 / 32, 1 / 8, 1 / 4), dims)).astype(dtype))
    if d.chance(0.8):
        dtype = d.restrict(2, "iu")
        d.put(2, zero(d, dtype, dims))


@recipe("DequantizeLinear")
def dequantize(d: Draw):
    dtype = d.restrict(0, "iu")
    shape = d.main(0, 4, make=d.whole if dtype.itemsize == 1 else None, empty=False)
    dims = _granularity(d, shape)
    d.put(1, scale(d, dims, d.dtype(1)))
    if dtype.itemsize == 1 and d.chance(0.8):
        d.put(2, zero(d, dtype, dims))


for _name, _recipe in (("QuantizeLinear", quantize), ("DequantizeLinear", dequantize)):

    def _microsoft(d: Draw, make=_recipe):
        d.dtypes |= {"T1": np.dtype("f4")} if d.schema.name == "QuantizeLinear" else {"T2": np.dtype("f4")}
        d.opset, known = 10, d.opset  # without axes and blocks
        make(d)
        d.opset = known

    microsoft(_name, sharp=True)(_microsoft)


@recipe("DynamicQuantizeLinear", sharp=True)
def dynamic_quantize(d: Draw):
    d.main(0, 4, empty=False)
    d.outputs = 3


def _byte(d: Draw, at: int | str) -> np.dtype:
    dtype = d.restrict(at, "iu")
    d.need(dtype.itemsize == 1)
    return dtype


def weights(d: Draw, shape, dtype) -> np.ndarray:
    """Right operands of products, and images, which ONNX Runtime may take for one; seven bits if they are signed: with
    eight, it adds pairs of products in 16 bits on x86 CPUs without VNNI, which can saturate."""
    values = d.whole(shape, dtype)
    return values // 2 if dtype.kind == "i" else values


@recipe("MatMulInteger")
def matmul_integer(d: Draw):
    left, right = _byte(d, 0), _byte(d, 1)
    shape, columns = d.shape(2, 3, 17, False), d.size()
    d.put(0, d.whole(shape, left))
    d.put(1, weights(d, (*(shape[:-2] if d.chance(0.3) else ()), shape[-1], columns), right))
    d.maybe("a_zero_point", lambda: zero(d, left))
    if d.operands.get("a_zero_point"):
        d.maybe("b_zero_point", lambda: zero(d, right, d.pick((), (columns,))))


@recipe("ConvInteger")
def conv_integer(d: Draw):
    left, right = _byte(d, 0), _byte(d, 1)
    n, c, *sides = d.shape(3, 4, 9, False)
    groups = d.pick(1, c)
    kernel = [d.between(1, min(side, 3)) for side in sides]
    d.put(0, weights(d, (n, c, *sides), left))
    d.put(1, weights(d, (groups * d.between(1, 3), c // groups, *kernel), right))
    d.maybe("x_zero_point", lambda: zero(d, left))
    if d.operands.get("x_zero_point"):
        d.maybe("w_zero_point", lambda: zero(d, right))
    d.set(group=groups)
    window(d, sides, kernel)


@recipe("QLinearMatMul")
def qlinear_matmul(d: Draw):
    left, right, result = _byte(d, 0), _byte(d, 3), _byte(d, 7)
    shape, columns = d.shape(2, 3, 17, False), d.size()
    d.put(0, d.whole(shape, left))
    d.put(3, weights(d, (shape[-1], columns), right))
    scales = d.schema.inputs[1][1]
    kind = np.dtype("f4")
    if scales in d.schema.constraints:
        d.dtypes[scales] = kind
    each = d.chance(0.3)
    for at, (dtype, dims) in {1: (left, ()), 4: (right, (columns,) if each else ()), 6: (result, ())}.items():
        d.put(at, scale(d, dims, kind))
        d.put(at + 1, zero(d, dtype, dims))


def qlinear_conv(d: Draw):
    left, right, result = _byte(d, 0), _byte(d, 3), _byte(d, 7)
    n, c, *sides = d.shape(3, 4, 9, False)
    groups = d.pick(1, 1, c)
    kernel = [d.between(1, min(side, 3)) for side in sides]
    out = groups * d.between(1, 3)
    d.put(0, weights(d, (n, c, *sides), left))
    d.put(3, weights(d, (out, c // groups, *kernel), right))
    each = d.chance(0.4)
    for at, (dtype, dims) in {1: (left, ()), 4: (right, (out,) if each else ()), 6: (result, ())}.items():
        d.put(at, scale(d, dims))
        symmetric = at == 4 and (each or right.kind == "i")
        d.put(at + 1, np.zeros(dims, dtype) if symmetric else zero(d, dtype, dims))
    d.maybe(d.schema.inputs[8][0], lambda: d.random.integers(-2000, 2000, out).astype(np.int32))
    d.set(group=groups, channels_last=None)
    window(d, sides, kernel)


recipe("QLinearConv")(qlinear_conv)


@microsoft("QLinearConv")
def microsoft_conv(d: Draw):
    qlinear_conv(d)
    d.set(channels_last=0)


@microsoft("QLinearAdd", "QLinearMul")
def qlinear_binary(d: Draw):
    dtype = _byte(d, 0)
    shape = d.shape(1, 4, empty=False)
    d.put("A", d.whole(shape, dtype))
    operand_beside(d, shape, lambda s, t: d.whole(s, dtype), index=3)
    for name in "ABC":
        d.put(f"{name}_scale", scale(d))
        d.maybe(f"{name}_zero_point", lambda: zero(d, dtype), 0.8)


@microsoft("QLinearSigmoid", "QLinearLeakyRelu")
def qlinear_unary(d: Draw):
    dtype = _byte(d, 0)
    d.put("X", d.whole(d.shape(1, 4, empty=False), dtype))
    for name in "XY":
        d.put(f"{name}_scale", scale(d))
        d.maybe(f"{name}_zero_point", lambda: zero(d, dtype), 0.8)
    d.set(0.7, alpha=0.1)


@microsoft("QLinearSoftmax")
def qlinear_softmax(d: Draw):
    dtype, shape = _byte(d, 0), d.shape(1, 4, empty=False)
    d.put("X", d.whole(shape, dtype))
    d.put("X_scale", scale(d))
    d.maybe("x_zero_point", lambda: zero(d, dtype), 0.8)
    d.put("y_scale", np.float32(1 / 256))
    d.put("y_zero_point", np.array(0 if dtype.kind == "u" else -128, dtype))
    d.set(axis=d.axis(len(shape)), opset=d.pick(12, 13))


@microsoft("QLinearAveragePool")
def qlinear_average_pool(d: Draw):
    dtype = _byte(d, 0)
    n, c, *sides = d.shape(3, 4, 9, False)
    kernel = [d.between(1, min(side, 3)) for side in sides]
    d.put("X", d.whole((n, c, *sides), dtype))
    for name in "xy":
        d.put(f"{name}_scale", scale(d))
        d.maybe(f"{name}_zero_point", lambda: zero(d, dtype), 0.8)
    d.set(kernel_shape=kernel, channels_last=0)
    if d.chance():
        # ONNX Runtime divides by all of a window that ends behind the padding.
        d.set(ceil_mode=1, count_include_pad=0)
    else:
        d.set(ceil_mode=0)
    window(d, sides, kernel, False, lambda k: k - 1)


@microsoft("QLinearGlobalAveragePool")
def qlinear_global_pool(d: Draw):
    dtype = _byte(d, 0)
    d.put("X", d.whole(d.shape(4, 4, 9, False), dtype))
    for name in "xy":
        d.put(f"{name}_scale", scale(d))
        d.put(f"{name}_zero_point", zero(d, dtype))
    d.set(channels_last=d.between(0, 1))


@microsoft("QLinearConcat")
def qlinear_concat(d: Draw):
    dtype, shape = d.pick(np.dtype("u1"), np.dtype("i1")), d.shape(1, 4, 9, False)
    axis = d.axis(len(shape))
    d.put("Y_scale", scale(d))
    d.put("Y_zero_point", zero(d, dtype))
    operands = []
    for _ in range(d.between(1, 3)):
        dims = list(shape)
        dims[axis] = d.size(9)
        operands += [d.whole(dims, dtype), scale(d), zero(d, dtype)]
    d.put_each("inputs", operands)
    d.set(axis=axis)


@microsoft("QGemm")
def qgemm(d: Draw):
    left, right = _byte(d, "A"), _byte(d, "B")
    a, b = d.between(0, 1), d.between(0, 1)
    m, k, n = d.size(), d.size(), d.size()
    d.put("A", d.whole((k, m) if a else (m, k), left))
    d.put("B", weights(d, (n, k) if b else (k, n), right))
    d.put("a_scale", scale(d))
    d.put("a_zero_point", zero(d, left))
    dims = d.pick((), (n,))
    d.put("b_scale", scale(d, dims))
    d.put("b_zero_point", zero(d, right, dims))
    d.maybe("C", lambda: d.random.integers(-2000, 2000, d.pick((n,), (1, n), (m, n))).astype(np.int32))
    if d.chance(0.7):
        d.put("y_scale", scale(d))
        d.put("y_zero_point", zero(d, left))
        d.dtypes[d.schema.inputs[8][1]] = left
    d.set(transA=a, transB=b)
    d.set(0.3, alpha=0.5)


@microsoft("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(d: Draw):
    right = _byte(d, 1)
    m, k, n = d.size(), d.size(), d.size()
    d.put("A", d.values((m, k)))
    d.put("B", weights(d, (k, n), right))
    dims = d.pick((), (n,))
    d.put("b_scale", scale(d, dims))
    d.maybe("b_zero_point", lambda: zero(d, right, dims), 0.7)
    d.maybe("bias", lambda: d.values((n,)))


@microsoft("MatMulIntegerToFloat")
def matmul_integer_to_float(d: Draw):
    left, right = _byte(d, 0), _byte(d, 1)
    m, k, n = d.size(), d.size(), d.size()
    d.dtypes["T3"] = np.dtype("f4")
    d.put("A", d.whole((m, k), left))
    d.put("B", weights(d, (k, n), right))
    d.put("a_scale", scale(d))
    dims = d.pick((), (n,))
    d.put("b_scale", scale(d, dims))
    d.maybe("a_zero_point", lambda: zero(d, left))
    d.maybe("b_zero_point", lambda: zero(d, right, dims))
    d.maybe("bias", lambda: d.values((n,)))


@microsoft("MatMulNBits")
def matmul_n_bits(d: Draw):
    bits, block = d.pick(4, 4, 8), d.pick(16, 32)
    rows, blocks = d.size(), d.between(1, 3)
    depth = blocks * block - (d.between(0, 7) if d.chance() else 0)
    d.dtypes["T1"] = np.dtype("f4")
    d.put("A", d.values((*d.shape(0, 1, 4, False), d.size(9), depth)))
    d.put("B", d.whole((rows, blocks, block * bits // 8), np.dtype("u1")), shaping=True)
    d.put("scales", d.within(0.01, 0.4, rows * blocks if d.chance() else (rows, blocks)), shaping=True)
    d.dtypes["T3"] = np.dtype("u1")
    d.maybe("zero_points", lambda: d.whole((rows * ((blocks * bits + 7) // 8),), np.dtype("u1")), shaping=True)
    d.maybe("bias", lambda: d.values((rows,)), 0.3)
    d.set(K=depth, N=rows, bits=bits, block_size=block)
