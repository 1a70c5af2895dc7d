"""Families of random graphs with If, Loop and Scan: constant and computed conditions and trip counts; carried, scanned
and collected values along every axis and in both directions; captured values; nesting; functions.
"""

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from parity import cases
from parity.graph import Graph

UNARY = ("Relu", "Tanh", "Abs", "Neg", "Sigmoid", "HardSwish")


def case(function):
    """Register a family, which also runs as a package."""
    cases.AS_PACKAGES.add(function.__name__)
    return cases.case(function)


class Body:
    """A subgraph of a node of `g`, under construction; values that it reads from outside have their names there."""

    def __init__(self, g: Graph):
        self.g, self.parameters, self.nodes, self.constants = g, [], [], []

    def fresh(self, stem: str) -> str:
        self.g.names = getattr(self.g, "names", 0) + 1
        return f"{stem}_{self.g.names}"

    def parameter(self, shape=None, dtype=T.FLOAT) -> str:
        self.parameters.append(helper.make_tensor_value_info(self.fresh("p"), dtype, shape))
        return self.parameters[-1].name

    def constant(self, values, dtype=np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), self.fresh("w")))
        return self.constants[-1].name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        names = tuple(self.fresh("b") for _ in range(outputs))
        self.nodes.append(helper.make_node(op, inputs, names, name=self.fresh(op), **attributes))
        return names if outputs > 1 else names[0]

    def graph(self, *outputs: str) -> onnx.GraphProto:
        # A graph returns results of its own nodes: other values pass through an Identity.
        given = [name if any(name in n.output for n in self.nodes) else self.node("Identity", name) for name in outputs]
        given = [name if name not in given[:at] else self.node("Identity", name) for at, name in enumerate(given)]
        values = [onnx.ValueInfoProto(name=name) for name in given]
        return helper.make_graph(self.nodes, self.fresh("body"), self.parameters, values, self.constants)


def _positive(b, x: str, above: float = 0.0) -> str:
    """A condition: whether the sum of `x` is above a threshold, in a graph or a body."""
    return b.node("Greater", b.node("ReduceSum", x, keepdims=0), b.constant(np.float32(above)))


def _mix(b, g: Graph, x: str, width: int) -> str:
    """A few layers over `[..., width]`."""
    for _ in range(g.between(0, 3)):
        kind = g.between(0, 2)
        if kind == 0:
            x = b.node(g.pick(*(UNARY if g.opset >= 14 else UNARY[:-1])), x)
        elif kind == 1:
            x = b.node(g.pick("Add", "Mul", "Sub"), x, b.constant(g.normal(width, scale=0.5)))
        else:
            x = b.node("MatMul", x, b.constant(g.normal(width, width, scale=0.5 * width**-0.5)))
    return x


@case
def if_computed(g):
    width = g.size(18)
    shape = (g.size(10), width)
    x = g.input(g.normal(*shape) + g.pick(-0.5, 0.5))
    around = _mix(g, g, x, width)
    results = g.between(1, 3)
    arms = []
    for _ in range(2):
        b = Body(g)
        values = [g.pick(x, around) for _ in range(results)]
        arms.append(b.graph(*(_mix(b, g, value, width) for value in values)))
    condition = _positive(g, g.pick(x, around))
    made = g.node("If", condition, outputs=results, then_branch=arms[0], else_branch=arms[1])
    made = made if results > 1 else (made,)
    return (*made, g.node("Add", made[0], around))


@case
def if_convolution(g):
    """Branches that need another layout than their surroundings."""
    channels, out, side = g.size(18), g.size(18), g.between(3, 9)
    x = g.input(g.normal(1, channels, side, side) + g.pick(-0.2, 0.2))
    weights = [g.normal(out, channels, 3, 3, scale=0.1), g.normal(out, channels, 1, 1, scale=0.3)]
    arms = []
    for array in weights:
        b = Body(g)
        pads = [array.shape[2] // 2] * 4
        y = b.node("Conv", x, b.constant(array), pads=pads)
        arms.append(b.graph(b.node(g.pick("Relu", "HardSwish"), y) if g.chance() else y))
    y = g.node("If", _positive(g, x), then_branch=arms[0], else_branch=arms[1])
    return g.node("Conv", y, g.constant(g.normal(5, out, 3, 3, scale=0.1)))


def _limit(g: Graph, count: int) -> str:
    array = np.array(count, np.int64) if g.chance() else np.array([count], np.int64)
    return g.constant(array)


@case
def loop_counted(g):
    """A known trip count, with everything carried and collected."""
    g.opset = g.pick(11, 13, 16, 17, 19, 21)
    width, count = g.size(18), g.between(1, 6)
    carried, collected = g.between(0, 3), g.between(0, 2)
    carried = max(carried, 1 - collected)
    shapes = [(g.between(1, 4), width) for _ in range(carried)]
    rows = g.input(g.normal(count, width))
    first = [g.either(g.normal(*shape)) for shape in shapes]
    b = Body(g)
    number, condition = b.parameter(g.pick([], [1]) if g.chance(0.3) else [], T.INT64), b.parameter([], T.BOOL)
    held = [b.parameter(shape if g.chance() else None) for shape in shapes]
    row = b.node("Gather", rows, number, axis=0)
    row = b.node("Reshape", row, b.constant([1, width], np.int64))
    nexts = [_mix(b, g, b.node(g.pick("Add", "Mul"), value, row), width) for value in held]
    if carried > 1 and len(set(shapes)) == 1 and g.chance():
        nexts = [*held[1:], nexts[0]]
    slices = [_mix(b, g, g.pick(row, *nexts), width) for _ in range(collected)]
    goes_on = b.constant(True, np.bool_) if g.chance() else condition
    body = b.graph(goes_on, *nexts, *slices)
    begins = g.constant(np.array(True)) if g.chance() else ""
    made = g.node("Loop", _limit(g, count), begins, *first, outputs=carried + collected, body=body)
    return made if isinstance(made, tuple) else (made,)


@case
def loop_limit(g):
    """A trip count that the caller gives."""
    width, count = g.size(18), g.between(0, 5)
    x = g.input(g.normal(2, width))
    limit = g.input(np.array(count, np.int64) if g.chance() else np.array([count], np.int64))
    b = Body(g)
    b.parameter([], T.INT64), b.parameter([], T.BOOL)
    held = b.parameter([2, width])
    around = g.node("Abs", x)
    y = _mix(b, g, b.node("Add", held, around), width)
    goes_on = b.constant(True, np.bool_)
    return g.node("Loop", limit, g.pick("", g.constant(np.array(True))), x, body=b.graph(goes_on, y)), around


@case
def loop_condition(g):
    """Until a sum is large, or a number of iterations is reached."""
    width = g.size(18)
    x = g.input(np.abs(g.normal(2, width)) + np.float32(0.1))
    b = Body(g)
    b.parameter([], T.INT64), b.parameter([], T.BOOL)
    held, count = b.parameter([2, width]), b.parameter([])
    y = b.node("Add", held, x)
    go = b.node("Not", _positive(b, y, g.pick(2.0, 10.0, 40.0)))
    body = b.graph(go, y, b.node("Add", count, b.constant(1.0)))
    limit = g.pick("", g.constant(np.array(5, np.int64)), g.constant(np.array(2**63 - 1, np.int64)))
    begins = _positive(g, x, g.pick(-1.0, 20.0)) if g.chance() else g.constant(np.array(True))
    return g.node("Loop", limit, begins, x, g.constant(np.float32(0)), outputs=2, body=body)


@case
def loop_growing(g):
    """The carried value grows and a slice depends on the iteration: needs unrolling."""
    width, count = g.size(10), g.between(1, 5)
    x = g.input(g.normal(count + 1, width))
    b = Body(g)
    number, _ = b.parameter([], T.INT64), b.parameter([], T.BOOL)
    held = b.parameter([None, width])
    start = b.node("Unsqueeze", number, b.constant([0], np.int64))
    end = b.node("Add", start, b.constant([g.pick(1, 2)], np.int64))
    part = b.node("Slice", x, start, end, b.constant([0], np.int64))
    y = b.node("Concat", held, _mix(b, g, part, width), axis=0)
    # A condition computed from the iteration.
    go = b.node("Less", number, b.constant(g.between(1, 5), np.int64)) if g.chance() else b.constant(True, np.bool_)
    total = b.node("ReduceSum", y, b.constant([0], np.int64), keepdims=0)
    empty = g.constant(np.zeros((g.between(0, 1), width), np.float32))
    return g.node("Loop", _limit(g, count), "", empty, outputs=2, body=b.graph(go, y, total))


@case
def loop_sequence(g):
    """A sequence that is built by a loop and concatenated after it."""
    width, count = g.size(10), g.between(1, 5)
    x = g.input(g.normal(count, width))
    first = g.node("SequenceEmpty")
    b = Body(g)
    number, _ = b.parameter([], T.INT64), b.parameter([], T.BOOL)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(T.FLOAT, None))
    b.parameters.append(helper.make_value_info(b.fresh("p"), kind))
    row = _mix(b, g, b.node("Gather", x, number, axis=0), width)
    body = b.graph(b.constant(True, np.bool_), b.node("SequenceInsert", b.parameters[-1].name, row))
    parts = g.node("Loop", _limit(g, count), "", first, body=body)
    return g.node("ConcatFromSequence", parts, axis=g.pick(0, 1), new_axis=1)


def _scan(g: Graph, b: Body, steps: int, width: int, any_axis: bool = True):
    states, scans, collects = g.between(0, 2), g.between(1, 3), g.between(0, 2)
    collects = max(collects, 1 - states)
    state_shapes = [(g.between(1, 3), width) for _ in range(states)]
    held = [b.parameter(shape) for shape in state_shapes]
    slice_shapes = [g.pick((width,), (1, width), (2, 1, width)) for _ in range(scans)]
    slices = [b.parameter(shape) for shape in slice_shapes]
    rows = [b.node("Reshape", b.node("ReduceSum", s, keepdims=1) if len(shape) == 3 else s,
                   b.constant([1, 1 if len(shape) == 3 else width], np.int64))
            for s, shape in zip(slices, slice_shapes)]  # fmt: skip
    nexts = [_mix(b, g, b.node("Add", value, g.pick(*rows)), width) for value in held]
    shift = b.constant(g.normal(1, width))
    made = [_mix(b, g, b.node("Add", g.pick(*rows, *nexts), shift), width) for _ in range(collects)]
    axes = [g.between(0, len(shape)) if any_axis else 0 for shape in slice_shapes]
    wholes = [(*shape[:axis], steps, *shape[axis:]) for shape, axis in zip(slice_shapes, axes)]
    return b.graph(*nexts, *made), state_shapes, wholes, axes, collects


@case
def scan(g):
    g.opset = g.pick(9, 10, 11, 12, 13, 16, 17, 21)
    steps, width = g.between(1, 5), g.size(18)
    b = Body(g)
    body, states, wholes, axes, collects = _scan(g, b, steps, width)
    rank = 3
    from_end = g.opset >= 11
    out_axes = [g.between(-rank if from_end else 0, rank - 1) for _ in range(collects)]
    in_axes = [axis - len(whole) if from_end and g.chance(0.3) else axis for axis, whole in zip(axes, wholes)]
    operands = [g.either(g.normal(*shape)) for shape in states] + [g.input(g.normal(*whole)) for whole in wholes]
    made = g.node("Scan", *operands, outputs=len(states) + collects, body=body, num_scan_inputs=len(wholes),
                  scan_input_axes=in_axes if any(in_axes) or g.chance() else None,
                  scan_input_directions=[g.between(0, 1) for _ in wholes] if g.chance() else None,
                  scan_output_axes=out_axes if collects and g.chance(0.7) else None,
                  scan_output_directions=[g.between(0, 1) for _ in range(collects)] if collects and g.chance() else None)
    return made if isinstance(made, tuple) else (made,)


@case
def sequence_map(g):
    """A function of each part of a sequence. ONNX Runtime does not run those of several operands."""
    g.opset = 17
    parts, width = g.between(1, 4), g.size(18)
    b = Body(g)
    x = b.parameter((1, width))
    # ONNX Runtime does not run functions inside, such as HardSwish.
    body = b.graph(b.node(g.pick(*UNARY[:-1]), x))
    for info in body.output:  # ONNX Runtime does not infer what the sequence holds
        info.CopyFrom(helper.make_tensor_value_info(info.name, T.FLOAT, None))
    sequence = g.node("SplitToSequence", g.input(g.normal(parts, width)), axis=0)
    mapped = g.node("SequenceMap", sequence, body=body)
    return (g.node("ConcatFromSequence", mapped, axis=g.between(0, 1)),)


@case
def scan_of_batches(g):
    """Scan of opset 8."""
    g.opset = 8
    steps, width, batches = g.between(1, 4), g.size(18), g.between(1, 3)
    body, states, wholes, _, collects = _scan(g, Body(g), steps, width, any_axis=False)
    operands = [g.input(g.normal(batches, *shape)) for shape in [*states, *wholes]]
    lengths = g.constant(np.full(batches, steps, np.int64)) if g.chance(0.3) else ""
    made = g.node("Scan", lengths, *operands, outputs=len(states) + collects, body=body, num_scan_inputs=len(wholes),
                  directions=[g.between(0, 1) for _ in wholes] if g.chance() else None)  # fmt: skip
    return made if isinstance(made, tuple) else (made,)


def _gates(b, g, x: str, h: str, inputs: int, hidden: int, gates: int) -> list[str]:
    scale = 0.5 * hidden**-0.5
    total = b.node("Add", b.node("MatMul", x, b.constant(g.normal(inputs, gates * hidden, scale=scale))),
                   b.node("MatMul", h, b.constant(g.normal(hidden, gates * hidden, scale=scale))))  # fmt: skip
    total = b.node("Add", total, b.constant(g.normal(gates * hidden, scale=0.2)))
    if gates == 1:
        return [total]
    if g.opset < 13:
        return list(b.node("Split", total, outputs=gates, axis=-1))
    return list(b.node("Split", total, b.constant([hidden] * gates, np.int64), outputs=gates, axis=-1))


def _gru_cell(b, g, x, h, inputs, hidden):
    update, reset, new = _gates(b, g, x, h, inputs, hidden, 3)
    update, new = b.node("Sigmoid", update), b.node("Tanh", b.node("Mul", b.node("Sigmoid", reset), new))
    return b.node("Add", new, b.node("Mul", update, b.node("Sub", h, new)))


def _lstm_cell(b, g, x, h, c, inputs, hidden):
    i, f, o, n = _gates(b, g, x, h, inputs, hidden, 4)
    c = b.node("Add", b.node("Mul", b.node("Sigmoid", f), c), b.node("Mul", b.node("Sigmoid", i), b.node("Tanh", n)))
    return b.node("Mul", b.node("Sigmoid", o), b.node("Tanh", c)), c


@case
def gru_as_loop(g):
    steps, batch, inputs, hidden = g.between(1, 6), g.between(1, 3), g.size(10), g.size(18)
    x, first = g.input(g.normal(steps, batch, inputs)), g.input(g.normal(batch, hidden))
    b = Body(g)
    number, condition = b.parameter([], T.INT64), b.parameter([], T.BOOL)
    h = b.parameter([batch, hidden])
    y = _gru_cell(b, g, b.node("Gather", x, number, axis=0), h, inputs, hidden)
    return g.node("Loop", _limit(g, steps), "", first, outputs=2, body=b.graph(condition, y, y))


@case
def lstm_as_scan(g):
    steps, batch, inputs, hidden = g.between(1, 6), g.between(1, 3), g.size(10), g.size(18)
    first = [g.input(g.normal(batch, hidden)), g.constant(np.zeros((batch, hidden), np.float32))]
    operands = [*first, g.input(g.normal(steps, batch, inputs))]
    b = Body(g)
    h, c, x = b.parameter([batch, hidden]), b.parameter([batch, hidden]), b.parameter([batch, inputs])
    y, c = _lstm_cell(b, g, x, h, c, inputs, hidden)
    return g.node("Scan", *operands, outputs=3, body=b.graph(y, c, y), num_scan_inputs=1,
                  scan_input_directions=[g.between(0, 1)])  # fmt: skip


@case
def nested(g):
    """An If in a Loop in an If, and a Scan in a Loop; the innermost reads values of all enclosing graphs."""
    width, count = g.size(18), g.between(1, 4)
    x = g.input(g.normal(3, width) + g.pick(-0.3, 0.3))
    outer = Body(g)
    loop = Body(g)
    number, condition = loop.parameter([], T.INT64), loop.parameter([], T.BOOL)
    held = loop.parameter([3, width])
    arms = [Body(g), Body(g)]
    inner = loop.node("Tanh", loop.node("Add", held, x))
    graphs = [arm.graph(_mix(arm, g, g.pick(inner, held, x), width)) for arm in arms]
    y = loop.node("If", _positive(loop, inner), then_branch=graphs[0], else_branch=graphs[1])
    rows = Body(g)
    state, row = rows.parameter([width]), rows.parameter([width])
    total = rows.node("Add", state, rows.node("Mul", row, rows.node("Gather", inner, rows.constant(0, np.int64))))
    summed = rows.graph(total, total)
    last, sums = loop.node("Scan", loop.constant(np.zeros(width)), y, outputs=2, body=summed, num_scan_inputs=1)
    body = loop.graph(condition, loop.node("Add", loop.node("Tanh", sums), last), sums)
    values = outer.node("Loop", _limit(g, count), "", x, outputs=2, body=body)
    other = Body(g)
    other_sums = other.node("Mul", other.constant(np.ones((count, 3, width))), x)
    then, otherwise = outer.graph(*values), other.graph(other.node("Relu", x), other_sums)
    return g.node("If", _positive(g, x), outputs=2, then_branch=then, else_branch=otherwise)


@case
def in_function(g):
    """A local function with an If and a Loop, called twice; its graphs read its own values."""
    width, count = g.size(18), g.between(1, 4)
    x, y = g.input(g.normal(2, width)), g.input(g.normal(2, width))
    f = Body(g)
    loop = Body(g)
    loop.parameter([], T.INT64), loop.parameter([], T.BOOL)
    held = loop.parameter(None)
    then, otherwise = Body(g), Body(g)
    graphs = [then.graph(_mix(then, g, held, width)), otherwise.graph(otherwise.node("Sub", held, "b"))]
    value = loop.node("If", _positive(loop, held), then_branch=graphs[0], else_branch=graphs[1])
    body = loop.graph(loop.constant(True, np.bool_), loop.node("Add", value, "a"))
    limit = f.node("Constant", value=numpy_helper.from_array(np.array(count, np.int64)))
    result = f.node("Loop", limit, "", "a", body=body)
    opsets = [helper.make_opsetid("", g.opset)]
    g.functions = [helper.make_function("local", "Iterate", ["a", "b"], [result], f.nodes, opsets)]
    once = g.node("Iterate", x, y, domain="local")
    return g.node("Iterate", once, x, domain="local")
