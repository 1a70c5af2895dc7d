"""Families of random graphs with a mixture of experts, in the forms that exporters write."""

import numpy as np

from parity.cases import case
from parity.graph import Graph


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


@case
def experts_in_one(g):
    """com.microsoft MoE."""
    tokens, width, hidden, experts = g.size(18), 2 * g.size(18), 2 * g.size(18) + 1, g.between(1, 8)
    k = g.between(1, min(3, experts))
    x = g.input(g.normal(*((tokens, width) if g.chance() else (1, tokens, width))))
    logits = g.input(g.normal(tokens, experts, scale=g.pick(1, 5)))
    kind = g.pick("relu", "gelu", "silu", "identity", "swiglu")
    both = 2 if kind == "swiglu" else 1
    up = g.constant(g.normal(experts, both * hidden, width, scale=width**-0.5))
    down = g.constant(g.normal(experts, width, hidden, scale=hidden**-0.5))
    up_bias, down_bias = "", ""
    if g.chance():
        up_bias, down_bias = g.constant(g.normal(experts, both * hidden)), g.constant(g.normal(experts, width))
    attributes = {"k": k, "activation_type": kind, "normalize_routing_weights": g.between(0, 1)}
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 7.0}
    return g.node("MoE", x, logits, up, up_bias, down, down_bias, domain="com.microsoft", **attributes)
