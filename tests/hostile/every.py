"""One node of every operator that the importer or the fallback knows, with operands of any size.

An operand is a letter and its dimensions: inputs `f` floats, `b` booleans, `i`, `j`, `u` and `c` integers of 64 and 32
bits and bytes without and with a sign; `F` and `U` constant floats and bytes, filled by a node, so that the file stays
small; `I` a list of integers, `~` a list of one float, and the scalars `#` (an integer), `=` (a float), `z` and `Z` (zero
points); `-` is left out. Dimensions are products: `n` is the size, `r` its root.
"""

import re
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from harness.driver import ROOT

IMPORT = ROOT / "runtime" / "src" / "onnx" / "import"
FALLBACK = ROOT / "runtime" / "src" / "onnx" / "fallback" / "admit.rs"
DOMAINS = {"standard": "", "microsoft": "com.microsoft", "classical": "ai.onnx.ml"}

TYPES = {
    "f": TensorProto.FLOAT, "b": TensorProto.BOOL, "i": TensorProto.INT64, "j": TensorProto.INT32,
    "u": TensorProto.UINT8, "c": TensorProto.INT8,
}  # fmt: skip

# Versions of ai.onnx in which they are new, or were replaced.
OPSETS = {"Scatter": 10, "Attention": 23, "RMSNormalization": 23, "RotaryEmbedding": 23, "Swish": 24, "TensorScatter": 24}

# Tables of trees: one branch and two leaves.
TREE = {
    "nodes_falsenodeids": [2, 0, 0], "nodes_truenodeids": [1, 0, 0], "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_nodeids": [0, 1, 2], "nodes_treeids": [0, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0],
}  # fmt: skip
VECTORS = {"coefficients": [1.0, -1.0], "support_vectors": [0.5] * 8, "kernel_params": [0.5, 0.0, 3.0], "rho": [0.1]}
POOL = {"kernel_shape": [2, 2]}

# Operator, operands, attributes, and the number of results if there are several.
EVERY = {
    "": [
        ("AffineGrid", "f1,2,3 I1,1,r,r", {}), ("And", "b1,n b1,n", {}), ("ArgMax", "f1,n", {"axis": 1}),
        ("ArgMin", "f1,n", {"axis": 0}), ("Attention", "f1,1,r,8 f1,1,r,8 f1,1,r,8", {}),
        ("BatchNormalization", "f1,r,r,1 fr fr fr fr", {}), ("BitShift", "u1,n u1,n", {"direction": "LEFT"}),
        ("BitwiseAnd", "c1,n c1,n", {}), ("BitwiseNot", "c1,n", {}), ("BitwiseOr", "c1,n c1,n", {}),
        ("BitwiseXor", "c1,n c1,n", {}), ("CastLike", "f1,n u1", {}), ("Celu", "f1,n", {"alpha": 0.5}),
        ("CenterCropPad", "f1,4 Ir,r", {}), ("Clip", "f1,n =0 =1", {}), ("Col2Im", "f1,1,n I1,n I1,1", {}),
        ("Compress", "f1,n bn", {"axis": 1}), ("ConvInteger", "u1,1,r,r c8,1,3,3", {}),
        ("DeformConv", "f1,1,r,r f1,1,1,1 f1,2,r,r", {}), ("Det", "fn,2,2", {}), ("Dropout", "f1,n", {}),
        ("DynamicQuantizeLinear", "f1,n", {}, 3), ("Flatten", "f1,n", {}), ("GatherElements", "f1,n i1,n", {"axis": 1}),
        ("GatherND", "fn ir,1", {}), ("Gelu", "f1,n", {}), ("GlobalLpPool", "f1,1,r,r", {}),
        ("GreaterOrEqual", "f1,n f1,n", {}), ("GridSample", "f1,1,8,8 f1,r,r,2", {}),
        ("GroupNormalization", "f1,4,n f4 f4", {"num_groups": 2}), ("InstanceNormalization", "f1,1,n f1 f1", {}),
        ("IsInf", "f1,n", {}), ("LayerNormalization", "f1,n fn", {}), ("LessOrEqual", "f1,n f1,n", {}),
        ("MatMulInteger", "ur,r cr,r", {}), ("MaxRoiPool", "f1,1,8,8 fr,5", {"pooled_shape": [8, 8]}),
        ("MaxUnpool", "f1,1,r,r i1,1,r,r", POOL), ("Mean", "f1,n f1,n", {}), ("MeanVarianceNormalization", "f1,1,r,r", {}),
        ("Mod", "f1,n f1,n", {"fmod": 1}), ("Multinomial", "f1,n", {"sample_size": 9}),
        ("NegativeLogLikelihoodLoss", "fr,r ir", {"reduction": "none"}),
        ("NonMaxSuppression", "f1,r,4 f1,1,r Ir ~1 ~-1", {}), ("NonZero", "fr,r", {}), ("NonZero", "b1,n", {}),
        ("OptionalGetElement", "f1,n", {}), ("OptionalHasElement", "f1,n", {}), ("Or", "b1,n b1,n", {}),
        ("QLinearConv", "u1,1,r,r =0.5 z c8,1,3,3 =0.5 Z =0.5 z", {}), ("QLinearMatMul", "ur,r =0.5 z cr,r =0.5 Z =0.5 z", {}),
        ("RMSNormalization", "f1,n fn", {}), ("ReduceSumSquare", "f1,n", {}), ("ReverseSequence", "fr,r ir", {}),
        ("RoiAlign", "f1,1,8,8 fr,4 ir", {"output_height": 8, "output_width": 8}),
        ("RotaryEmbedding", "f1,1,r,8 f1,r,4 f1,r,4", {}), ("STFT", "f1,n,1 #16 - #32", {}),
        ("Scatter", "f1,n i1,n f1,n", {"axis": 1}), ("ScatterElements", "f1,n i1,n f1,n", {"axis": 1}),
        ("ScatterND", "fn ir,1 fr", {}), ("Shrink", "f1,n", {}), ("SimplifiedLayerNormalization", "f1,n fn", {}),
        ("SoftmaxCrossEntropyLoss", "fr,r ir", {"reduction": "none"}), ("SpaceToDepth", "f1,1,2r,2r", {"blocksize": 2}),
        ("Squeeze", "f1,n I0", {}), ("Swish", "f1,n", {}), ("TensorScatter", "f1,1,r,8 f1,1,1,8", {}),
        ("TfIdfVectorizer", "in", {
            "mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0],
            "ngram_indexes": [0, 1], "pool_int64s": [0, 1],
        }), ("Unique", "f1,n", {}), ("Unique", "F1,n", {}), ("Unsqueeze", "f1,n I0", {}), ("Xor", "b1,n b1,n", {}),
    ],
    "com.microsoft": [
        ("Attention", "f1,r,8 F8,24 F24", {"num_heads": 1}), ("BiasGelu", "f1,n fn", {}),
        ("DequantizeLinear", "u1,n =0.5 z", {}), ("DynamicQuantizeMatMul", "fr,r cr,r =0.5", {}),
        ("EmbedLayerNormalization", "j1,r j1,r F8,8 Fr,8 F2,8 F8 F8", {}), ("FastGelu", "f1,n", {}),
        ("FusedConv", "f1,1,r,r f1,1,3,3", {"activation": "Relu"}), ("FusedGemm", "fr,r fr,r", {}),
        ("CDist", "fr,r fr,r", {"metric": "euclidean"}), ("NhwcConv", "f1,r,r,1 f1,3,3,1", {}),
        ("DynamicQuantizeLSTM", "fr,1,8 U1,8,16 U1,4,16 - - - - - F1,16 U1,16 F1,16 U1,16", {"hidden_size": 4}),
        ("QAttention", "u1,r,8 U8,24 F24 =0.5 =0.5 - z z", {"num_heads": 1}),
        ("QEmbedLayerNormalization", "j1,r j1,r U8,8 Ur,8 U2,8 U8 U8 - =0.5 =0.5 =0.5 =0.5 =0.5 z z z z z", {}),
        ("QLinearWhere", "b1,n u1,n =0.5 z u1,n =0.5 z =0.5 z", {}),
        ("FusedMatMul", "fr,r fr,r", {}), ("Gelu", "f1,n", {}), ("GridSample", "f1,1,8,8 f1,r,r,2", {}),
        ("LayerNormalization", "f1,n fn", {}), ("MatMulIntegerToFloat", "ur,r cr,r =0.5 =0.5", {}),
        ("MatMulNBits", "fn,32 U8,1,16 F8", {"K": 32, "N": 8, "bits": 4, "block_size": 32}),
        ("MoE", "fr,8 fr,4 F4,8,8 F4,8 F4,8,8 F4,8", {"k": 1}), ("MultiHeadAttention", "f1,r,8 f1,r,8 f1,r,8", {"num_heads": 1}),
        ("NhwcMaxPool", "u1,r,r,1", POOL), ("Pad", "f1,n I0,1,0,1", {}), ("QGemm", "ur,r =0.5 z cr,r =0.5 Z", {}),
        ("QLinearAdd", "u1,n =0.5 z u1,n =0.5 z =0.5 z", {}), ("QLinearAveragePool", "u1,1,r,r =0.5 z =0.5 z", POOL),
        ("QLinearConcat", "=0.5 z u1,n =0.5 z u1,n =0.5 z", {"axis": 1}),
        ("QLinearConv", "u1,1,r,r =0.5 z c8,1,3,3 =0.5 Z =0.5 z", {}),
        ("QLinearGlobalAveragePool", "u1,1,r,r =0.5 z =0.5 z", {"channels_last": 0}),
        ("QLinearLeakyRelu", "u1,n =0.5 z =0.5 z", {}), ("QLinearMul", "u1,n =0.5 z u1,n =0.5 z =0.5 z", {}),
        ("QLinearSigmoid", "u1,n =0.5 z =0.5 z", {}), ("QLinearSoftmax", "u1,n =0.5 z =0.5 z", {"axis": 1, "opset": 13}),
        ("QMoE", "fr,8 fr,4 U4,8,4 F4,8 - U4,8,4 F4,8", {"k": 1}), ("QuantizeLinear", "f1,n =0.5 z", {}),
        ("QuickGelu", "f1,n", {}), ("Range", "#0 #n #1", {}), ("RotaryEmbedding", "f1,r,8 I0 Fr,4 Fr,4", {}),
        ("SkipLayerNormalization", "f1,r,r f1,r,r fr", {}), ("SkipSimplifiedLayerNormalization", "f1,r,r f1,r,r fr", {}),
        ("TransposeMatMul", "fr,r fr,r", {"transB": 1}), ("Trilu", "fr,r", {}),
    ],
    "ai.onnx.ml": [
        ("ArrayFeatureExtractor", "f1,n ir", {}), ("Binarizer", "f1,n", {"threshold": 0.5}),
        ("FeatureVectorizer", "fr,4", {"inputdimensions": [4]}), ("Imputer", "f1,n", {"imputed_value_floats": [0.0]}),
        ("LabelEncoder", "in", {"keys_int64s": [0, 1], "values_int64s": [1, 0]}),
        ("LinearClassifier", "fn,4", {"coefficients": [1.0] * 8, "intercepts": [0.0] * 2, "classlabels_ints": [0, 1]}, 2),
        ("LinearRegressor", "fn,4", {"coefficients": [1.0] * 4}), ("Normalizer", "f1,n", {"norm": "L2"}),
        ("OneHotEncoder", "in", {"cats_int64s": [0, 1, 2, 3]}),
        ("SVMClassifier", "fn,4", VECTORS | {"classlabels_ints": [0, 1], "vectors_per_class": [1, 1]}, 2),
        ("SVMRegressor", "fn,4", VECTORS | {"n_supports": 2}), ("Scaler", "f1,n", {"offset": [0.0], "scale": [2.0]}),
        ("TreeEnsemble", "fn,4", {
            "nodes_falseleafs": [1], "nodes_falsenodeids": [1], "nodes_featureids": [0], "nodes_trueleafs": [1],
            "nodes_truenodeids": [0], "leaf_targetids": [0, 0], "tree_roots": [0], "n_targets": 1,
            "nodes_modes": numpy_helper.from_array(np.array([0], np.uint8), "modes"),
            "nodes_splits": numpy_helper.from_array(np.array([0.5], np.float32), "splits"),
            "leaf_weights": numpy_helper.from_array(np.array([1, 2], np.float32), "weights"),
        }),
        ("TreeEnsembleClassifier", "fn,4", TREE | {
            "class_ids": [0, 1], "class_nodeids": [1, 2], "class_treeids": [0, 0], "class_weights": [1.0, 1.0],
            "classlabels_int64s": [0, 1],
        }, 2),
        ("TreeEnsembleRegressor", "fn,4", TREE | {
            "target_ids": [0, 0], "target_nodeids": [1, 2], "target_treeids": [0, 0], "target_weights": [1.0, 2.0],
            "n_targets": 1,
        }),
        ("ZipMap", "fn,2", {"classlabels_int64s": [0, 1]}),
    ],
}  # fmt: skip

# They only exist together: of a list of tensors.
SEQUENCES = {
    "SequenceConstruct SequenceLength": [("SequenceConstruct", "xx", "s", {}), ("SequenceLength", "s", "y", {})],
    "SequenceConstruct SequenceAt": [("SequenceConstruct", "xx", "s", {}), ("SequenceAt", "so", "y", {})],
    "SequenceInsert SequenceErase ConcatFromSequence": [
        ("SequenceConstruct", "xx", "s", {}), ("SequenceInsert", "sx", "t", {}), ("SequenceErase", "to", "v", {}),
        ("ConcatFromSequence", "v", "y", {"axis": 1}),
    ],
    "SequenceEmpty": [
        ("SequenceEmpty", "", "e", {}), ("SequenceInsert", "ex", "t", {}), ("ConcatFromSequence", "t", "y", {"axis": 0}),
    ],
    "SplitToSequence": [("SplitToSequence", "x", "s", {"axis": 1, "keepdims": 0}), ("SequenceAt", "so", "y", {})],
}  # fmt: skip


def sizes(text: str, size: int) -> list[int]:
    """Dimensions, such as `1,2r`."""
    letters = {"n": size, "r": max(1, int(size**0.5))}
    parts = [re.fullmatch(r"(\d*)([nr]?)", dim).groups() for dim in text.split(",")]
    return [int(factor or 1) * letters.get(letter, 1) for factor, letter in parts]


def finished(nodes, inputs, constants, outputs, opset: int) -> bytes:
    results = [helper.make_tensor_value_info(name, 0, None) for name in outputs]
    for result in results:
        result.ClearField("type")
    graph = helper.make_graph(nodes, "g", inputs, results, constants)
    classical = 5 if any(node.op_type == "TreeEnsemble" for node in nodes) else 3
    versions = [("", opset), ("com.microsoft", 1), ("ai.onnx.ml", classical)]
    domains = [helper.make_opsetid(*version) for version in versions]
    return helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()


def one_node(domain: str, op: str, operands: str, attributes: dict, results: int, size: int, copies: int = 1) -> bytes:
    """A model of one node, or of several that are the same, with something of this size."""
    nodes, inputs, constants, names = [], [], [], []
    for index, operand in enumerate(operands.split()):
        name, letter, rest = f"x{index}", operand[0], operand[1:]
        names.append("" if letter == "-" else name)
        if letter in TYPES:
            inputs.append(helper.make_tensor_value_info(name, TYPES[letter], sizes(rest, size)))
        elif letter in "FU":
            value = numpy_helper.from_array(np.zeros(1, {"F": np.float32, "U": np.uint8}[letter]), "value")
            constants.append(numpy_helper.from_array(np.array(sizes(rest, size), np.int64), f"{name}_shape"))
            nodes.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=value))
        elif letter != "-":
            value = {
                "I": lambda: np.array(sizes(rest, size), np.int64), "#": lambda: np.array(sizes(rest, size)[0], np.int64),
                "=": lambda: np.array(float(rest), np.float32), "~": lambda: np.array([float(rest)], np.float32),
                "z": lambda: np.array(0, np.uint8),
                "Z": lambda: np.array(0, np.int8),
            }[letter]()  # fmt: skip
            constants.append(numpy_helper.from_array(value, name))
    outputs = []
    for copy in range(copies):
        outputs += [f"{name}{copy or ''}" for name in ("y", "second y", "third y")[:results]]
        nodes.append(helper.make_node(op, names, outputs[-results:], domain=domain, **attributes))
    return finished(nodes, inputs, constants, outputs, 18 if domain else OPSETS.get(op, 21))


def sequence(parts, size: int) -> bytes:
    nodes = [helper.make_node(op, list(operands), [result], **attributes) for op, operands, result, attributes in parts]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])]
    return finished(nodes, inputs, [numpy_helper.from_array(np.array(0, np.int64), "o")], ["y"], 18)


def controlled(op: str, size: int) -> bytes:
    """A block that is run for every row, or one that is chosen."""
    value = helper.make_tensor_value_info
    if op == "Scan":
        inner = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Identity", ["c"], ["d"])]
        rows = [value(name, TensorProto.FLOAT, [1]) for name in "abcd"]
        body = helper.make_graph(inner, "body", rows[:2], rows[2:])
        nodes = [helper.make_node("Scan", ["x0", "x1"], ["y", "y2"], body=body, num_scan_inputs=1)]
        inputs = [value("x0", TensorProto.FLOAT, [1]), value("x1", TensorProto.FLOAT, [size, 1])]
        return finished(nodes, inputs, [], ["y", "y2"], 18)
    inner = {name: [helper.make_node(of, ["x0"], [name])] for of, name in (("Relu", "a"), ("Neg", "b"))}
    rows = {name: value(name, TensorProto.FLOAT, [1, size]) for name in ("x0", "a", "b")}
    arms = [helper.make_graph(nodes, name, [], [rows[name]]) for name, nodes in inner.items()]
    nodes = [helper.make_node("If", ["x1"], ["y"], then_branch=arms[0], else_branch=arms[1])]
    return finished(nodes, [rows["x0"], value("x1", TensorProto.BOOL, [])], [], ["y"], 18)


def models(size: int, copies: int = 1):
    """A title and a function that makes the model, for everything here."""
    for domain, operators in EVERY.items():
        for op, operands, attributes, *results in operators:
            results = results[0] if results else 1
            letters = re.sub(r"[-0-9nr,. ]", "", operands)
            parts = (domain, op, operands, attributes, results)
            yield f"{domain}.{op} {letters}".strip("."), lambda parts=parts: one_node(*parts, size, copies)
    for title, parts in SEQUENCES.items():
        yield title, lambda parts=parts: sequence(parts, size)
    for op in ("If", "Scan"):
        yield op, lambda op=op: controlled(op, size)


def known() -> set[tuple[str, str]]:
    """The operators that the importer and the fallback name, by domain."""
    found = set()
    for path in IMPORT.rglob("*.rs"):
        for family, names in re.findall(r"\b(standard|microsoft|classical)\(\s*&\[(.*?)\]", path.read_text(), re.S):
            found |= {(DOMAINS[family], name) for name in re.findall(r'"(\w+)"', names)}
    admitted = re.search(r"const ADMITTED.*?\];", FALLBACK.read_text(), re.S).group(0)
    return found | {("", name) for name in re.findall(r'"(\w+)"', admitted)}
