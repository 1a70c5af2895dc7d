"""Families of graphs whose lengths only the run knows: bounds that are inputs, positions and boxes that are selected,
and what is computed of them. All of them run natively, so that packages hold them.
"""

import numpy as np

from parity.cases import AS_PACKAGES, CASES, case
from parity.graph import Graph

_before = set(CASES)


def _integer(g: Graph, *values) -> str:
    return g.input(np.array(values, np.int64))


def _bound(g: Graph, dim: int) -> int:
    """A bound of a slice, also beyond both ends."""
    return g.pick(g.between(0, dim), g.between(0, dim), -g.between(1, dim + 1), dim + 3, 2**63 - 1, -(2**63))


@case
def slice_between_inputs(g):
    shape = g.shape(g.between(1, 4), 10)
    axes = sorted(int(axis) for axis in g.random.permutation(len(shape))[: g.between(1, len(shape))])
    starts, ends = [_bound(g, shape[axis]) for axis in axes], [_bound(g, shape[axis]) for axis in axes]
    steps = [g.pick(1, 1, 2, 3, -1, -2, 99) for _ in axes]
    operands = [_integer(g, *starts), _integer(g, *ends), g.ints(*axes)]
    if g.chance(0.3):
        operands[g.between(0, 1)] = g.ints(*(starts if g.chance() else ends))
    if g.chance(0.7):
        operands.append(g.pick(g.ints, lambda *values: _integer(g, *values))(*steps))
    return g.node("Slice", g.input(g.normal(*shape)), *operands)


@case
def slice_from_zero(g):
    shape = g.shape(g.between(1, 4), 10)
    axis = g.between(0, len(shape) - 1)
    x = g.node("Slice", g.input(g.normal(*shape)), g.ints(0), _integer(g, _bound(g, shape[axis])), g.ints(axis))
    return g.node("Relu", g.node("Slice", x, _integer(g, g.between(-3, 3)), g.ints(99), g.ints(axis)))


@case
def top_k_of_an_input(g):
    shape = g.shape(g.between(1, 3), 18)
    axis = g.between(0, len(shape) - 1)
    k = _integer(g, g.between(0, shape[axis]))
    values, places = g.node("TopK", g.input(g.normal(*shape)), k, outputs=2, axis=axis, largest=g.between(0, 1))
    return values, places, g.node("Mul", values, g.constant(0.5, np.float32))


@case
def compressed(g):
    shape = g.shape(g.between(1, 3), 10)
    axis = g.pick(None, g.between(-len(shape), len(shape) - 1))
    dim = int(np.prod(shape)) if axis is None else shape[axis]
    condition = g.random.random(g.pick(dim, g.between(1, dim + 2))) < g.pick(0.5, 0.5, 0.0, 1.0)
    return g.node("Compress", g.input(g.normal(*shape)), g.input(condition), axis=axis)


def _mask(g: Graph, *shape) -> str:
    return g.input(g.random.random(shape) < g.pick(0.5, 0.5, 0.1, 0.0, 1.0))


@case
def positions_of_elements(g):
    dtype = g.pick(np.float32, np.int64, np.bool_, np.uint8)
    x = g.input(g.random.integers(0, 2, g.shape(g.between(1, 4), 9)).astype(dtype))
    found = g.node("NonZero", x)
    return found, g.node("Transpose", found, perm=[1, 0]), g.node("Shape", found), g.node("Size", found)


def _selected(g: Graph, rows: int, columns: int, mask: str | None = None) -> str:
    """Rows of a matrix, as `x[mask]` is exported."""
    mask = mask or _mask(g, rows)
    places = g.node("Transpose", g.node("NonZero", mask), perm=[1, 0])
    return g.node("GatherND", g.input(g.normal(rows, columns)), places)


@case
def reductions_of_selected_rows(g):
    rows, columns = g.size(), g.size()
    # Of nothing, ONNX Runtime has no extreme value.
    x = _selected(g, rows, columns, g.input(np.arange(rows) % g.pick(1, 2, 3) == 0))
    op = g.pick("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp")
    axes = g.pick([0], [0, 1], [1])
    if op == "ReduceSum":
        y = g.node(op, x, g.ints(*axes), keepdims=g.between(0, 1))
    else:
        y = g.node(op, x, axes=axes, keepdims=g.between(0, 1))
    return y, g.node("ArgMax", x, axis=g.between(0, 1), keepdims=g.between(0, 1))


@case
def functions_of_selected_rows(g):
    x = _selected(g, g.size() + 1, columns := g.size())
    y = g.node("Add", g.node("Sigmoid", x), g.constant(g.normal(columns)))
    z = g.node("MatMul", y, g.constant(g.normal(columns, g.size())))
    return z, g.node("Softmax", z, axis=g.pick(0, 1)), g.node("CumSum", y, g.constant(0, np.int64), reverse=g.between(0, 1))


@case
def similarities_of_selected_rows(g):
    x = _selected(g, g.size() + 1, g.size())
    y = g.node("Transpose", x, perm=[1, 0])
    return g.node("MatMul", x, y), g.node("MatMul", y, x)


@case
def shapes_of_selected_rows(g):
    """Shape arithmetic of exporters."""
    rows, columns = g.size() + 1, g.size()
    x = _selected(g, rows, columns, g.input(np.arange(rows) % g.pick(1, 2, 3) == 0))
    count = g.node("Gather", g.node("Shape", x), g.constant(0, np.int64))
    vector = g.node("Unsqueeze", count, g.ints(0))
    numbers = g.node("Range", g.constant(0, np.int64), count, g.constant(1, np.int64))
    shape = g.node("Concat", vector, g.ints(2), axis=0)
    return (
        numbers,
        g.node("Expand", g.constant(g.normal(1, 2)), shape),
        g.node("ConstantOfShape", shape),
        g.node("Reshape", x, g.ints(-1)),
        g.node("Reshape", x, g.ints(-1, 1, columns)),
        g.node("Reshape", x, g.node("Concat", vector, g.ints(1, -1), axis=0)),
        g.node("Flatten", x, axis=g.between(0, 2)),
        g.node("Unsqueeze", x, g.ints(g.pick(0, 1, 2))),
        g.node("Tile", g.constant(g.normal(2)), vector),
    )


@case
def best_of_selected_rows(g):
    rows = g.size()
    scores = g.node("Reshape", _selected(g, rows, 1), g.ints(-1))
    count = g.node("Shape", scores)
    k = g.node("Min", count, g.ints(g.between(1, 9)))
    best, places = g.node("TopK", scores, k, outputs=2)
    return best, places, g.node("Gather", g.input(g.normal(5, rows)), places, axis=1)


@case
def joined_selections(g):
    columns = g.size()
    parts = [_selected(g, g.size(), columns), _selected(g, g.size(), columns)]
    if g.chance():
        parts.insert(g.between(0, 2), g.input(g.normal(g.size(), columns)))
    y = g.node("Concat", *parts, axis=0)
    return y, g.node("Slice", y, g.ints(1), g.ints(-1), g.ints(0))


@case
def distinct_elements(g):
    x = g.random.integers(-4, 5, g.shape(g.between(1, 3), 9)).astype(g.pick(np.float32, np.int64, np.float64))
    axis = 0 if x.ndim == 1 and g.chance(0.3) else None
    return g.node("Unique", g.input(x), outputs=4, sorted=g.pick(None, 0, 1), axis=axis)


def _boxes(g: Graph, images: int, count: int) -> np.ndarray:
    corners = np.sort(g.random.uniform(0, 1, (images, count, 2, 2)), axis=2)
    return corners.reshape(images, count, 4).astype(np.float32)


@case
def boxes_without_overlap(g):
    images, classes, count = g.between(1, 2), g.between(1, 3), g.size()
    boxes, scores = g.input(_boxes(g, images, count)), g.input(g.positive(images, classes, count))
    operands = [g.pick(g.ints, lambda value: _integer(g, value))(g.pick(1, 3, 99, 2**40))]
    if g.chance(0.8):
        operands.append(g.either(np.array([g.pick(0.0, 0.1, 0.5, 1.0)], np.float32)))
        if g.chance():
            operands.append(g.either(np.array(g.pick(0.5, 1.5, 9.0), np.float32)))
    found = g.node("NonMaxSuppression", boxes, scores, *operands, center_point_box=g.between(0, 1))
    image = g.node("Squeeze", g.node("Slice", found, g.ints(2), g.ints(3), g.ints(1)), g.ints(1))
    return found, g.node("Gather", g.input(g.normal(count, 4)), image), g.node("Cast", found, to=1)


@case
def one_hot_of_a_computed_depth(g):
    mask = _mask(g, g.size())
    depth = g.node("Size", g.node("NonZero", mask))
    indices = g.input(g.random.integers(-3, 6, g.shape(1, 9)))
    depth = g.node("Max", depth, g.constant(1, np.int64))
    return g.node("OneHot", indices, depth, g.constant((0.0, 2.0), np.float32), axis=g.pick(0, 1, -1))


AS_PACKAGES |= set(CASES) - _before
