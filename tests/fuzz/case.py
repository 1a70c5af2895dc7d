"""A random graph: nodes of random operators in a chain, each with the values that ONNX Runtime computes for it.

Nodes are evaluated one at a time and without optimizations, so that the expected values depend on the definitions of the
operators, not on what ONNX Runtime makes of their chain. Where it refuses a node, ONNX's reference evaluator decides.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fuzz import classical, layers, moving, pointwise, quantized, windows  # noqa: F401: they register their recipes
from fuzz.draw import Draw, Operand, Retry, Value
from fuzz.recipes import MOVES, RECIPES, SHARP
from fuzz.schema import CLASSICAL, MICROSOFT, STANDARD, VERSIONS, Schema, schema

OPSETS = (6, 26)
# The newest format that ONNX Runtime reads.
IR_VERSION = 10

# Operators without a recipe.
WITHOUT = {
    # Other tests cover them, or nothing here runs them: text, sequences, blocks, random numbers, files.
    "Bernoulli", "If", "ImageDecoder", "Loop", "Multinomial", "Optional", "OptionalGetElement", "OptionalHasElement",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "RegexFullMatch", "Scan", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
    "SplitToSequence", "ConcatFromSequence", "StringConcat", "StringNormalizer", "StringSplit", "CategoryMapper",
    "DictVectorizer", "ZipMap", "CausalConvWithState", "LinearAttention", "SwiGLU", "Crop", "DynamicSlice", "ImageScaler",
    "CastMap",
    # ONNX has dropped them before version 1.0.
    "Affine", "ParametricSoftplus", "Scale", "ScaledTanh",
    # Without a kernel for CPUs.
    "ATen", "DisentangledAttention_TRT", "EfficientNMS_TRT", "GRUUnit", "GivenTensorFill", "MemcpyFromHost", "MemcpyToHost",
    "MultilevelCropAndResize_TRT", "PyramidROIAlign_TRT",
}  # fmt: skip

# Where ONNX's reference evaluator does not follow the specification, or only for the defaults.
UNTRUSTED = {
    "AveragePool", "CenterCropPad", "GlobalMaxPool", "GRU", "Hardmax", "LRN", "LSTM", "LpNormalization", "LpPool", "MaxPool",
    "OneHot", "QLinearConv", "QLinearMatMul", "RNN", "Resize", "ScatterElements", "Softplus", "Squeeze",
}  # fmt: skip

# Where it takes seconds for an ordinary operand.
SLOW = {"AffineGrid", "DeformConv", "GridSample", "RoiAlign", "Upsample"}

# Values of attributes that recipes leave to chance, by name.
ATTRIBUTES = {
    "alpha": (0.5, 1.5, 0.25), "beta": (0.5, 0.75), "gamma": (1.2,), "bias": (0.3, 1.0), "lambd": (1.0, 0.25),
    "epsilon": (1e-5, 1e-3, 0.1), "keepdims": (0, 1), "noop_with_empty_axes": (0, 1), "select_last_index": (0, 1),
    "exclusive": (0, 1), "reverse": (0, 1), "largest": (0, 1), "sorted": (1,), "p": (1, 2, 3), "ceil_mode": (0, 1),
    "count_include_pad": (0, 1), "storage_order": (0, 1), "align_corners": (0, 1), "approximate": ("none", "tanh"),
    "upper": (0, 1), "detect_negative": (0, 1), "detect_positive": (0, 1), "interleaved": (0, 1),
    "linear_before_reset": (0, 1), "input_forget": (0, 1), "onesided": (0, 1), "periodic": (0, 1), "saturate": (1,),
}  # fmt: skip


def operators() -> list[tuple[str, str]]:
    """The operators to draw from."""
    return [key for key in sorted(RECIPES) if key in VERSIONS]


def missing() -> list[str]:
    """Operators that need a recipe, so that this module covers new ones."""
    named = [key for key in VERSIONS if key[0] in (STANDARD, CLASSICAL) and key not in RECIPES and key[1] not in WITHOUT]
    return [name for domain, name in named if any(not version.deprecated for version in VERSIONS[domain, name])]


@dataclass
class Node:
    """A node with its operands, of which those with an array belong to it alone."""

    proto: onnx.NodeProto
    # The new inputs and constants by name.
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    read: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    # Whether ONNX Runtime computed the results, not the reference evaluator.
    runtime: bool = True

    def own(self) -> list[np.ndarray]:
        """The arrays of new inputs and constants."""
        return [array for held in (self.inputs, self.initializers, self.constants) for array in held.values()]


@dataclass
class Case:
    """A graph, and what it computes."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    wanted: dict[str, np.ndarray]
    nodes: list[Node]


class Maker:
    """Makes the case of a number."""

    def __init__(self, seed: int, number: int, only: list[str] | None = None, open_length: float = 0.0):
        """`open_length` is how often to add a result whose length depends on data, so that nothing can be planned."""
        self.random = np.random.default_rng([seed, number])
        self.open_length = open_length
        self.nodes: list[Node] = []
        self.count = 0
        self.choices = [key for key in operators() if not only or key[1] in only]
        low, high = OPSETS
        of_standard, of_classical = int(self.random.integers(low, high + 1)), int(self.random.integers(1, 6))
        self.opsets = {STANDARD: of_standard, CLASSICAL: of_classical, MICROSOFT: 1}

    def make(self) -> Case | None:
        """The case; None if no valid node was found."""
        wanted = int(self.random.choice([1, 1, 1, 2, 2, 3, 4]))
        for _ in range(8 * wanted):
            if len(self.nodes) == wanted:
                break
            domain, name = self.choices[self.random.integers(len(self.choices))]
            version = schema(domain, name, self.opsets[domain])
            if version is not None:
                self._try(version)
        return self._finish() if self.nodes else None

    def _name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def _try(self, version: Schema) -> None:
        """Adds a node of an operator, if it is valid."""
        key = (version.domain, version.name)
        given = [value for node in self.nodes for value in node.results]
        d = Draw(self.random, version, self.opsets[version.domain], given, sharp=key in SHARP)
        try:
            RECIPES[key](d)
        except Retry:
            return
        for name, kind in version.attributes.items():
            if name in ATTRIBUTES and name not in d.attributes and d.chance():
                value = d.pick(*ATTRIBUTES[name])
                if isinstance(value, str) == (kind == "STRING"):
                    d.attributes[name] = value
        node = self._node(d)
        node.runtime = not d.by_reference
        results = evaluate(node, self.opsets)
        if results is None or sum(array.size for array in results) > 200_000:
            return
        places = [at for at, name in enumerate(node.proto.output) if name]
        if not all(version.yields(at, array.dtype, d.dtypes) for at, array in zip(places, results)):
            return  # the reference evaluator does not always keep to the types
        exact = all(value.exact for value in node.read)
        names = [name for name in node.proto.output if name]
        node.results = [
            Value(name, array, exact and (array.dtype.kind in "iub" or key in MOVES)) for name, array in zip(names, results)
        ]
        self.nodes.append(node)

    def _node(self, d: Draw) -> Node:
        """The node of a finished draw, with a place for each operand."""
        node = Node(onnx.NodeProto())
        names = []
        mode = self.random.random()
        for name, _ in d.schema.inputs:
            if name not in d.operands:
                names.append("")
                continue
            names += [self._place(node, operand, mode) for operand in d.operands[name]]
        # ONNX Runtime's own operators look for the optional operands at the end of the list, without checking its length.
        while names and not names[-1] and d.schema.domain != MICROSOFT:
            names.pop()
        outputs = [self._name() for _ in range(d.outputs)]
        for at in range(1, d.outputs):  # a result that nobody reads may have no name
            if at in d.unread or d.chance(0.1) and at < len(d.schema.outputs) and d.schema.outputs[at][2]:
                outputs[at] = ""
        while not outputs[-1]:
            outputs.pop()
        label = f"{d.schema.name}_{len(self.nodes)}" if self.random.random() < 0.9 else ""
        node.proto = helper.make_node(d.schema.name, names, outputs, label, domain=d.schema.domain)
        for name, value in d.attributes.items():  # of the schema's kind, which an empty list does not show
            kind = onnx.AttributeProto.AttributeType.Value(d.schema.attributes[name])
            node.proto.attribute.append(helper.make_attribute(name, value, attr_type=kind))
        return node

    def _place(self, node: Node, operand: Operand, mode: float) -> str:
        if operand.value is not None:
            node.read.append(operand.value)
            return operand.value.name
        name = self._name()
        at = self.random.random()
        fixed = mode < 0.07 or at < (0.5 if operand.bounded else 0.93 if operand.shaping else 0.35)
        places = node.inputs if not fixed else node.initializers if self.random.random() < 0.7 else node.constants
        places[name] = np.asarray(operand.array)
        return name

    def _add_open_length(self) -> None:
        array = self.random.random(5) < 0.5
        node = Node(helper.make_node("NonZero", [self._name()], [self._name()]))
        node.inputs[node.proto.input[0]] = array
        node.results = [Value(node.proto.output[0], np.array(np.nonzero(array)))]
        self.nodes.append(node)

    def _finish(self) -> Case:
        if self.random.random() < self.open_length:
            self._add_open_length()
        read = {name for node in self.nodes for name in node.proto.input}
        values = [value for node in self.nodes for value in node.results]
        kept = [value for value in values if value.name not in read or self.random.random() < 0.2]
        model = as_model(self.nodes, [value.name for value in kept], self.opsets)
        inputs = _widened({name: array for node in self.nodes for name, array in node.inputs.items()})
        for value in model.graph.input:  # as exporters write inputs whose sizes are open
            if self.random.random() < 0.1:
                for at, dim in enumerate(value.type.tensor_type.shape.dim):
                    if self.random.random() < 0.5:
                        dim.dim_param = f"{value.name}_{at}"
        wanted = _widened({value.name: value.array for value in kept})
        place = self.random.random()
        if place < 0.06:
            in_function(model)
        elif place < 0.1:
            inputs["condition"] = np.array(self.random.random() < 0.5)
            wanted = {name + BRANCH: array for name, array in wanted.items()}
            in_branches(model)
        return Case(model, inputs, wanted, self.nodes)


def as_model(nodes: list[Node], outputs: list[str], opsets: dict[str, int], fed: list[Value] = ()) -> onnx.ModelProto:
    """The model of these nodes; `fed` are results of other nodes, which become inputs. Inputs and outputs of bfloat16,
    which NumPy lacks, are f32 and cast."""
    arrays = {name: array for node in nodes for name, array in node.inputs.items()} | {v.name: v.array for v in fed}
    inputs = [_typed(name + _suffix(array), array) for name, array in arrays.items()]
    initializers = [numpy_helper.from_array(array, name) for node in nodes for name, array in node.initializers.items()]
    protos = [_cast(name + SUFFIX, name, BFLOAT16) for name, array in arrays.items() if _suffix(array)]
    for node in nodes:
        for name, array in node.constants.items():
            protos.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
        protos.append(node.proto)
    made = {value.name: value.array for node in nodes for value in node.results}
    results = []
    for name in outputs:
        array = made.get(name)
        if array is None:
            results.append(onnx.ValueInfoProto(name=name))
        else:
            results.append(_typed(name + _suffix(array), array))
            protos += [_cast(name, name + SUFFIX, onnx.TensorProto.FLOAT)] if _suffix(array) else []
    used = {proto.domain for proto in protos} | {STANDARD}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items() if domain in used]
    graph = helper.make_graph(protos, "fuzz", inputs, results, initializers)
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def in_function(model: onnx.ModelProto) -> None:
    """Moves all nodes of a model to a local function."""
    graph = model.graph
    operands = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    results = [value.name for value in graph.output]
    body = helper.make_function("fuzz", "Body", operands, results, list(graph.node), list(model.opset_import))
    del graph.node[:]
    graph.node.append(helper.make_node("Body", operands, results, "body", domain="fuzz"))
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("fuzz", 1))


BRANCH = "_branch"


def in_branches(model: onnx.ModelProto) -> None:
    """Moves all nodes of a model to both branches of an If; they read its inputs and initializers from outside."""
    graph = model.graph
    branch = helper.make_graph(list(graph.node), "branch", [], list(graph.output))
    results = [value.name + BRANCH for value in graph.output]
    node = helper.make_node("If", ["condition"], results, "if", then_branch=branch, else_branch=branch)
    del graph.node[:]
    graph.node.append(node)
    graph.input.append(helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, ()))
    for value in graph.output:
        value.name += BRANCH


SUFFIX, BFLOAT16 = "_f32", onnx.TensorProto.BFLOAT16


def _suffix(array: np.ndarray) -> str:
    return SUFFIX if array.dtype.name == "bfloat16" else ""


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], f"{source}_cast", to=to)


def _typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    dtype = np.dtype("f4") if _suffix(array) else array.dtype
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), array.shape)


def _widened(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays as they are fed to a model."""
    return {name + _suffix(a): a.astype(np.float32) if _suffix(a) else a for name, a in arrays.items()}


def evaluate(node: Node, opsets: dict[str, int]) -> list[np.ndarray] | None:
    """The results of one node; None if nothing computes them."""
    outputs = [name for name in node.proto.output if name]
    model = as_model([node], outputs, opsets, node.read)
    fed = _widened(node.inputs | {value.name: value.array for value in node.read})
    try:
        results = _by_runtime(model, outputs, fed) if node.runtime else None
    except Exception:  # noqa: BLE001: ONNX Runtime has no common base for its errors
        results = None
    if results is None:
        node.runtime = False
        if not is_trusted(node, opsets):
            return None
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                results = [np.asarray(array) for array in ReferenceEvaluator(model).run(outputs, fed)]
        except Exception:  # noqa: BLE001: neither has the reference evaluator
            return None
    tensors = all(isinstance(a, np.ndarray) and (a.dtype.kind in "biuf" or _suffix(a)) for a in results)
    return results if tensors else None


def is_trusted(node: Node, opsets: dict[str, int]) -> bool:
    """Whether the reference evaluator may decide what a node computes."""
    arrays = [*node.own(), *(value.array for value in node.read)]
    # It adds up half precision in half precision, takes integers for floats, and ignores some paddings and empty lists.
    halves = any(array.dtype.itemsize == 2 and array.dtype.kind not in "iu" for array in arrays)
    sums = node.proto.op_type.startswith("Reduce") or "mul" in node.proto.op_type.lower() or node.proto.op_type == "Gemm"
    rare = any(a.name == "auto_pad" or a.name == "noop_with_empty_axes" and a.i for a in node.proto.attribute)
    domain, name = node.proto.domain, node.proto.op_type
    if name == "Gather" and not all(array.size for array in arrays):
        return False  # of nothing, its result always has the shape [0]
    if name in SLOW and sum(array.size for array in arrays) > 200:
        return False
    return domain != MICROSOFT and name not in UNTRUSTED and opsets[STANDARD] >= 7 and not rare and not (halves and sums)


def _by_runtime(model: onnx.ModelProto, outputs: list[str], fed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(outputs, fed)
