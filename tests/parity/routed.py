"""Families of random graphs with a mixture of experts, in the forms that exporters write."""

import os

import numpy as np

from parity.cases import AS_PACKAGES, CASES, case
from parity.exact import MoE
from parity.graph import Graph

# ONNX Runtime's QMoE would round activations to bytes.
os.environ["ORT_QMOE_CPU_QNBIT_GEMM"] = "0"


def route(g: Graph, x: str, width: int, experts: int, k: int) -> tuple[str, str]:
    """Weights and indices `[tokens, k]` of every token's best experts."""
    logits = g.node("MatMul", x, g.constant(g.normal(width, experts)))
    chances = g.node("Softmax", logits, axis=-1)
    return g.node("TopK", chances, g.ints(k), outputs=2, axis=-1)


@case
def experts_gathered(g):
    """As exported from PyTorch's indexing: a token beside its expert's matrix, one rank after the other."""
    tokens, width, hidden, experts = g.size(18), g.size(), g.size(), g.between(1, 8)
    k = g.between(1, min(2, experts))
    x = g.input(g.normal(tokens, width))
    weights, indices = route(g, x, width, experts, k)
    up, up_bias = g.constant(g.normal(experts, width, hidden, scale=width**-0.5)), g.constant(g.normal(experts, hidden))
    down = g.constant(g.normal(experts, hidden, width, scale=hidden**-0.5))
    total = None
    for place in range(k):
        index = g.node("Gather", indices, g.constant(place, np.int64), axis=1)
        y = g.node("MatMul", g.node("Unsqueeze", x, g.ints(1)), g.node("Gather", up, index))
        y = g.node("Relu", g.node("Add", y, g.node("Unsqueeze", g.node("Gather", up_bias, index), g.ints(1))))
        y = g.node("Squeeze", g.node("MatMul", y, g.node("Gather", down, index)), g.ints(1))
        weight = g.node("Unsqueeze", g.node("Gather", weights, g.constant(place, np.int64), axis=1), g.ints(1))
        y = g.node("Mul", y, weight)
        total = y if total is None else g.node("Add", total, y)
    return total


@case
def experts_batched(g):
    """As exported from Transformers' `batched_mm`: matrices on the left, gate and linear part in one, followed by a
    scatter."""
    tokens, width, hidden, experts = g.size(18), g.size(), g.size(18), g.between(1, 8)
    k = g.between(1, min(3, experts))
    x = g.input(g.normal(tokens, width))
    weights, indices = route(g, x, width, experts, k)
    of_token = g.constant(np.repeat(np.arange(tokens), k), np.int64)
    rows, indices = g.node("Gather", x, of_token), g.node("Reshape", indices, g.ints(-1))
    up = g.constant(g.normal(experts, 2 * hidden, width, scale=width**-0.5))
    down = g.constant(g.normal(experts, width, hidden, scale=hidden**-0.5))
    rows = g.node("Unsqueeze", rows, g.ints(-1))
    both = g.node("Squeeze", g.node("MatMul", g.node("Gather", up, indices), rows), g.ints(-1))
    gate, linear = g.node("Split", both, outputs=2, axis=-1)
    y = g.node("Mul", g.node("Mul", gate, g.node("Sigmoid", gate)), linear)
    y = g.node("Squeeze", g.node("MatMul", g.node("Gather", down, indices), g.node("Unsqueeze", y, g.ints(-1))), g.ints(-1))
    y = g.node("Mul", y, g.node("Reshape", weights, g.ints(-1, 1)))
    zeros = g.constant(np.zeros((tokens, width)), np.float32)
    return g.node("ScatterND", zeros, g.node("Unsqueeze", of_token, g.ints(-1)), y, reduction="add")


def tokens_and_logits(g: Graph, width: int, experts: int) -> tuple[str, str]:
    """Tokens of one or two axes before the last, and a router's logits: usual ones, equal ones, those of absent experts
    hugely negative, or the same best expert for all tokens."""
    tokens = g.size(18)
    x = g.input(g.normal(*((tokens, width) if g.chance() else (1, tokens, width))))
    logits = g.normal(tokens, experts, scale=g.pick(1, 5))
    kind = g.between(0, 5)
    if kind == 0:
        logits[:] = 0.5
    elif kind == 1:
        logits[:, g.random.random(experts) < 0.5] = g.pick(-1e30, -3e38, -np.inf)
    elif kind == 2:
        logits[:, g.between(0, experts - 1)] += 50
    return x, g.input(logits)


def swiglu(g: Graph) -> dict:
    """Random parameters of the activation."""
    choices = {"activation_alpha": (None, 1.702), "activation_beta": (None, 1.0), "swiglu_limit": (None, 0.5, 7.0)}
    return {name: g.pick(*values) for name, values in choices.items()}


@case
def experts_in_one(g):
    """com.microsoft MoE."""
    width, hidden, experts = 2 * g.size(18), 2 * g.size(18) + 1, g.between(1, 8)
    x, logits = tokens_and_logits(g, width, experts)
    kind = g.pick("relu", "gelu", "silu", "identity", "swiglu")
    both = 2 if kind == "swiglu" else 1
    up = g.constant(g.normal(experts, both * hidden, width, scale=width**-0.5))
    down = g.constant(g.normal(experts, width, hidden, scale=hidden**-0.5))
    up_bias, down_bias = "", ""
    if g.chance():
        up_bias, down_bias = g.constant(g.normal(experts, both * hidden)), g.constant(g.normal(experts, width))
    attributes = {"k": g.between(1, experts), "activation_type": kind, "normalize_routing_weights": g.between(0, 1)}
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": 1} | swiglu(g)
    return g.node("MoE", x, logits, up, up_bias, down, down_bias, domain="com.microsoft", **attributes)


@case
def experts_of_two_products(g):
    """com.microsoft MoE as ONNX Runtime has it only on other devices: a third product, gate and linear part as halves,
    the activated gate clipped."""
    g.use_reference(MoE)
    width, hidden, experts = g.size(18), g.size(18), g.between(1, 8)
    x, logits = tokens_and_logits(g, width, experts)
    kind, fusion = g.pick(("relu", 0), ("silu", 0), ("swiglu", 0), ("swiglu", 1), ("swiglu", 2))
    operands, rows = [x, logits], hidden if fusion == 0 else 2 * hidden
    for outputs, inputs in (rows, width), (width, hidden), (hidden, width):
        bias = g.constant(g.normal(experts, outputs)) if g.chance() else ""
        operands += [g.constant(g.normal(experts, outputs, inputs, scale=inputs**-0.5)), bias]
    attributes = {"k": g.between(1, experts), "activation_type": kind, "normalize_routing_weights": g.between(0, 1)}
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": fusion, "swiglu_limit_after_activation": g.between(0, 1)} | swiglu(g)
    return g.node("MoE", *(operands if fusion == 0 else operands[:6]), domain="com.microsoft", **attributes)


@case
def experts_of_few_bits(g):
    """com.microsoft QMoE: matrices of 2, 4 or 8 bits."""
    # ONNX Runtime multiplies larger blocks of 2 bits by bytes.
    bits, block = g.pick((2, 0), (2, 16), (4, 0), (4, 16), (4, 32), (8, 0), (8, 16), (8, 32))
    unit = block or 4
    width, hidden, experts = unit * g.between(1, 80 // unit), unit * g.between(1, 80 // unit), g.between(1, 6)
    x, logits = tokens_and_logits(g, width, experts)
    kind = g.pick("relu", "gelu", "silu", "identity", "swiglu")
    rows = 2 * hidden if kind == "swiglu" else hidden
    has_zeros, has_bias, products, zeros = g.chance(), g.chance(), [], []
    for outputs, inputs in (rows, width), (width, hidden):
        packed = lambda *shape: g.constant(g.random.integers(0, 256, shape).astype(np.uint8))
        blocks = inputs // block if block else 1
        scale = g.random.uniform(0.1, 1, (experts, outputs, blocks)[: 3 if block else 2]) * inputs**-0.5 / 2 ** (bits - 1)
        products += [packed(experts, outputs, inputs * bits // 8), g.constant(scale.astype(np.float32))]
        products += [g.constant(g.normal(experts, outputs)) if has_bias else ""]
        shape = (experts, outputs, -(-blocks * bits // 8)) if block else (experts, -(-outputs * bits // 8))
        zeros += [packed(*shape) if has_zeros else ""]
    tokens = g.inputs[logits].shape[0]
    weights = [g.input(g.positive(tokens, experts))] if g.chance() else []
    operands = [x, logits, *products, "", "", "", *zeros, "", *weights]
    attributes = {"k": g.between(1, experts), "activation_type": kind, "normalize_routing_weights": g.between(0, 1)}
    attributes |= {"expert_weight_bits": bits, "block_size": block or None, "weights_prepacked": g.pick(None, 0)}
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": 1} | swiglu(g)
    return g.node("QMoE", *operands, domain="com.microsoft", **attributes)


AS_PACKAGES |= {name for name in CASES if name.startswith("experts_")}
