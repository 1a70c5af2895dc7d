"""A random node under construction: its recipe chooses shapes and operands, its schema the element types, and which of
them are operands or attributes in this version.
"""

from dataclasses import dataclass, field

import numpy as np

from fuzz.schema import Schema

# 1, odd sizes, and sizes around the widths of vectors.
SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 9, 16, 17)


class Retry(Exception):
    """The operator has no valid node for what has been chosen."""


@dataclass
class Value:
    """A value of the graph: what it holds, and where it is from."""

    name: str
    array: np.ndarray
    # Whether every correct implementation computes the same bits, so that operators with steps may read it.
    exact: bool = True


@dataclass
class Operand:
    """An array for a new input or constant, or a value of an earlier node."""

    array: np.ndarray
    value: Value | None = None
    # Whether it decides the shape of the result, so that it is nearly always a constant.
    shaping: bool = False
    # Whether the result has a largest shape whatever the operand is, so that it may as well be an input.
    bounded: bool = False


@dataclass
class Draw:
    """Random choices for a node of an operator."""

    random: np.random.Generator
    schema: Schema
    opset: int
    # Results of earlier nodes.
    given: list[Value]
    # Whether the result jumps where operands hardly differ, so that it only reads values without rounding.
    sharp: bool = False
    dtypes: dict[str, np.dtype] = field(default_factory=dict)
    operands: dict[str, list[Operand]] = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)
    outputs: int = 1
    # Results in between that nobody reads.
    unread: tuple[int, ...] = ()
    # Whether the reference evaluator knows better than ONNX Runtime.
    by_reference: bool = False

    # Choices.

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.random.integers(low, high + 1)) if low <= high else self._no(f"{low} > {high}")

    def chance(self, probability: float = 0.5) -> bool:
        """True with this probability."""
        return bool(self.random.random() < probability)

    def pick(self, *values):
        """One of the values."""
        return values[self.between(0, len(values) - 1)]

    def size(self, below: int = 18) -> int:
        """A dimension."""
        return self.pick(*(size for size in SIZES if size < below))

    def shape(self, low: int = 0, high: int = 4, below: int = 18, empty: bool = True) -> tuple[int, ...]:
        """A shape whose rank is between `low` and `high`; rarely, if `empty`, a dimension is 0."""
        dims = [self.size(below) for _ in range(self.between(low, high))]
        while np.prod(dims) > 5000:
            dims[int(np.argmax(dims))] = self.size(4)
        if empty and dims and self.chance(0.04):
            dims[self.between(0, len(dims) - 1)] = 0
        return tuple(dims)

    def axis(self, rank: int, negative: bool = True) -> int:
        """An axis, counted from either end."""
        axis = self.between(0, rank - 1)
        return axis - rank if negative and self.chance(0.4) else axis

    def axes(self, rank: int, least: int = 0, most: int | None = None, negative: bool = True) -> list[int]:
        """Distinct axes in any order."""
        chosen = self.random.permutation(rank)[: self.between(least, rank if most is None else min(most, rank))]
        return [int(axis) - rank if negative and self.chance(0.3) else int(axis) for axis in chosen]

    def broadcastable(self, shape) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`."""
        kept = shape[self.between(0, len(shape)) :] if self.chance(0.4) else shape
        return tuple(1 if self.chance(0.3) else size for size in kept)

    def _no(self, reason: str):
        raise Retry(f"{self.schema.name}: {reason}")

    def need(self, condition) -> None:
        """Gives up this node unless the condition holds."""
        if not condition:
            self._no("not possible")

    # Element types and values.

    def dtype(self, operand: int | str = 0) -> np.dtype:
        """The element type of an operand, chosen on first use."""
        constraint = self._type_of(operand)
        if constraint not in self.dtypes:
            choices = self.schema.dtypes(constraint)
            self.need(choices)
            self.dtypes[constraint] = self.pick(*choices)
        return self.dtypes[constraint]

    def restrict(self, operand: int | str, kinds: str) -> np.dtype:
        """Chooses the element type of an operand among `kinds` of NumPy."""
        constraint = self._type_of(operand)
        if constraint not in self.dtypes:
            choices = [dtype for dtype in self.schema.dtypes(constraint) if dtype.kind in kinds]
            self.need(choices)
            self.dtypes[constraint] = self.pick(*choices)
        self.need(self.dtypes[constraint].kind in kinds)
        return self.dtypes[constraint]

    def like(self, operand: int | str, dtype) -> np.dtype:
        """Chooses this element type for an operand if the schema allows it, otherwise any."""
        constraint = self._type_of(operand)
        if constraint not in self.dtypes and np.dtype(dtype) in self.schema.dtypes(constraint):
            self.dtypes[constraint] = np.dtype(dtype)
        return self.dtype(operand)

    def _type_of(self, operand: int | str) -> str:
        if isinstance(operand, int):
            return self.schema.inputs[min(operand, len(self.schema.inputs) - 1)][1]
        return next((kind for name, kind in self.schema.inputs if name == operand), "tensor(float)")

    def values(self, shape, dtype=np.float32, scale: float = 1.0) -> np.ndarray:
        """Values of ordinary size: multiples of 1/16 for floats, so that most steps lie between them."""
        dtype = np.dtype(dtype)
        if dtype == bool:
            return self.random.random(shape) < 0.5
        if dtype.kind in "iu":
            low = -9 if dtype.kind == "i" else 0
            return self.random.integers(low, 10, shape).astype(dtype)
        return np.asarray(np.round(self.random.standard_normal(shape) * scale * 16) / 16).astype(dtype)

    def within(self, low: float, high: float, shape, dtype=np.float32) -> np.ndarray:
        """Values between two ends."""
        dtype = np.dtype(dtype)
        if dtype.kind in "iu":
            low, high = int(np.ceil(low)), int(np.floor(high))
            return self.random.integers(max(low, 0) if dtype.kind == "u" else low, high + 1, shape).astype(dtype)
        return np.asarray(self.random.uniform(low, high, shape)).astype(dtype)

    def whole(self, shape, dtype) -> np.ndarray:
        """Integers over the whole range of their type."""
        limits = np.iinfo(dtype)
        return np.asarray(self.random.integers(limits.min, limits.max, shape, dtype, endpoint=True), dtype)

    # Operands and attributes.

    def reuse(self, low: int, high: int, operand: int | str = 0, accept=lambda array: True) -> Operand | None:
        """Mostly, an earlier result that an operand can be: of a possible type, with a rank between `low` and `high`."""
        constraint = self._type_of(operand)
        chosen = self.dtypes.get(constraint)
        allowed = [chosen] if chosen else self.schema.dtypes(constraint)
        for at in self.random.permutation(len(self.given)):
            value = self.given[at]
            fits = value.array.dtype in allowed and low <= value.array.ndim <= high and (value.exact or not self.sharp)
            if fits and accept(value.array) and self.chance(0.85):
                self.dtypes[constraint] = value.array.dtype
                return Operand(value.array, value)
        return None

    def main(self, low: int = 0, high: int = 4, below: int = 18, make=None, **limits) -> tuple[int, ...]:
        """The first operand: an earlier result, or new values, by default ordinary ones. Returns its shape."""
        empty = limits.pop("empty", True)
        operand = self.reuse(low, high, 0, **limits)
        if operand is None:
            dtype, shape = self.dtype(0), self.shape(low, high, below, empty)
            operand = Operand((make or self.values)(shape, dtype))
        self.need(empty or operand.array.size)
        self.operands[self.schema.inputs[0][0]] = [operand]
        return operand.array.shape

    def put(self, name: str | int, array, shaping: bool = False, bounded: bool = False) -> None:
        """An operand or, in versions where it is one, an attribute; nothing in versions that have neither."""
        name = self.schema.inputs[name][0] if isinstance(name, int) else name
        if self.schema.has_input(name):
            self.operands[name] = [Operand(np.asarray(array), shaping=shaping, bounded=bounded)]
        elif name in self.schema.attributes:
            self.attributes[name] = as_attribute(self.schema.attributes[name], array)

    def put_each(self, name: str | int, operands) -> None:
        """The operands of a variadic input."""
        name = self.schema.inputs[name][0] if isinstance(name, int) else name
        self.operands[name] = [o if isinstance(o, Operand) else Operand(np.asarray(o)) for o in operands]

    def maybe(self, name: str, make, probability: float = 0.5, shaping: bool = False) -> bool:
        """Mostly an optional operand; returns whether it is there."""
        there = self.has(name) and self.chance(probability)
        if there:
            self.put(name, make(), shaping)
        return there

    def has(self, name: str) -> bool:
        """Whether this version has an operand or attribute of this name."""
        return self.schema.has_input(name) or name in self.schema.attributes

    def set(self, probability: float = 1.0, **attributes) -> None:
        """Attributes, those that this version has."""
        for name, value in attributes.items():
            if name in self.schema.attributes and value is not None and self.chance(probability):
                self.attributes[name] = value


def as_attribute(kind: str, value):
    """A value as an attribute of this kind."""
    array = np.asarray(value)
    match kind:
        case "INT":
            return int(array.flat[0])
        case "FLOAT":
            return float(array.flat[0])
        case "INTS":
            return [int(item) for item in array.flat]
        case "FLOATS":
            return [float(item) for item in array.flat]
        case _:
            return value
