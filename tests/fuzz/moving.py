"""Recipes of operators that move, select, repeat or create elements."""

import numpy as np

from fuzz.draw import Draw, Operand
from fuzz.pointwise import CAST_CODES
from fuzz.recipes import microsoft, recipe

INDICES = (np.int64, np.int64, np.int32)


def ints(*values) -> np.ndarray:
    """An int64 vector."""
    return np.array(values, np.int64)


@recipe("Reshape", moves=True)
def reshape(d: Draw):
    shape = d.main()
    count = int(np.prod(shape))
    literal = d.chance(0.2) and "allowzero" in d.schema.attributes
    if not count:
        target = list(shape)
        literal = "allowzero" in d.schema.attributes
        d.need(literal or not shape)
    else:
        target, rest = [], count
        for _ in range(d.between(0, 3)):
            part = d.pick(*(n for n in range(1, rest + 1) if rest % n == 0))
            target.append(part)
            rest //= part
        if rest > 1 or d.chance(0.3):
            target.insert(d.between(0, len(target)), rest)
        if not literal:
            target = [0 if at < len(shape) and shape[at] == dim and d.chance(0.4) else dim for at, dim in enumerate(target)]
        if target and d.chance(0.5):
            target[d.between(0, len(target) - 1)] = -1
        if not literal:  # a 0 still means the dimension at its own place
            d.need(all(dim or at < len(shape) for at, dim in enumerate(target)))
    d.put("shape", ints(*target), shaping=True)
    d.set(allowzero=1 if literal else d.pick(None, 0))


@recipe("Flatten", moves=True)
def flatten(d: Draw):
    rank = len(d.main(0 if d.opset >= 11 else 1))
    d.set(0.8, axis=d.between(-rank if d.opset >= 11 else 0, rank))


@recipe("Squeeze", moves=True)
def squeeze(d: Draw):
    shape = d.main(0, 5, make=lambda s, t: d.values(tuple(1 if d.chance() else n for n in s), t))
    ones = [at for at, dim in enumerate(shape) if dim == 1]
    if d.chance(0.75):
        chosen = [ones[at] for at in d.axes(len(ones), negative=False)]
        d.need(chosen or d.schema.has_input("axes"))
        d.put("axes", ints(*(at - len(shape) if d.opset >= 11 and d.chance(0.3) else at for at in chosen)), shaping=True)


@recipe("Unsqueeze", moves=True)
def unsqueeze(d: Draw):
    rank = len(d.main(0, 3))
    grown = rank + d.between(1, 2)
    d.put("axes", ints(*d.axes(grown, grown - rank, grown - rank, d.opset >= 11)), shaping=True)


@recipe("Transpose", moves=True)
def transpose(d: Draw):
    rank = len(d.main(0, 5))
    d.set(0.8, perm=d.random.permutation(rank).tolist())


@recipe("Concat", moves=True)
def concat(d: Draw):
    shape = d.main(1, 4)
    first = d.operands.pop(d.schema.inputs[0][0])
    axis = d.axis(len(shape), d.opset >= 11)

    def other():
        dims = list(shape)
        dims[axis] = d.size() if d.chance(0.9) else 0
        return Operand(d.values(dims, d.dtype(0)))

    parts = first + [other() for _ in range(d.between(0, 3))]
    d.put_each(0, [parts[at] for at in d.random.permutation(len(parts))])
    d.set(axis=axis)


@recipe("Split", moves=True)
def split(d: Draw):
    shape = d.main(1, 4)
    axis = d.axis(len(shape), d.opset >= 11) if d.chance(0.8) else 0
    d.set(axis=axis)
    dim, count = shape[axis], d.between(1, 4)
    d.outputs = count
    if d.chance():
        cuts = sorted(d.between(0, dim) for _ in range(count - 1))
        sizes = np.diff([0, *cuts, dim])
        d.put("split", ints(*sizes), shaping=True)
    elif "num_outputs" in d.schema.attributes:
        d.need(dim >= count)
        d.set(num_outputs=count)
    else:
        d.need(dim % count == 0)


@recipe("Slice", moves=True)
def slice_(d: Draw):
    shape = d.main(1, 4)
    axes = d.axes(len(shape), 1, negative=d.opset >= 10)
    by_default = d.chance(0.25)
    if by_default:
        axes = list(range(d.between(1, len(shape))))
    edge = lambda dim: d.pick(d.between(-dim - 2, dim + 2), d.between(0, dim), 2**31 - 1, -(2**31) + 1, 2**63 - 1, -(2**63))
    edges = np.array([[edge(shape[axis]) for axis in axes] for _ in range(2)], np.int64)
    dtype = d.pick(*INDICES) if d.opset >= 10 else np.int64
    edges = np.clip(edges, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    d.put("starts", edges[0], bounded=True)
    d.put("ends", edges[1], bounded=True)
    if not by_default:
        d.put("axes", np.array(axes, dtype), shaping=True)
    if d.opset >= 10 and d.chance(0.6) and d.schema.has_input("steps"):
        steps = np.array([d.pick(1, 1, 2, 3, -1, -2) for _ in axes], dtype)
        # ONNX Runtime takes the largest end for the end of the way in either direction.
        d.need(not any(step < 0 and end >= 2**31 - 1 for step, end in zip(steps, edges[1])))
        d.put("steps", steps, bounded=True)


@recipe("Expand", moves=True)
def expand(d: Draw):
    shape = d.main()
    target = [d.size(5) if dim == 1 and d.chance() else dim if d.chance() else 1 for dim in shape]
    target = target[d.between(0, len(target)) :] if d.chance(0.2) else [d.size(4)] * d.between(0, 1) + target
    d.put("shape", ints(*target), shaping=True)


@recipe("Tile", moves=True)
def tile(d: Draw):
    shape = d.main(0, 4, below=9)
    d.put("repeats", ints(*(d.pick(1, 1, 2, 3, 0 if d.chance(0.2) else 1) for _ in shape)), shaping=True)


def pad(d: Draw):
    shape = d.main(1, 4)
    mode = d.pick("constant", "constant", "edge", "reflect", "wrap" if d.opset >= 19 else "edge")
    axes = list(range(len(shape)))
    if d.has("axes") and d.chance(0.3):
        axes = d.axes(len(shape), 1)
        d.put("axes", np.array(axes, d.pick(*INDICES)), shaping=True)

    def each(axis):
        dim = shape[axis]
        d.need(dim or mode == "constant")
        most = {"constant": 4, "edge": 4, "reflect": dim - 1, "wrap": dim}[mode]
        return d.between(0, min(4, most)) if d.chance(0.8) else -d.between(0, dim // 2)

    pads = [each(axis) for _ in range(2) for axis in axes]
    d.put("pads", ints(*pads), shaping=True)
    d.set(mode=mode if mode != "constant" or d.chance() else None)
    if mode == "constant":
        name = "value" if d.has("value") else "constant_value"
        d.maybe(name, lambda: d.values((), d.dtype(0)))


recipe("Pad", moves=True)(pad)
microsoft("Pad", moves=True)(pad)


@recipe("Gather", moves=True)
def gather(d: Draw):
    shape = d.main(1, 4)
    axis = d.axis(len(shape), True) if d.chance(0.8) else 0
    d.set(axis=axis)
    dim = shape[axis]
    indices = d.random.integers(-dim if d.opset >= 11 else 0, dim, d.shape(0, 2, 7)) if dim else np.zeros((0,))
    d.put("indices", np.asarray(indices, d.pick(*INDICES)))


@recipe("GatherElements", moves=True)
def gather_elements(d: Draw):
    shape = d.main(1, 4, empty=False)
    axis = d.axis(len(shape)) if d.chance(0.8) else 0
    d.set(axis=axis)
    dims = [d.between(1, dim) for dim in shape]
    dims[axis] = d.size(7)
    d.put("indices", np.asarray(d.random.integers(-shape[axis], shape[axis], dims), d.pick(*INDICES)))


@recipe("GatherND", moves=True)
def gather_nd(d: Draw):
    shape = d.main(1, 4, empty=False)
    batch = d.between(0, len(shape) - 1) if d.opset >= 12 and d.chance(0.4) else 0
    d.set(batch_dims=batch or None)
    width = d.between(1, len(shape) - batch)
    dims = shape[:batch] + d.shape(0, 2, 5, False)
    columns = [d.random.integers(-dim, dim, dims) for dim in shape[batch : batch + width]]
    d.put("indices", np.stack(columns, -1).astype(np.int64))


@recipe("ScatterElements", "Scatter")
def scatter_elements(d: Draw):
    shape = d.main(1, 3, below=9, empty=False)
    axis = d.axis(len(shape)) if d.chance(0.8) else 0
    d.set(axis=axis)
    reduction = d.pick("none", "none", "add", "mul", "max", "min") if "reduction" in d.schema.attributes else "none"
    d.need(d.dtype(0) != bool or reduction == "none")
    d.set(reduction=reduction if reduction != "none" else d.pick(None, "none"))
    dims = [d.between(1, dim) for dim in shape]
    rows = d.random.random([dims[at] if at != axis % len(shape) else shape[axis] for at in range(len(shape))]).argsort(axis)
    indices = np.take(rows, range(dims[axis]), axis)  # no index twice
    if reduction != "none":
        indices = d.random.integers(0, shape[axis], dims)
    if d.opset >= 11:
        indices = np.where(d.random.random(dims) < 0.3, indices - shape[axis], indices)
    d.put("indices", indices.astype(d.pick(*INDICES)))
    d.put("updates", d.values(dims, d.dtype(0)))


@recipe("ScatterND")
def scatter_nd(d: Draw):
    shape = d.main(1, 4, below=9, empty=False)
    reduction = d.pick("none", "add", "mul", "max", "min") if "reduction" in d.schema.attributes else "none"
    d.need(d.dtype(0) != bool or reduction == "none")
    d.set(reduction=reduction if reduction != "none" else None)
    width = d.between(1, len(shape))
    places = int(np.prod(shape[:width]))
    dims = d.shape(0, 2, 4, False)
    count = int(np.prod(dims))
    d.need(reduction != "none" or count <= places)
    flat = d.random.permutation(places)[:count] if reduction == "none" else d.random.integers(0, places, count)
    indices = np.stack(np.unravel_index(flat, shape[:width]), -1).reshape(*dims, width)
    indices = np.where(d.random.random(indices.shape) < 0.3, indices - np.array(shape[:width]), indices)
    d.put("indices", indices.astype(np.int64))
    d.put("updates", d.values(dims + shape[width:], d.dtype(0)))


@recipe("TensorScatter", moves=True)
def tensor_scatter(d: Draw):
    batch, length = d.between(1, 3), d.between(1, 9)
    new, mode = d.between(1, length), d.pick(None, "linear", "circular")
    inner = d.shape(1, 2, 6, False)
    axis = d.between(1, len(inner))
    dims = lambda n: (batch, *inner[: axis - 1], n, *inner[axis:][: len(inner) - axis + 1])
    past = d.values(dims(length), d.dtype(0))
    d.put(0, past)
    d.put("update", d.values(dims(new), d.dtype(0)))
    most = length - 1 if mode == "circular" else length - new
    d.maybe("write_indices", lambda: d.random.integers(0, most + 1, batch))
    d.set(mode=mode, axis=d.pick(axis, axis - past.ndim))


@recipe("DepthToSpace", "SpaceToDepth", moves=True)
def blocks(d: Draw):
    block, dtype = d.between(1, 3), d.dtype(0)
    n, c, h, w = d.between(1, 2), d.size(6), d.size(6), d.size(6)
    shape = (n, c * block**2, h, w) if d.schema.name == "DepthToSpace" else (n, c, h * block, w * block)
    d.put(0, d.values(shape, dtype))
    d.set(blocksize=block, mode=d.pick(None, "DCR", "CRD"))


@recipe("Trilu", moves=True)
def trilu(d: Draw):
    d.main(2, 4)
    d.maybe("k", lambda: np.array(d.between(-5, 5), np.int64))


microsoft("Trilu", moves=True)(trilu)


@recipe("EyeLike", moves=True)
def eye_like(d: Draw):
    d.main(2, 2, below=9)
    d.set(0.6, k=d.between(-4, 4))
    d.set(0.6, dtype=d.pick(1, 6, 7, 11, 10))


@recipe("Range", moves=True)
def range_(d: Draw):
    dtype = d.dtype(0)
    start, step, count = d.between(-9, 9), d.pick(1, 2, 3, -1, -2), d.between(0, 9)
    for name, value in (("start", start), ("limit", start + step * count + d.pick(0, 0, int(np.sign(step)))), ("delta", step)):
        d.put(name, np.array(value, dtype), shaping=True)


@microsoft("Range", moves=True)
def microsoft_range(d: Draw):
    range_(d)
    if d.chance(0.3):
        del d.operands["delta"]


@recipe("ConstantOfShape", moves=True)
def constant_of_shape(d: Draw):
    from onnx import numpy_helper

    d.put(0, ints(*d.shape()), shaping=True)
    d.set(0.7, value=numpy_helper.from_array(d.values((1,), d.pick("f4", "f8", "f2", "i8", "i4", "u1", "i1", "?")), "value"))


@recipe("Shape", "Size", moves=True)
def shape_of(d: Draw):
    rank = len(d.main())
    d.set(0.5, start=d.between(-rank - 1, rank + 1))
    d.set(0.5, end=d.between(-rank - 1, rank + 1))


@recipe("OneHot", moves=True)
def one_hot(d: Draw):
    depth = d.between(1, 9)
    indices = d.restrict(0, "i")
    shape = d.shape(0, 3, 7)
    d.put(0, d.random.integers(-depth - 1, depth + 2, shape).astype(indices))
    d.put("depth", np.array(depth, d.restrict("depth", "i")).reshape(d.pick((), (1,))), shaping=True)
    d.put("values", d.values((2,), d.dtype("values")))
    d.set(0.7, axis=d.between(-len(shape) - 1 if d.opset >= 11 or d.chance() else 0, len(shape)))


@recipe("ReverseSequence", moves=True)
def reverse_sequence(d: Draw):
    shape = d.main(2, 4, below=9, empty=False)
    time = d.pick(0, 1)
    d.put("sequence_lens", d.random.integers(1, shape[time] + 1, shape[1 - time]))
    d.set(time_axis=time, batch_axis=1 - time)


@recipe("Dropout", moves=True)
def dropout(d: Draw):
    d.main()
    d.maybe("ratio", lambda: np.array(0.5, d.dtype("ratio")) if d.schema.has_input("ratio") else 0.5)
    if d.opset >= 12 and "ratio" in d.operands:
        d.maybe("training_mode", lambda: np.array(False))
    d.outputs = d.pick(1, 1, 2) if d.opset >= 12 else 1  # before, it was not said what the mask is without training


@recipe("CenterCropPad", moves=True)
def center_crop_pad(d: Draw):
    shape = d.main(1, 4)
    axes = list(range(len(shape)))
    if d.chance():
        axes = d.axes(len(shape), 1, negative=False)
        d.set(axes=axes)
    d.put("shape", np.array([d.size() for _ in axes], d.pick(*INDICES)), shaping=True)


@recipe("Constant", moves=True)
def constant(d: Draw):
    from onnx import numpy_helper

    dtype = d.pick(*CAST_CODES)
    choices = {"value": numpy_helper.from_array(np.asarray(d.values(d.shape(), dtype)), "value")}
    if d.opset >= 12:
        choices |= {"value_int": 3, "value_ints": [3, 1, 2], "value_float": 0.5, "value_floats": [1.5, 2.0]}
    name = d.pick(*choices)
    d.set(**{name: choices[name]})


@recipe("Col2Im")
def col2im(d: Draw):
    axes = d.between(1, 3)
    d.by_reference = axes != 2
    block = [d.between(1, 3) for _ in range(axes)]
    strides, dilations = ([d.between(1, 3) for _ in range(axes)] for _ in range(2))
    pads = [d.between(0, 1) for _ in range(2 * axes)]
    image = [(b - 1) * l + 1 + d.between(0, 6) for b, l in zip(block, dilations)]
    count = [(image[i] + pads[i] + pads[axes + i] - (block[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(axes)]
    d.put(0, d.values((d.between(1, 2), d.between(1, 3) * int(np.prod(block)), int(np.prod(count))), d.dtype(0)))
    d.put("image_shape", ints(*image), shaping=True)
    d.put("block_shape", ints(*block), shaping=True)
    d.set(0.7, strides=strides if any(s > 1 for s in strides) else None)
    if "strides" not in d.attributes:
        d.need(all(s == 1 for s in strides))
    d.set(dilations=dilations, pads=pads)
