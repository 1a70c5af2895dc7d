"""Recipes of operators that compute each element by itself, and of those that compare or reduce them."""

import numpy as np

from fuzz.draw import Draw, Operand
from fuzz.recipes import microsoft, recipe

# Where functions are defined, and not too steep.
DOMAINS = {
    "Acos": (-1, 1), "Acosh": (1, 9), "Asin": (-1, 1), "Atanh": (-0.97, 0.97), "Cos": (-9, 9), "Cosh": (-4, 4),
    "Exp": (-9, 9), "Log": (0.01, 9), "Sin": (-9, 9), "Sinh": (-4, 4), "Sqrt": (0, 9), "Tan": (-1.4, 1.4),
}  # fmt: skip


@recipe(*DOMAINS)
def limited(d: Draw):
    low, high = DOMAINS[d.schema.name]
    margin = (high - low) / 50  # an earlier result may be rounded
    inside = lambda array: not array.size or (array >= low + margin).all() and (array <= high - margin).all()
    d.main(accept=inside, make=lambda shape, dtype: d.within(low, high, shape, dtype))


@recipe("Reciprocal")
def reciprocal(d: Draw):
    away = lambda array: not array.size or np.abs(array.astype(float)).min() > 0.1
    sign = lambda shape: np.where(d.random.random(shape) < 0.5, -1, 1)
    d.main(accept=away, make=lambda shape, dtype: np.asarray(d.within(0.1, 5, shape) * sign(shape)).astype(dtype))


@recipe("Abs", "Neg", "Identity", "Not", "Relu", "Trunc", moves=True)
def moved(d: Draw):
    d.main()


@recipe(
    "Asinh", "Atan", "Celu", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Selu",
    "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh",
)  # fmt: skip
def smooth(d: Draw):
    scale = d.pick(0.1, 1, 4, 30)
    d.main(make=lambda shape, dtype: d.values(shape, dtype, scale))


microsoft("Gelu", "QuickGelu")(smooth)


@recipe("Ceil", "Floor", "Round", "Sign", "IsNaN", "IsInf", "Shrink", "ThresholdedRelu", sharp=True, moves=True)
def stepped(d: Draw):
    def make(shape, dtype):
        array = d.values(shape, dtype)
        if array.dtype.kind == "f" and d.schema.name == "Round":
            array = np.asarray(np.round(array.astype(float) * 2) / 2).astype(dtype)  # halves are rounded to even
        if array.dtype.kind not in "biu" and d.schema.name.startswith("Is"):
            array = np.where(d.random.random(shape) < 0.4, d.pick(np.inf, -np.inf, np.nan), array).astype(dtype)
        return np.asarray(array)

    d.main(make=make)
    d.by_reference = d.schema.name == "Shrink" and d.dtype(0).kind in "iu"  # ONNX Runtime computes them in f32


@recipe("Clip", moves=True)
def clip(d: Draw):
    d.main()
    dtype = d.dtype(0)
    low, high = (np.array(value).astype(dtype) for value in (d.pick(-2, -0.5, 0, 1), d.pick(1, 2, 0.5)))
    d.maybe("min", lambda: low, 0.7)
    d.maybe("max", lambda: high, 0.7)


def operand_beside(d: Draw, shape, make, index: int = 1, both_ways: bool = True):
    """A second operand that broadcasts with the first, which broadcasts too if both ways are allowed."""
    other = d.broadcastable(shape)
    if both_ways and d.chance(0.25):
        grown = [d.size(5) if dim == 1 and len(other) else dim for dim in shape]
        other = (d.size(4),) * d.between(0, 1) + tuple(grown)
    if "broadcast" in d.schema.attributes:
        other = shape
    d.put(index, make(other, d.dtype(index)))


COMPARISONS = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")


@recipe("Add", "Sub", "Mul", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", *COMPARISONS)
def arithmetic(d: Draw):
    d.sharp = d.schema.name in COMPARISONS
    whole = d.schema.name.startswith("Bitwise")
    make = d.whole if whole else d.values
    shape = d.main(make=make)
    again = d.reuse(0, 4, 1, lambda array: _broadcast(array.shape, shape))
    if again:
        d.operands[d.schema.inputs[1][0]] = [again]
    else:
        operand_beside(d, shape, make)


def _broadcast(left, right) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(left), reversed(right)))


@recipe("Div")
def div(d: Draw):
    shape = d.main()

    def make(shape, dtype):
        array = d.within(0.3, 5, shape, dtype)
        array = np.where(array == 0, 1, array)
        negative = np.dtype(dtype).kind != "u" and d.chance()
        return np.asarray(np.where(d.random.random(shape) < 0.5, -array, array) if negative else array).astype(dtype)

    operand_beside(d, shape, make)


@recipe("Mod", sharp=True)
def mod(d: Draw):
    shape = d.main()
    floats = d.dtype(0).kind not in "iu"
    d.set(fmod=1 if floats else d.between(0, 1))

    def make(shape, dtype):
        array = np.asarray(d.within(1, 5, shape, dtype))
        return np.asarray(-array if dtype.kind != "u" and d.chance(0.4) else array).astype(dtype)

    operand_beside(d, shape, make)


@recipe("Pow")
def power(d: Draw):
    integers = d.chance(0.3)
    d.restrict(0, "iu" if integers and d.opset >= 12 else "fV")
    # What integers do beyond their range is not defined.
    small = lambda array: array.dtype.kind in "iu" and (np.abs(array.astype(float)) < 4).all()
    positive = lambda array: small(array) or not array.size or (array > 0.05).all() and (array < 9).all()
    shape = d.main(accept=positive, make=lambda s, t: d.within(-3, 4, s, t) if t.kind in "iu" else d.within(0.1, 3, s, t))
    exponents = d.dtype(1) if d.chance(0.4) else d.like(1, d.dtype(0))
    whole = d.chance() or d.dtype(0).kind in "iu"
    operand_beside(d, shape, lambda s, t: d.within(0, 4, s, "i4" if whole else "f4").astype(exponents))


@recipe("BitShift")
def bit_shift(d: Draw):
    shape = d.main(make=d.whole)
    d.set(direction=d.pick("LEFT", "RIGHT"))
    operand_beside(d, shape, lambda s, t: d.within(0, t.itemsize * 8 - 1, s, t))


@recipe("BitwiseNot")
def bitwise_not(d: Draw):
    d.main(make=d.whole)


@recipe("BitCast", sharp=True)
def bit_cast(d: Draw):
    d.main(make=lambda s, t: d.values(s, t))
    size = d.dtype(0).itemsize
    code = {"f4": 1, "u1": 2, "i1": 3, "u2": 4, "i2": 5, "i4": 6, "i8": 7, "f8": 11, "u4": 12, "u8": 13}
    d.set(to=d.pick(*(number for name, number in code.items() if np.dtype(name).itemsize == size)))


@recipe("PRelu")
def prelu(d: Draw):
    shape = d.main(1, 4)
    if d.opset < 7:
        d.put(1, d.values((d.pick(1, shape[1 if len(shape) > 1 else 0]),), d.dtype(1)))
    else:
        operand_beside(d, shape, d.values, both_ways=False)


@recipe("Max", "Min", "Sum", "Mean")
def each(d: Draw):
    shape = d.main()
    first = d.operands.pop(d.schema.inputs[0][0])
    same = d.opset < 8
    others = [d.values(shape if same else d.broadcastable(shape), d.dtype(0)) for _ in range(d.pick(0, 1, 1, 2, 3))]
    operands = first + [Operand(other) for other in others]
    d.put_each(0, [operands[at] for at in d.random.permutation(len(operands))])


@recipe("Where", moves=True)
def where(d: Draw):
    shape = d.shape()
    d.put(0, d.values(d.broadcastable(shape), bool))
    again = d.reuse(0, 4, 1)
    if again:
        d.operands["X"] = [again]
        shape = again.array.shape
        d.put(0, d.values(d.broadcastable(shape), bool))
    else:
        d.put("X", d.values(shape, d.dtype("X")))
    d.put("Y", d.values(d.broadcastable(shape), d.dtype("X")))


CAST_CODES = {"f4": 1, "u1": 2, "i1": 3, "u2": 4, "i2": 5, "i4": 6, "i8": 7, "?": 9, "f2": 10, "f8": 11, "u4": 12, "u8": 13}


def _castable(d: Draw, to: str):
    """Values that every type can hold, so that no cast is undefined."""

    def make(shape, dtype):
        if dtype.kind in "iub":
            return d.within(0, 9, shape, "i4").astype(dtype)
        low = 0 if np.dtype(to).kind == "u" else -40
        return d.within(low, 40, shape, dtype)

    return make


@recipe("Cast", sharp=True)
def cast(d: Draw):
    to = d.pick(*CAST_CODES)

    def fits(array):
        ends = (array.min(), array.max()) if array.size else (0, 0)
        low = 0 if np.dtype(to).kind == "u" else -99
        return array.dtype.kind in "bf" and low <= ends[0] and ends[1] <= 99

    d.main(make=_castable(d, to), accept=fits)
    d.set(to=CAST_CODES[to])


@recipe("CastLike", sharp=True)
def cast_like(d: Draw):
    to = d.dtype(1)
    d.need(to.name != "bfloat16")
    fits = lambda array: array.dtype.kind == "b"
    d.main(make=_castable(d, to.str.lstrip("<|") if to != bool else "?"), accept=fits)
    d.put(1, d.values(d.shape(), to))


# Reductions and comparisons along axes.

@recipe(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduction(d: Draw):
    # The mean of nothing is undefined, and so are sums and products that do not fit their type.
    ends = {"ReduceLogSum": (1, 4), "ReduceProd": (-1, 1), "ReduceSumSquare": (-4, 4)}.get(d.schema.name)
    if d.schema.name.startswith("ReduceLogSum"):
        d.restrict(0, "fV")  # ONNX Runtime rounds integers between the steps
    held = lambda array: not ends or not array.size or (array > ends[0]).all() and (array < ends[1]).all()
    large = lambda array: array.dtype.kind in "iu" and array.itemsize >= 4
    fits = lambda array: not large(array) or np.abs(array.astype(float)).sum() < np.iinfo(array.dtype).max
    inside = lambda array: held(array) and fits(array)
    shape = d.main(accept=inside, empty=d.schema.name != "ReduceMean", make=ends and (lambda s, t: d.within(*ends, s, t)))
    if d.chance(0.8):
        axes = d.axes(len(shape), 0 if d.schema.has_input("axes") else 1, negative=d.opset >= 11)
        d.put("axes", np.array(axes, np.int64), shaping=True)


@recipe("ArgMax", "ArgMin", sharp=True)
def arg_max(d: Draw):
    shape = d.main(1, 4, empty=False, make=lambda s, t: d.within(-4, 4, s, "i4").astype(t) if d.chance() else d.values(s, t))
    d.set(0.8, axis=d.axis(len(shape), d.opset >= 11))


@recipe("Softmax", "LogSoftmax", "Hardmax")
def softmax(d: Draw):
    d.sharp = d.schema.name == "Hardmax"
    scale = d.pick(1, 1, 20)
    shape = d.main(1, 4, make=lambda s, t: d.values(s, t, scale))
    d.set(0.7, axis=d.axis(len(shape), d.opset >= 11))
    if "axis" not in d.attributes:
        d.need(len(shape) > 1 or d.opset >= 13)


@recipe("CumSum", "CumProd")
def cumulative(d: Draw):
    shape = d.main(1, 4)
    d.put("axis", np.array(d.axis(len(shape)), d.pick(np.int32, np.int64)), shaping=True)


@recipe("TopK", sharp=True, moves=True)
def top_k(d: Draw):
    distinct = lambda s, t: d.random.permutation(int(np.prod(s))).reshape(s).astype(t) if np.prod(s) < 120 else d.values(s, t)
    shape = d.main(1, 4, make=distinct)
    axis = d.axis(len(shape), d.opset >= 10) if d.chance(0.8) else -1
    if axis != -1:
        d.set(axis=axis)
    count = d.between(0 if d.chance(0.1) else 1, shape[axis])
    d.put("k" if "k" in d.schema.attributes else 1, np.array([count], np.int64), bounded=True)
    d.outputs = 2


@recipe("NonZero", sharp=True)
def non_zero(d: Draw):
    d.main(1, 4, make=lambda s, t: d.within(0, 2, s, "i4").astype(t))


@recipe("Unique", sharp=True)
def unique(d: Draw):
    shape = d.main(0, 3, below=9, make=lambda s, t: d.within(0, 4, s, "i4").astype(t), empty=False)
    if shape:
        d.set(0.6, axis=d.axis(len(shape)))
    d.outputs = d.between(1, 4)


@recipe("Compress", moves=True)
def compress(d: Draw):
    shape = d.main(1, 4)
    axis = d.axis(len(shape), d.opset >= 11) if d.chance(0.7) else None
    d.set(axis=axis)
    most = int(np.prod(shape)) if axis is None else shape[axis]
    d.put("condition", d.values((d.between(1, max(1, most)),), bool), bounded=True)


@recipe("Einsum")
def einsum(d: Draw):
    names = "ijkbn"[: d.between(1, 4)]
    sizes = {name: d.size(7) for name in names}
    term = lambda: d.random.permutation(list(names))[: d.between(0, len(names))]
    terms = ["".join(d.pick(*names) if d.chance(0.2) else name for name in term()) for _ in range(d.between(1, 3))]
    dots = d.chance(0.3)
    dtype = d.dtype(0)
    used = [name for name in names if any(name in term for term in terms)]
    kept = [used[at] for at in d.random.permutation(len(used))[: d.between(0, len(used))]]
    space = d.pick("", "", " ")
    batch = d.shape(0, 2, 4, False)
    operands = []
    for at, term in enumerate(terms):
        lead = () if not dots else batch[d.between(0, len(batch)) :] if at else batch
        operands.append(d.values(lead + tuple(sizes[name] for name in term), dtype))
    written = f",{space}".join(("..." if dots else "") + term for term in terms)
    if d.chance(0.85):
        written += f"{space}->{space}" + ("..." if dots else "") + "".join(kept)
    d.need(written)
    d.set(equation=written)
    d.put_each(0, operands)


@recipe("Det")
def determinant(d: Draw):
    n = d.between(1, 4)
    d.put(0, d.values((*d.shape(0, 2, 5, False), n, n), d.dtype(0)))
