"""Families of random graphs with a mixture of experts, in the forms that exporters write."""

import os

import numpy as np

from parity.cases import AS_PACKAGES, CASES, case
from parity.control_flow import Body
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


# The forms without an operator of their own: separate experts, or all of them computed.


class Expert:
    """The feed-forward layer of one expert: products with or without a bias, a simple or a gated activation; weights as
    `[inputs, outputs]`, transposed by a node, or as Gemm takes them."""

    def __init__(self, g: Graph, width: int, hidden: int):
        self.width, self.hidden = width, hidden
        self.gated, self.bias, self.weights = g.chance(), g.chance(), g.pick("plain", "transposed", "gemm")
        self.activation = g.pick("Relu", "silu", "gelu", "Tanh")

    def linear(self, g: Graph, b, x: str, inputs: int, outputs: int, rank: int = 2) -> str:
        w = g.normal(inputs, outputs, scale=inputs**-0.5)
        bias = [b.constant(g.normal(outputs))] if self.bias else []
        if self.weights == "gemm" and rank == 2:
            return b.node("Gemm", x, b.constant(w.T.copy()), *bias, transB=1)
        w = b.constant(w) if self.weights == "plain" else b.node("Transpose", b.constant(w.T.copy()), perm=[1, 0])
        y = b.node("MatMul", x, w)
        return b.node("Add", y, *bias) if bias else y

    def activated(self, g: Graph, b, x: str) -> str:
        if self.activation == "silu":
            return b.node("Mul", x, b.node("Sigmoid", x))
        if self.activation == "gelu":
            erf = b.node("Erf", b.node("Div", x, b.constant(np.float32(2**0.5))))
            half = b.node("Mul", x, b.constant(np.float32(0.5)))
            return b.node("Mul", half, b.node("Add", erf, b.constant(np.float32(1))))
        return b.node(self.activation, x)

    def __call__(self, g: Graph, b, x: str, rank: int = 2) -> str:
        """The layer with new weights, in the graph or in a body `b`."""
        y = self.activated(g, b, self.linear(g, b, x, self.width, self.hidden, rank))
        if self.gated:
            y = b.node("Mul", y, self.linear(g, b, x, self.width, self.hidden, rank))
        return self.linear(g, b, y, self.hidden, self.width, rank)


class Layer:
    """Sizes of a mixture, its tokens, and the best experts of each: their shares and numbers, `[tokens, k]`. The logits
    are any, equal, with hugely negative ones for absent experts, or with the same best one for all tokens."""

    def __init__(self, g: Graph, most: int = 6):
        self.tokens, self.width, self.experts = g.pick(1, g.size(10), g.size(18)), g.size(18), g.between(2, 7)
        self.k = g.between(1, min(most, self.experts))
        self.expert = Expert(g, self.width, g.size(18))
        self.x = g.input(g.normal(self.tokens, self.width))
        self.shares, self.numbers = self.route(g)

    def route(self, g: Graph) -> tuple[str, str]:
        logits = g.node("MatMul", self.x, g.constant(g.normal(self.width, self.experts)))
        kind = g.between(0, 4)
        if kind == 0:
            logits = g.node("Mul", logits, g.constant(np.float32(0)))
        elif kind < 3:
            shift = np.zeros(self.experts, np.float32)
            shift[g.between(0, self.experts - 1)] = 100 if kind == 1 else -1e30
            logits = g.node("Add", logits, g.constant(shift))
        gate = g.between(0, 4)
        best = lambda x: g.node("TopK", x, g.ints(self.k), outputs=2, axis=-1)
        total = lambda x: g.node("ReduceSum", x, g.ints(-1), keepdims=1)
        if gate == 0:
            values, numbers = best(logits)
            return g.node("Softmax", values, axis=-1), numbers
        if gate == 1:
            shares, numbers = best(g.node("Softmax", logits, axis=-1))
            return g.node("Div", shares, total(shares)), numbers
        if gate == 2:
            shares, numbers = best(g.node("Sigmoid", logits))
            shares = g.node("Div", shares, g.node("Add", total(shares), g.constant(np.float32(1e-9))))
            return g.node("Mul", shares, g.constant(np.float32(2.5))), numbers
        if gate == 3:
            # As DeepSeek: a bias only for the choice.
            scores = g.node("Sigmoid", logits)
            _, numbers = best(g.node("Add", scores, g.constant(g.normal(self.experts, scale=0.1))))
            return g.node("GatherElements", scores, numbers, axis=1), numbers
        return best(g.node("Softmax", logits, axis=-1))

    def finish(self, g: Graph, y: str) -> str:
        """The result with a shared expert, gated or not, and a residual."""
        if g.chance(0.4):
            shared = self.expert(g, g, self.x)
            if g.chance():
                shared = g.node("Mul", shared, g.node("Sigmoid", g.node("MatMul", self.x, g.constant(g.normal(self.width, 1)))))
            y = g.node("Add", *g.pick((y, shared), (shared, y)))
        return g.node("Add", self.x, y) if g.chance(0.4) else y

    def mask(self, g: Graph, number: int) -> str:
        """Where an expert was chosen, `[tokens, k]`."""
        return g.node("Equal", self.numbers, g.constant(number, np.int64))


def added(g: Graph, total: str | None, y: str) -> str:
    return y if total is None else g.node("Add", total, y)


@case
def experts_all_weighted(g):
    """Every expert on all tokens, times its share of each, which is zero for most; as exported from masks."""
    layer, total = Layer(g), None
    if g.chance(0.3):
        total = g.constant(np.zeros((layer.tokens, layer.width), np.float32))
    spelling = g.between(0, 3)
    for number in range(layer.experts):
        mask = layer.mask(g, number)
        if spelling == 0:
            gate = g.node("Where", mask, layer.shares, g.constant(np.float32(0)))
        else:
            gate = g.node("Mul", *g.pick((g.node("Cast", mask, to=1), layer.shares), (layer.shares, g.node("Cast", mask, to=1))))
        gate = g.node("ReduceSum", gate, g.ints(-1), keepdims=1)
        y = layer.expert(g, g, layer.x)
        total = added(g, total, g.node("Mul", *g.pick((y, gate), (gate, y))))
    return layer.finish(g, total)


@case
def experts_by_columns(g):
    """Every expert on all tokens, times its column of a matrix of shares, scattered at the chosen experts or summed over
    one-hot rows, and perhaps normalized."""
    layer, total = Layer(g), None
    experts, tokens = layer.experts, layer.tokens
    if g.chance():
        zeros = g.constant(np.zeros((tokens, experts), np.float32))
        matrix = g.node("ScatterElements", zeros, layer.numbers, layer.shares, axis=1)
    else:
        values = g.constant([0, 1], np.float32)
        hot = g.node("OneHot", layer.numbers, g.constant(experts, np.int64), values, axis=-1)
        matrix = g.node("ReduceSum", g.node("Mul", hot, g.node("Unsqueeze", layer.shares, g.ints(-1))), g.ints(1), keepdims=0)
    if g.chance(0.3):
        matrix = g.node("Div", matrix, g.node("Add", g.node("ReduceSum", matrix, g.ints(-1)), g.constant(np.float32(1e-6))))
    spelling = g.between(0, 2)
    parts = g.node("Split", matrix, outputs=experts, axis=1) if spelling == 0 else None
    for number in range(experts):
        if spelling == 0:
            gate = parts[number]
        elif spelling == 1:
            gate = g.node("Gather", matrix, g.constant([number], np.int64), axis=1)
        else:
            gate = g.node("Unsqueeze", g.node("Gather", matrix, g.constant(number, np.int64), axis=1), g.ints(-1))
        total = added(g, total, g.node("Mul", layer.expert(g, g, layer.x), gate))
    return layer.finish(g, total)


@case
def experts_tiled(g):
    """All experts in one batched product with every token repeated for each, as in gpt-oss."""
    layer = Layer(g)
    tokens, width, experts, hidden = layer.tokens, layer.width, layer.experts, layer.expert.hidden
    matrix = g.node("ScatterElements", g.constant(np.zeros((tokens, experts), np.float32)), layer.numbers, layer.shares, axis=1)
    if g.chance():
        x = g.node("Tile", layer.x, g.ints(experts, 1))
        x = g.node("Reshape", x, g.ints(experts, -1, width))
    else:
        x = g.node("Expand", g.node("Unsqueeze", layer.x, g.ints(0)), g.ints(experts, tokens, width))
    y = g.node("MatMul", x, g.constant(g.normal(experts, width, 2 * hidden, scale=width**-0.5)))
    y = g.node("Add", y, g.constant(g.normal(experts, 1, 2 * hidden)))
    part = lambda start: g.node("Slice", y, g.ints(start), g.ints(2**31), g.ints(2), g.ints(2))
    gate, linear, limit = part(0), part(1), g.constant(np.float32(7))
    gate, linear = g.node("Clip", gate, "", limit), g.node("Clip", linear, g.constant(np.float32(-7)), limit)
    gate = g.node("Mul", gate, g.node("Sigmoid", g.node("Mul", gate, g.constant(np.float32(1.702)))))
    y = g.node("Mul", g.node("Add", linear, g.constant(np.float32(1))), gate)
    y = g.node("MatMul", y, g.constant(g.normal(experts, hidden, width, scale=hidden**-0.5)))
    y = g.node("Add", y, g.constant(g.normal(experts, 1, width)))
    gates = g.node("Transpose", matrix, perm=[1, 0])
    gates = g.node("Unsqueeze", gates, g.ints(2)) if g.chance() else g.node("Reshape", gates, g.ints(experts, -1, 1))
    return layer.finish(g, g.node("ReduceSum", g.node("Mul", y, gates), g.ints(0), keepdims=0))


def positions(g: Graph, mask: str) -> tuple[str, str]:
    """Rows and columns where a mask is set."""
    found = g.node("NonZero", mask)
    if g.chance():
        rows, columns = g.node("Split", found, outputs=2, axis=0)
        return tuple(g.node("Squeeze", part, g.ints(0)) for part in (rows, columns))
    found = g.node("Transpose", found, perm=[1, 0])
    return tuple(g.node("Gather", found, g.constant(axis, np.int64), axis=1) for axis in (0, 1))


@case
def experts_nonzero(g):
    """A loop over the experts with the rows of each, found by NonZero of a one-hot mask or of a comparison."""
    layer = Layer(g)
    tokens, width, experts = layer.tokens, layer.width, layer.experts
    total = g.constant(np.zeros((tokens, width), np.float32))
    hot = None
    if g.chance(0.7):
        hot = g.node("OneHot", layer.numbers, g.constant(experts, np.int64), g.constant([0, 1], np.int64), axis=-1)
        hot = g.node("Transpose", hot, perm=[2, 1, 0])
    scatter, gather = g.pick("ScatterND", "ScatterElements"), g.pick("GatherND", "Gather")
    for number in range(experts):
        if hot:
            mask = g.node("Gather", hot, g.constant(number, np.int64), axis=0)
            place, token = positions(g, mask)
        else:
            token, place = positions(g, layer.mask(g, number))
        if gather == "GatherND":
            both = g.node("Concat", g.node("Unsqueeze", token, g.ints(-1)), g.node("Unsqueeze", place, g.ints(-1)), axis=-1)
            shares = g.node("Unsqueeze", g.node("GatherND", layer.shares, both), g.ints(-1))
        else:
            flat = g.node("Add", g.node("Mul", token, g.constant(layer.k, np.int64)), place)
            shares = g.node("Gather", g.node("Reshape", layer.shares, g.ints(-1, 1)), flat, axis=0)
        x = g.node("Gather", layer.x, token, axis=0)
        if g.chance(0.3):
            x = g.node("Reshape", x, g.ints(-1, width))
        y = g.node("Mul", layer.expert(g, g, x), shares)
        if scatter == "ScatterND":
            total = g.node("ScatterND", total, g.node("Unsqueeze", token, g.ints(-1)), y, reduction="add")
        else:
            rows = g.node("Expand", g.node("Unsqueeze", token, g.ints(-1)), g.node("Shape", y))
            total = g.node("ScatterElements", total, rows, y, axis=0, reduction="add")
    return layer.finish(g, total)


@case
def experts_replaced(g):
    """Top-1 by NonZero of a vector, with a scatter that replaces rows."""
    layer = Layer(g, most=1)
    numbers = g.node("Squeeze", layer.numbers, g.ints(1))
    total = g.constant(np.zeros((layer.tokens, layer.width), np.float32))
    for number in range(layer.experts):
        rows = g.node("NonZero", g.node("Equal", numbers, g.constant(number, np.int64)))
        rows = g.node("Transpose", rows, perm=[1, 0])
        x = g.node("GatherND", layer.x, rows)
        y = g.node("Mul", layer.expert(g, g, x), g.node("GatherND", layer.shares, rows))
        total = g.node("ScatterND", total, rows, y)
    return layer.finish(g, total)


@case
def experts_in_branches(g):
    """Every expert in an If that is taken if some token needs it."""
    layer = Layer(g)
    total = g.constant(np.zeros((layer.tokens, layer.width), np.float32))
    for number in range(layer.experts):
        mask = g.node("Cast", layer.mask(g, number), to=1)
        count = g.node("ReduceSum", mask, keepdims=0)
        some = g.node("Greater", count, g.constant(np.float32(0))) if g.chance() else g.node("Cast", g.node("ReduceMax", mask, keepdims=0), to=9)
        then, otherwise = Body(g), Body(g)
        gate = then.node("ReduceSum", then.node("Mul", mask, layer.shares), then.constant([-1], np.int64), keepdims=1)
        y = then.node("Add", total, then.node("Mul", layer.expert(g, then, layer.x), gate))
        total = g.node("If", some, then_branch=then.graph(y), else_branch=otherwise.graph(otherwise.node("Identity", total)))
    return layer.finish(g, total)


@case
def experts_enforced(g):
    """The number of an expert is an input: one for every sentence, or one for all."""
    sentences, tokens, width, experts = g.pick(1, 2, 3), g.size(10), g.size(18), g.between(2, 6)
    expert = Expert(g, width, g.size(18))
    x = g.input(g.normal(sentences, tokens, width))
    form = g.pick("where", "masks", "branches", "gathered")
    if form == "branches":
        number = g.input(np.array(g.between(0, experts - 1), np.int64))
        total = g.constant(np.zeros((sentences, tokens, width), np.float32))
        for at in range(experts):
            then, otherwise = Body(g), Body(g)
            arms = then.graph(expert(g, then, x, 3)), otherwise.graph(otherwise.node("Identity", total))
            total = g.node("If", g.node("Equal", number, g.constant(at, np.int64)), then_branch=arms[0], else_branch=arms[1])
        return total
    numbers = g.input(g.random.integers(0, experts, sentences))
    if form == "gathered":
        up = g.node("Gather", g.constant(g.normal(experts, width, 2 * expert.hidden, scale=width**-0.5)), numbers, axis=0)
        both = g.node("MatMul", x, up)
        a, b = g.node("Split", both, outputs=2, axis=-1)
        y = g.node("Mul", g.node("Relu", a), b)
        down = g.constant(g.normal(experts, expert.hidden, width, scale=expert.hidden**-0.5))
        return g.node("MatMul", y, g.node("Gather", down, numbers, axis=0))
    total = g.constant(np.zeros((sentences, tokens, width), np.float32)) if form == "where" else None
    for at in range(experts):
        mask = g.node("Reshape", g.node("Equal", numbers, g.constant(at, np.int64)), g.ints(-1, 1, 1))
        y = expert(g, g, x, 3)
        if form == "where":
            total = g.node("Where", mask, y, total)
        else:
            total = added(g, total, g.node("Mul", y, g.node("Cast", mask, to=1)))
    return total


FORMS = {name for name in CASES if name.startswith("experts_")}
AS_PACKAGES |= FORMS


def is_not_routed(report: dict) -> str | None:
    """What an inspection of one of these models shows that it should not: all experts computed, or a fallback."""
    operators = [step["op"] for step in report["steps"]]
    if report["fallback_steps"] or report["whole_model_fallback"]:
        return f"falls back: {report['fallback_steps'] or report['whole_model_fallback']}"
    if operators.count("Routed") < 2:
        return f"not routed: {operators}"
    return None
