"""Families of random graphs with channel masks computed in the run (FTWT and similar), in the forms that exporters
write."""

import numpy as np
from onnx import TensorProto as T

from parity.cases import AS_PACKAGES, case
from parity.graph import Graph


def head(g: Graph, x: str, channels: int, out: int, share: float) -> str:
    """A logit `[N, out, 1, 1]` for every channel; about `share` of them are above zero."""
    mean = g.node("GlobalAveragePool", x) if g.chance() else g.node("ReduceMean", x, axes=[2, 3], keepdims=1)
    bias = np.where(g.random.random(out) < share, 1, -1) * g.random.uniform(0.1, 2, out)
    if share in (0, 1):
        bias *= 50
    return g.node("Conv", mean, g.constant(g.normal(out, channels, 1, 1, scale=0.1)), g.constant(bias.astype(np.float32)))


def masked(g: Graph, y: str, logits: str) -> str:
    """`y` where a logit is above zero, else 0."""
    zero, one, half = (g.constant(number, np.float32) for number in (0, 1, 0.5))
    above = lambda: g.node(*g.pick(("Greater", logits, zero), ("Less", zero, logits), ("Not", g.node("LessOrEqual", logits, zero))))
    spelling = g.between(0, 7)
    if spelling == 0:
        return g.node("Where", above(), y, zero)
    if spelling == 1:
        return g.node("Where", g.node("LessOrEqual", logits, zero), zero, y)
    if spelling == 2:
        mask = g.node("Where", above(), one, zero)
    elif spelling == 3:
        mask = g.node("Round", g.node("Sigmoid", logits))
    elif spelling == 4:
        mask = g.node("Cast", g.node(g.pick("Greater", "GreaterOrEqual"), g.node("Sigmoid", logits), half), to=T.FLOAT)
    elif spelling == 5:
        mask = g.node("Sub", one, g.node("Cast", g.node("Less", logits, zero), to=T.FLOAT))
    elif spelling == 6:
        mask = g.node("Cast", g.node("Cast", above(), to=T.INT64), to=T.FLOAT)
    else:
        mask = g.node("Cast", above(), to=T.FLOAT)
    return g.node("Mul", *g.pick((y, mask), (mask, y)))


def batch_norm(g: Graph, y: str, channels: int, shift: bool) -> str:
    """With a mean and a bias only if `shift`; otherwise zeros stay zeros."""
    zeros = np.zeros(channels, np.float32)
    bias, mean = (g.normal(channels), g.normal(channels)) if shift else (zeros, zeros)
    return g.node("BatchNormalization", y, *(g.constant(v) for v in (g.positive(channels), bias, mean, g.positive(channels))))


def stage(g: Graph, x: str, channels: int, out: int, share: float) -> str:
    """A convolution, BatchNorm and activation with a mask somewhere between them."""
    logits = head(g, x, channels, out, share)
    kernel = g.pick(1, 3, 3, 5)
    weights = g.constant(g.normal(out, channels, kernel, kernel, scale=(channels * kernel**2) ** -0.5))
    bias = [g.constant(g.normal(out))] if g.chance() else []
    stride = g.pick(1, 1, 2)
    y = g.node("Conv", x, weights, *bias, pads=[kernel // 2] * 4, strides=[stride, stride])
    place = g.between(0, 4)
    if place == 0:
        y = masked(g, y, logits)
    y = batch_norm(g, y, out, g.chance()) if g.chance(0.7) else y
    if place == 1:
        y = masked(g, y, logits)
    if g.chance(0.3):
        y = g.node("Add", y, g.node("Conv", x, g.constant(g.normal(out, channels, 1, 1, scale=channels**-0.5)), strides=[stride, stride]))
    y = g.node(g.pick("Relu", "Relu", "HardSwish", "Tanh", "Sigmoid", "LeakyRelu"), y)
    if place == 2:
        y = masked(g, y, logits)
    if g.chance(0.3):
        pool = g.pick("MaxPool", "AveragePool")
        y = g.node(pool, y, kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1] if g.chance() else None)
    return masked(g, y, logits) if place > 2 else y


@case
def masked_convolutions(g):
    """Several in sequence, for one image or two, from no active channel to all."""
    channels = g.size(40)
    x = g.input(g.normal(g.pick(1, 1, 2, 3), channels, g.between(9, 26), g.between(9, 26)))
    share = g.pick(0, 0.3, 0.6, 0.6, 0.9, 1)
    for _ in range(g.between(1, 3)):
        out = g.pick(1, 3, 8, 17, 33, 70)
        x, channels = stage(g, x, channels, out, share), out
    end = g.between(0, 3)
    if end == 0:
        return x
    if end == 1:
        return g.node("Conv", x, g.constant(g.normal(5, channels, 1, 1))), g.node("ReduceMean", x, axes=[2, 3])
    if end == 2:
        y = g.node("GlobalMaxPool", x)
        return g.node("Gemm", g.node("Flatten", y), g.constant(g.normal(channels, 4)))
    return g.node("Concat", x, g.node("Neg", x), axis=1)


@case
def masked_separable(g):
    """A mask after a depthwise convolution, before the pointwise one; masks with three axes."""
    channels, out = g.size(40), g.size()
    x = g.input(g.normal(1, channels, g.between(5, 18), g.between(5, 18)))
    y = g.node("Conv", x, g.constant(g.normal(channels, 1, 3, 3, scale=0.3)), pads=[1] * 4, group=channels)
    logits = head(g, x, channels, channels, g.pick(0, 0.5, 0.8, 1))
    if g.chance():
        mask = g.node("Squeeze", g.node("Cast", g.node("Greater", logits, g.constant(0, np.float32)), to=T.FLOAT), g.ints(0))
        y = g.node("Mul", g.node("Relu", y), mask)
    else:
        y = masked(g, g.node("Relu", y), logits)
    return g.node("Conv", y, g.constant(g.normal(out, channels, 1, 1, scale=channels**-0.5)))


@case
def weights_masked(g):
    """Weights masked in the graph (MaskUNet): a convolution and a product with weights computed in the run."""
    channels, out, kernel = g.size(18), g.size(), g.pick(1, 3)
    x = g.input(g.normal(g.pick(1, 2), channels, g.between(3, 14), g.between(3, 14)))
    mask = g.input((g.random.random((out, channels, kernel, kernel)) < g.pick(0, 0.3, 0.7, 1)).astype(np.float32))
    weights = g.constant(g.normal(out, channels, kernel, kernel, scale=(channels * kernel**2) ** -0.5))
    y = g.node("Conv", x, g.node("Mul", weights, mask), pads=[kernel // 2] * 4)
    rows = g.node("Flatten", g.node("GlobalAveragePool", y))
    keep = g.input((g.random.random((out, 7)) < 0.5).astype(np.float32))
    return y, g.node("MatMul", rows, g.node("Mul", g.constant(g.normal(out, 7)), keep))


AS_PACKAGES |= {"masked_convolutions"}
