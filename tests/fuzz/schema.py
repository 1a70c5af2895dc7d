"""The schemas of all operators, from ONNX Runtime: those of ONNX in every opset, and its own."""

from bisect import bisect_right
from collections import defaultdict

import ml_dtypes
import numpy as np
from onnxruntime.capi import _pybind_state

# Element types by their name in a schema, and how often to choose them. Strings, complex numbers and types below 8 bits
# are left to other tests.
DTYPES = {
    "float": (np.dtype("f4"), 12), "double": (np.dtype("f8"), 2), "float16": (np.dtype("f2"), 2),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 1), "int8": (np.dtype("i1"), 1), "int16": (np.dtype("i2"), 1),
    "int32": (np.dtype("i4"), 2), "int64": (np.dtype("i8"), 3), "uint8": (np.dtype("u1"), 2), "uint16": (np.dtype("u2"), 1),
    "uint32": (np.dtype("u4"), 1), "uint64": (np.dtype("u8"), 1), "bool": (np.dtype("?"), 1),
}  # fmt: skip

STANDARD, CLASSICAL, MICROSOFT = "", "ai.onnx.ml", "com.microsoft"

INT, FLOAT, STRING, TENSOR, FLOATS, INTS, STRINGS = "INT", "FLOAT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS"


class Schema:
    """One version of an operator."""

    def __init__(self, raw):
        self.domain, self.name, self.since, self.deprecated = raw.domain, raw.name, raw.since_version, raw.deprecated
        self.constraints = {c.type_param_str: list(c.allowed_type_strs) for c in raw.type_constraints}
        self.inputs = [(i.name, i.typeStr) for i in raw.inputs]
        self.outputs = [(o.name, o.typeStr, o.option.name == "Optional") for o in raw.outputs]
        self.attributes = {name: a.type.name for name, a in raw.attributes.items()}

    def has_input(self, name: str) -> bool:
        """Whether there is an operand of this name; other versions may have an attribute instead, or nothing."""
        return any(known == name for known, _ in self.inputs)

    def yields(self, at: int, dtype: np.dtype, chosen: dict[str, np.dtype]) -> bool:
        """Whether a result may have this element type, if some type parameters are chosen."""
        constraint = self.outputs[min(at, len(self.outputs) - 1)][1]
        return dtype == chosen[constraint] if constraint in chosen else dtype in self.dtypes(constraint)

    def dtypes(self, constraint: str) -> list[np.dtype]:
        """The element types of a type parameter, or of a type that is written out, repeated by how often to choose them."""
        allowed = self.constraints.get(constraint, [constraint])
        names = [text.removeprefix("tensor(").removesuffix(")") for text in allowed]
        return [DTYPES[name][0] for name in sorted(names) if name in DTYPES for _ in range(DTYPES[name][1])]


def _versions() -> dict[tuple[str, str], list[Schema]]:
    found = defaultdict(dict)
    for raw in _pybind_state.get_all_operator_schema():
        if raw.domain in (STANDARD, CLASSICAL, MICROSOFT):
            found[raw.domain, raw.name][raw.since_version] = Schema(raw)
    return {key: [versions[since] for since in sorted(versions)] for key, versions in sorted(found.items())}


VERSIONS = _versions()


def schema(domain: str, name: str, opset: int) -> Schema | None:
    """The version of an operator in an opset, if it has one that is not deprecated."""
    versions = VERSIONS.get((domain, name), [])
    at = bisect_right([version.since for version in versions], opset)
    return versions[at - 1] if at and not versions[at - 1].deprecated else None
