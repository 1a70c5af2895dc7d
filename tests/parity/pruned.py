"""Random networks whose weights are mostly zeros: stems, bottlenecks with squeeze-and-excite, shortcuts and pooling, at
densities from 100 % to 0.2 %, with filters and whole layers of zeros, exact in half precision or not, stored as they are or
as sparse initializers; images from 1x1 to 30x30, including odd sizes.
"""

import numpy as np

from parity.cases import AS_PACKAGES, case
from parity.graph import Graph

PLANES = ((1, 1), (7, 7), (14, 14), (13, 9), (28, 28), (30, 17))
DENSITIES = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.002)


def _thinned(g: Graph, *shape) -> np.ndarray:
    """Weights of a convolution or linear layer, most of them zero; sometimes all, often those of whole filters."""
    weights = g.normal(*shape, scale=(np.prod(shape[1:]) * 0.2) ** -0.5)
    weights[g.random.random(shape) >= g.pick(*DENSITIES)] = 0
    if g.chance(0.3):
        weights[g.random.random(shape[0]) < 0.3] = 0
    if g.chance(0.05):
        weights[:] = 0
    return weights.astype(np.float16).astype(np.float32) if g.chance() else weights


def _stored(g: Graph, weights: np.ndarray) -> str:
    """An initializer, sometimes a sparse one."""
    return g.sparse(weights) if g.chance(0.3) and weights.any() else g.constant(weights)


def _activated(g: Graph, x: str) -> str:
    op = g.pick(None, "Relu", "HardSwish", "Sigmoid", "Clip", "Silu")
    if op == "Clip":
        return g.node(op, x, g.constant(0, np.float32), g.constant(6, np.float32))
    if op == "Silu":
        return g.node("Mul", x, g.node("Sigmoid", x))
    return g.node(op, x) if op else x


def _convolution(g: Graph, x: str, shape, kernel=1, stride=1, groups=1, dense=False) -> str:
    """A convolution with weights of `shape`."""
    make = g.normal if dense else lambda *shape: _thinned(g, *shape)
    operands = [_stored(g, make(*shape, kernel, kernel)), g.constant(g.normal(shape[0], scale=0.3))]
    pads = [kernel // 2] * 4
    return g.node("Conv", x, *operands[: 1 + g.chance(0.8)], strides=[stride] * 2, pads=pads, group=groups)


def _gate(g: Graph, x: str, channels: int) -> str:
    """Squeeze-and-excite."""
    inner = g.between(1, 12)
    y = g.node("GlobalAveragePool", x)
    y = g.node("Relu", _convolution(g, y, (inner, channels)))
    y = g.node(g.pick("Sigmoid", "HardSigmoid"), _convolution(g, y, (channels, inner)))
    return g.node("Mul", x, y)


def _bottleneck(g: Graph, x: str, channels: int, sides) -> tuple[str, int, tuple[int, int]]:
    """Expansion, depthwise convolution, gate, projection and shortcut, each at random; returns its channels and sides
    too."""
    wide, out = g.between(8, 150), g.pick(channels, g.between(3, 60))
    stride = g.pick(1, 1, 2) if min(sides) > 2 else 1
    y = _activated(g, _convolution(g, x, (wide, channels)))
    kernel = g.pick(3, 3, 5, 7)
    y = _activated(g, _convolution(g, y, (wide, 1), kernel, stride, wide, dense=True))
    if g.chance(0.4):
        y = _gate(g, y, wide)
    y = _convolution(g, y, (out, wide))
    if stride == 1 and out == channels:
        y = g.node("Add", x, y)
    elif stride == 2 and g.chance(0.3) and all(side % 2 == 0 for side in sides):
        short = g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        y = g.node("Add", y, _convolution(g, short, (out, channels)))
    return (_activated(g, y) if g.chance(0.3) else y), out, tuple((side - 1) // stride + 1 for side in sides)


@case
def pruned_network(g):
    g.opset = 18
    sides, channels = g.pick(*PLANES), g.pick(3, 3, 1, 8, 40)
    x = g.input(g.normal(g.pick(1, 1, 2), channels, *sides))
    if g.chance(0.7):
        filters, stride = g.between(4, 40), g.pick(1, 2)
        x = _activated(g, _convolution(g, x, (filters, channels), 3, stride, dense=g.chance(0.7)))
        channels, sides = filters, tuple((side - 1) // stride + 1 for side in sides)
    for _ in range(g.between(1, 4)):
        x, channels, sides = _bottleneck(g, x, channels, sides)
    if g.chance(0.3):
        return x
    if g.chance(0.2):
        return g.node("MaxPool", x, kernel_shape=[1, 1])
    x = g.node("Flatten", g.node("GlobalAveragePool", x))
    return g.node("Gemm", x, _stored(g, _thinned(g, g.between(2, 90), channels)), transB=1)


@case
def pruned_convolution(g):
    """Zeros in the weights of larger kernels, and in one layer between dense ones."""
    sides, channels = g.pick(*PLANES), g.between(1, 70)
    x = g.input(g.normal(g.pick(1, 2), channels, *sides))
    kernel, filters = g.pick(1, 1, 3, 5), g.between(1, 70)
    x = _convolution(g, x, (filters, channels), kernel, g.pick(1, 2))
    if g.chance():
        x = _convolution(g, _activated(g, x), (g.between(1, 30), filters), g.pick(1, 3), dense=True)
    return x


AS_PACKAGES.update(("pruned_network", "pruned_convolution"))
