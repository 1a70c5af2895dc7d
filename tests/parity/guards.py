"""Families of random graphs with adaptive depth: early exits, layers that are skipped, repeated or chosen, stitched
networks. A setting decides, or a computed value compared with a setting; ONNX Runtime is fed the setting as an input.
"""

import numpy as np
from onnx import TensorProto as T

from parity.control_flow import Body, case
from parity.graph import Graph

THRESHOLDS = (0.5, 0.0, 0.2, 0.35, 0.7, 1.0)


def _dense(b, g: Graph, x: str, inner: int, outer: int, activation: str | None = "Relu") -> str:
    y = b.node("MatMul", x, b.constant(g.normal(inner, outer, scale=1.5 * inner**-0.5)))
    y = b.node("Add", y, b.constant(g.normal(outer, scale=0.3)))
    return b.node(activation, y) if activation else y


def _convolved(b, g: Graph, x: str, inner: int, outer: int) -> str:
    y = b.node("Conv", x, b.constant(g.normal(outer, inner, 3, 3, scale=(9 * inner) ** -0.5)), pads=[1] * 4)
    return b.node(g.pick("Relu", "HardSwish"), y)


def _branch(b, condition: str, arms: list, outputs: int = 1):
    return b.node("If", condition, outputs=outputs, then_branch=arms[0], else_branch=arms[1])


def _index(b, number: int) -> str:
    return b.constant(np.array([number]), np.int64)


@case
def exit_confidence(g):
    """Stops at the first exit whose largest probability is above a threshold; every exit is in a branch of the one
    before."""
    exits, classes, images = g.between(1, 5), g.size(18), g.chance()
    width = g.size(18)
    threshold = g.setting(*THRESHOLDS)
    x = g.input(g.normal(1, width, g.size(10), g.size(10)) if images else g.normal(1, width))

    def classify(b, x: str) -> str:
        x = b.node("Squeeze", b.node("GlobalAveragePool", x), b.constant([2, 3], np.int64)) if images else x
        return _dense(b, g, x, width, classes, None)

    def rest(b, x: str, at: int) -> tuple[str, str]:
        for _ in range(g.between(1, 2)):
            x = _convolved(b, g, x, width, width) if images else _dense(b, g, x, width, width)
        logits = classify(b, x)
        if at == exits:
            return logits, _index(b, at)
        sure = b.node("ReduceMax", b.node("Softmax", logits, axis=-1), keepdims=0)
        here, later = Body(g), Body(g)
        arms = [here.graph(logits, _index(here, at)), later.graph(*rest(later, x, at + 1))]
        return _branch(b, b.node("Greater", sure, threshold), arms, 2)

    return rest(g, x, 0)


@case
def exit_by_chance_nested(g):
    """PALBERT's Q-exit: gates see this layer's and the last one's features, the chance not to have stopped is carried
    from exit to exit, and the last exit always answers."""
    exits, classes, width = g.between(1, 4), g.size(10), g.size(18)
    threshold = g.setting(*THRESHOLDS)
    one = g.constant(np.ones([1, 1]), np.float32)
    x = g.input(g.normal(1, width))

    def rest(b, x: str, before: str, going: str, at: int) -> tuple[str, str]:
        y = _dense(b, g, x, width, width, "Tanh")
        logits = _dense(b, g, y, width, classes, None)
        if at == exits:
            return logits, _index(b, at)
        both = b.node("Add", b.node("Concat", y, before, axis=-1), b.constant(g.normal(2 * width, scale=0.1)))
        gate = b.node("Sigmoid", _dense(b, g, both, 2 * width, 1, None))
        going = b.node("Mul", going, b.node("Sub", one, gate))
        stops = b.node("Greater", b.node("Sub", one, going), threshold)
        here, later = Body(g), Body(g)
        arms = [here.graph(logits, _index(here, at)), later.graph(*rest(later, y, y, going, at + 1))]
        return _branch(b, stops, arms, 2)

    return rest(g, x, x, one, 0)


@case
def exit_by_chance_looped(g):
    """The same over one shared layer, as in ALBERT: a Loop ended by its condition, with everything carried."""
    layers, classes, width = g.between(1, 7), g.size(10), g.size(18)
    threshold = g.setting(*THRESHOLDS)
    x = g.input(g.normal(1, width))
    first = [x, g.node("Abs", x), g.constant(np.ones([1, 1]), np.float32), g.constant(np.zeros([]), np.int64)]
    b = Body(g)
    b.parameter([], T.INT64), b.parameter([], T.BOOL)
    h, before, going, count = b.parameter(), b.parameter(), b.parameter(), b.parameter([], T.INT64)
    y = _dense(b, g, h, width, width, "Tanh")
    gate = b.node("Sigmoid", _dense(b, g, b.node("Concat", y, before, axis=-1), 2 * width, 1, None))
    one = b.constant(np.ones([1, 1]), np.float32)
    going = b.node("Mul", going, b.node("Sub", one, gate))
    goes_on = b.node("LessOrEqual", b.node("Sub", one, going), threshold)
    goes_on = b.node("Squeeze", goes_on)
    count = b.node("Add", count, b.constant(1, np.int64))
    limit = g.constant(layers, np.int64)
    y, _, _, count = g.node("Loop", limit, "", *first, outputs=4, body=b.graph(goes_on, y, h, going, count))
    return _dense(g, g, y, width, classes, None), count


@case
def skipped_by_similarity(g):
    """FFN-SkipLLM: once a feed-forward layer's output is as similar to its input as the threshold, the following ones
    are skipped; the first ones always run."""
    layers, width, hidden, tokens = g.between(2, 5), g.size(18), g.size(18), g.size(10)
    threshold = g.setting(0.9, -1.0, 0.5, 0.99, 0.9999, 2.0)
    x = g.input(g.normal(1, tokens, width))
    skips = g.constant(False, np.bool_)
    count = _index(g, 0)
    for at in range(layers):
        # In place of attention, which always runs.
        x = g.node("Add", x, _dense(g, g, x, width, width, "Tanh"))
        run, skip = Body(g), Body(g)
        up = _dense(run, g, x, width, hidden)
        y = run.node("Add", x, _dense(run, g, up, hidden, width, None))
        dot = run.node("ReduceSum", run.node("Mul", x, y), keepdims=0)
        norms = [run.node("ReduceL2", value, keepdims=0) for value in (x, y)]
        alike = run.node("Div", dot, run.node("Max", run.node("Mul", *norms), run.constant(np.float32(1e-6))))
        alike = run.node("GreaterOrEqual", alike, threshold)
        more = run.node("Add", count, _index(run, 1))
        arms = [skip.graph(x, skips, count), run.graph(y, alike, more)]
        if at == 0:
            x, skips, count = _branch(g, g.node("And", skips, g.constant(False, np.bool_)), arms, 3)
        else:
            x, skips, count = _branch(g, skips, arms, 3)
    return x, count


@case
def depth_by_position(g):
    """SkipDecode: the number of layers falls linearly with the position from most to least; the first and last ones
    always run."""
    layers, width = g.between(2, 7), g.size(18)
    most, least, last = g.between(1, layers), g.between(0, layers), g.between(1, 9)
    position = g.setting(0, 1, last // 2, last, 100, dtype=np.int64)
    floor = g.setting(least, 0, most, dtype=np.int64)
    x = g.input(g.normal(2, width))
    slope = g.constant(np.float32((most - least) / last))
    less = g.node("Mul", g.node("Cast", position, to=T.FLOAT), slope)
    depth = g.node("Cast", g.node("Floor", g.node("Sub", g.constant(np.float32(most)), less)), to=T.INT64)
    depth = g.node("Max", depth, floor)
    for at in range(layers):
        if at in (0, layers - 1):
            x = _dense(g, g, x, width, width)
            continue
        run, skip = Body(g), Body(g)
        arms = [run.graph(_dense(run, g, x, width, width)), skip.graph(x)]
        x = _branch(g, g.node("Less", g.constant(at, np.int64), depth), arms)
    return x, depth


def _cascade(b, g: Graph, index: str, x: str, layers: list, first: int = 0) -> str:
    """The layer with this index, by bisection; for an index out of range, `x` unchanged."""
    if len(layers) == 1:
        run, skip = Body(g), Body(g)
        arms = [run.graph(layers[0](run, x)), skip.graph(x)]
        return _branch(b, b.node("Equal", index, b.constant(first, np.int64)), arms)
    half = len(layers) // 2
    low, high = Body(g), Body(g)
    arms = [
        low.graph(_cascade(low, g, index, x, layers[:half], first)),
        high.graph(_cascade(high, g, index, x, layers[half:], first + half)),
    ]
    return _branch(b, b.node("Less", index, b.constant(first + half, np.int64)), arms)


@case
def layer_program(g):
    """CoLa: a list of layers to run one after the other, with skips and repeats."""
    count, width, length = g.between(1, 6), g.size(18), g.between(1, 8)
    weights = [(g.normal(width, width, scale=width**-0.5), g.normal(width)) for _ in range(count)]

    def layer(at: int):
        def run(b, x: str) -> str:
            y = b.node("MatMul", x, b.constant(weights[at][0]))
            return b.node("Tanh", b.node("Add", y, b.constant(weights[at][1])))

        return run

    drawn = [g.random.integers(-1, count, length) for _ in range(4)]
    in_order = np.arange(length) % count
    program = g.setting(in_order, np.full(length, -1), np.zeros(length), *drawn, dtype=np.int64)
    x = g.input(g.normal(2, width))
    b = Body(g)
    number, goes_on = b.parameter([], T.INT64), b.parameter([], T.BOOL)
    h = b.parameter()
    index = b.node("Gather", program, number)
    y = _cascade(b, g, index, h, [layer(at) for at in range(count)])
    if g.chance():
        steps = g.setting(length, 0, length // 2, dtype=np.int64)
    else:
        steps = g.constant(length, np.int64)
    begins = g.pick("", g.constant(True, np.bool_))
    return g.node("Loop", steps, begins, x, body=b.graph(goes_on, y))


@case
def stitched(g):
    """SN-Net: the front of a small network, a stitch, and the back of a large one with its head; chosen by number."""
    blocks, small, large, classes = g.between(1, 4), g.size(10), g.size(18), g.size(10)
    configurations = blocks + 2
    chosen = g.setting(*range(configurations), -1, dtype=np.int64)
    x = g.input(g.normal(1, g.size(10)))
    inner = g.inputs[x].shape[1]
    shared = [
        [(g.normal(width, width, scale=width**-0.5)) for _ in range(blocks)] for width in (small, large)
    ]
    stems = [g.constant(g.normal(inner, width, scale=inner**-0.5)) for width in (small, large)]
    held = [[g.constant(array) for array in arrays] for arrays in shared]

    def configuration(b, front: int) -> str:
        """This many blocks of the small network before the stitch; -1 for the large network alone."""
        network = 1 if front < 0 else 0
        y = b.node("MatMul", x, stems[network])
        for at in range(blocks):
            if network == 0 and at == front:
                y, network = b.node("MatMul", y, b.constant(g.normal(small, large, scale=small**-0.5))), 1
            y = b.node("Relu", b.node("MatMul", y, held[network][at]))
        if network == 0:
            y = b.node("MatMul", y, b.constant(g.normal(small, large, scale=small**-0.5)))
        return b.node("MatMul", y, b.constant(g.normal(large, classes)))

    def choose(b, first: int) -> str:
        if first == configurations - 1:
            return configuration(b, first - 1)
        this, others = Body(g), Body(g)
        arms = [this.graph(configuration(this, first - 1)), others.graph(choose(others, first + 1))]
        return _branch(b, b.node("Equal", chosen, b.constant(first, np.int64)), arms)

    return choose(g, 0)


@case
def skip_scalars(g):
    """Skip-Tuning: a U-Net with scaled skip connections, each by an element of a setting."""
    depth, width = g.between(1, 3), g.size(10)
    side = g.between(1, 3) * 2**depth
    scales = g.setting(np.ones(depth), np.zeros(depth), *(g.normal(depth) for _ in range(2)))
    x = g.input(g.normal(1, width, side, side))
    skips = []
    for _ in range(depth):
        x = _convolved(g, g, x, width, width)
        skips.append(x)
        x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = _convolved(g, g, x, width, width)
    for at, skip in reversed(list(enumerate(skips))):
        scale = g.node("Gather", scales, g.constant(at, np.int64))
        x = g.node("Resize", x, "", g.constant([1, 1, 2, 2], np.float32), mode="nearest")
        x = g.node("Concat", x, g.node("Mul", skip, scale), axis=1)
        x = _convolved(g, g, x, 2 * width, width)
    return x


@case
def blended(g):
    """Settings of several types: a bool for a Where, an index, an exponent."""
    width = g.size(18)
    x = g.input(g.normal(2, width))
    flag = g.setting(True, False, dtype=np.bool_)
    row = g.setting([0], [1], [-1], dtype=np.int64)
    mask = g.setting(np.ones(width), g.random.integers(0, 2, width), dtype=np.bool_)
    scale = g.setting(*(g.normal(1, width) for _ in range(2)))
    y = g.node("Where", flag, g.node("Mul", x, scale), g.node("Neg", x))
    return g.node("Where", mask, y, x), g.node("Gather", y, row)
