"""Families of random graphs of 8-bit integer operators, as dynamic quantization writes them.

ONNX's reference evaluator computes the sums of products: on x86 CPUs without VNNI, ONNX Runtime adds pairs of products
in 16 bits, which can saturate.
"""

import numpy as np

from parity.cases import window, case
from parity.graph import Graph


def _bytes(g: Graph, *shape, dtype=None) -> np.ndarray:
    """Bytes over their whole range, signed or not."""
    bounds = np.iinfo(dtype or g.pick(np.uint8, np.int8))
    return g.random.integers(bounds.min, bounds.max, shape, bounds.dtype, endpoint=True)


def _zero(g: Graph, dtype, *shapes) -> str:
    """A zero point of this type and one of these shapes, often omitted."""
    return g.either(_bytes(g, *g.pick(*shapes), dtype=dtype)) if g.chance(0.7) else ""


@case
def conv_integer(g):
    groups, rank = g.pick(1, 1, 2, 3), g.pick(1, 2, 2)
    depth, filters = (1, 1) if g.chance(0.3) else (g.size(20), g.size(34))
    kernel = [g.pick(1, 2, 3, 5) for _ in range(rank)]
    sides = [k + g.between(0, 12) for k in kernel]
    x, w = _bytes(g, g.pick(1, 2), groups * depth, *sides), _bytes(g, groups * filters, depth, *kernel)
    zeros = [_zero(g, array.dtype, (), (1,)) for array in (x, w)]
    g.reference = True
    return g.node("ConvInteger", g.input(x), g.either(w), *zeros, group=groups, **window(g, rank, sides, kernel))


@case
def matmul_integer(g):
    m, k, n = g.size(), g.size(), g.size()
    batch = g.shape(g.between(1, 2), 6) if g.chance(0.5) else ()
    left = (*batch, m, k)
    right = (*(g.broadcastable(batch) if g.chance() else ()), k, n)
    a, b = _bytes(g, *left), _bytes(g, *right)
    columns = (n,) if len(right) == 2 else (*right[:-2], 1, n)
    zeros = _zero(g, a.dtype, (), (1,)), _zero(g, b.dtype, (), (1,), columns)
    g.reference = True
    return g.node("MatMulInteger", g.input(a), g.either(b), *zeros)


@case
def dynamic_quantize_linear(g):
    x = g.normal(*g.shape(), scale=g.pick(0.01, 1, 100))
    return g.node("DynamicQuantizeLinear", g.input(g.pick(x, np.abs(x), -np.abs(x), x * 0)), outputs=3)


def _scaled(g: Graph, op: str, x: np.ndarray, w: np.ndarray, scales: np.ndarray, bias: np.ndarray, **attributes):
    """A float product as `quantize_dynamic` writes it."""
    g.reference = True
    x, scale, zero = g.node("DynamicQuantizeLinear", g.input(x), outputs=3)
    sums = g.node(op, x, g.constant(w), zero, g.constant(_bytes(g, dtype=w.dtype)), **attributes)
    scaled = g.node("Mul", g.node("Cast", sums, to=1), g.node("Mul", scale, g.constant(scales)))
    return g.node("Relu", g.node("Add", scaled, g.constant(bias)) if g.chance(0.7) else scaled)


@case
def dynamic_matmul(g):
    k, n = g.size(), g.size()
    scales = g.positive(*g.pick((), (1,), (n,))) * np.float32(0.01)
    return _scaled(g, "MatMulInteger", g.normal(*g.shape(g.between(1, 2), 8), k), _bytes(g, k, n), scales, g.normal(n))


@case
def dynamic_conv(g):
    depth, filters, kernel = g.size(20), g.size(), [g.pick(1, 3)] * 2
    x = g.normal(g.pick(1, 2), depth, g.between(3, 14), g.between(3, 14))
    w, scales = _bytes(g, filters, depth, *kernel), g.positive(*g.pick((), (1,))) * np.float32(0.01)
    return _scaled(g, "ConvInteger", x, w, scales, g.normal(1, filters, 1, 1), pads=[kernel[0] // 2] * 4)
