"""A small ONNX graph under construction, with random operands."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from parity.exact import ConvInteger

IR_VERSION = 8

# 1, odd, just below and above the widths of vectors and tiles.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 24, 31, 33)


class Graph:
    """Operands and nodes are added in order; `finish` closes the graph and evaluates it."""

    def __init__(self, random: np.random.Generator):
        self.random, self.inputs, self.opset = random, {}, 17
        # Otherwise it has operators that only ONNX Runtime has at this version.
        self.is_standard = True
        self.functions = []
        # The values that each setting takes in turn, its default first, by name.
        self.settings: dict[str, list[np.ndarray]] = {}
        # Whether ONNX's reference evaluator computes the expected outputs, instead of ONNX Runtime.
        self.reference, self._definitions = False, [ConvInteger]
        self._nodes, self._constants, self._sparse = [], [], []

    # Random choices.

    def size(self, below: int = 34) -> int:
        """A dimension."""
        return int(self.random.choice([size for size in SIZES if size < below]))

    def shape(self, rank: int | None = None, below: int = 18) -> tuple[int, ...]:
        """A shape of rank 1 to 4, or of the given rank."""
        return tuple(self.size(below) for _ in range(rank or self.between(1, 4)))

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.random.integers(low, high + 1))

    def chance(self, probability: float = 0.5) -> bool:
        """True with this probability."""
        return bool(self.random.random() < probability)

    def pick(self, *values):
        """One of the values."""
        return values[self.between(0, len(values) - 1)]

    def normal(self, *shape, scale: float = 1.0) -> np.ndarray:
        """Normal f32 values."""
        return (self.random.standard_normal(shape) * scale).astype(np.float32)

    def positive(self, *shape) -> np.ndarray:
        """f32 values between 0.1 and 3."""
        return self.random.uniform(0.1, 3, shape).astype(np.float32)

    def broadcastable(self, shape) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`: some dimensions 1, some leading ones dropped."""
        kept = shape[self.between(0, len(shape)) :] if self.chance(0.4) else shape
        return tuple(1 if self.chance(0.3) else size for size in kept)

    def use_reference(self, *definitions) -> None:
        """Let the reference evaluator compute the expected outputs, with further definitions of operators."""
        self.reference, self._definitions = True, [*self._definitions, *definitions]

    # Parts of the graph.

    def input(self, array: np.ndarray) -> str:
        """An input of the graph, fed with `array`."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = np.asarray(array)  # arithmetic on rank 0 gives scalars
        return name

    def constant(self, values, dtype=None) -> str:
        """An initializer."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def sparse(self, array: np.ndarray) -> str:
        """A sparse initializer, with indices of positions or of coordinates."""
        name, at = f"c{len(self._constants)}s{len(self._sparse)}", np.flatnonzero(array)
        values = numpy_helper.from_array(array.reshape(-1)[at], name)
        if self.chance():
            at = np.stack(np.unravel_index(at, array.shape), axis=1)
        indices = numpy_helper.from_array(at.astype(np.int64), f"{name}.indices")
        self._sparse.append(helper.make_sparse_tensor(values, indices, array.shape))
        return name

    def setting(self, *values, dtype=np.float32) -> str:
        """An input that is a setting: the model runs at each of these values."""
        name = f"set{len(self.settings)}"
        self.settings[name] = [np.asarray(value, dtype) for value in values]
        return name

    def ints(self, *values) -> str:
        """An int64 vector initializer: axes, shapes, pads."""
        return self.constant(values, np.int64)

    def either(self, array: np.ndarray) -> str:
        """An input or an initializer, so that kernels are tested with and without packed constants."""
        return self.constant(array) if self.chance() else self.input(array)

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        """Adds a node; returns its output's name, or a tuple of names."""
        names = tuple(f"n{len(self._nodes)}_{i}" for i in range(outputs))
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{len(self._nodes)}", **attributes))
        return names if outputs > 1 else names[0]

    def finish(self, outputs: tuple[str, ...]) -> tuple[onnx.ModelProto, list[np.ndarray]]:
        """The model, with output types as ONNX Runtime computes them, and those outputs."""
        defaults = {name: values[0] for name, values in self.settings.items()}
        inputs = [self._value(name, array) for name, array in (self.inputs | defaults).items()]
        untyped = [onnx.ValueInfoProto(name=name) for name in outputs]
        constants = self._constants + [numpy_helper.from_array(array, name) for name, array in defaults.items()]
        graph = helper.make_graph(
            self._nodes, "case", inputs, untyped, constants, sparse_initializer=self._sparse
        )
        opsets = [helper.make_opsetid("", self.opset)]
        classical = [node.op_type for node in self._nodes if node.domain == "ai.onnx.ml"]
        if classical:
            opsets.append(helper.make_opsetid("ai.onnx.ml", 5 if "TreeEnsemble" in classical else 3))
        if any(node.domain == "com.microsoft" for node in self._nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        opsets += [helper.make_opsetid(function.domain, 1) for function in self.functions]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=self.functions)
        if self.settings:
            helper.set_model_props(model, {"skipstone.settings": ", ".join(self.settings)})
        wanted = self.evaluated(model, list(outputs))
        del model.graph.output[:]
        model.graph.output.extend(self._value(name, array) for name, array in zip(outputs, wanted))
        if self.is_standard:
            onnx.checker.check_model(model)
        return model, wanted

    def set_to(self) -> list[dict[str, np.ndarray]]:
        """Values of all settings together: none for the defaults, then each further value that some setting takes."""
        longest = max(map(len, self.settings.values()), default=1)
        at = [{name: values[i % len(values)] for name, values in self.settings.items()} for i in range(1, longest)]
        return [{}, *at]

    def evaluated(self, model: onnx.ModelProto, outputs: list[str], settings=None) -> list[np.ndarray]:
        """The outputs of the model at these values of settings."""
        if self.reference:
            return ReferenceEvaluator(model, new_ops=self._definitions).run(outputs, self.inputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(outputs, self.inputs | (settings or {}))

    @staticmethod
    def _value(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
