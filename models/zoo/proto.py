"""ONNX files after their export: metadata, constants, weights in half precision, and the comparison with expected
outputs. PyTorch is not needed.

A weight in half precision is an f16 initializer and a Cast to f32 before its reader. Any runtime folds the Cast when it
loads the file, so that the arithmetic stays f32 and the file is half the size.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# Share of the largest output. f32 allows this difference between two orders of summation, with room for deep networks.
TOLERANCE = 1e-4
# With weights rounded to f16, which alone causes 1e-2 in a deep network.
HALF_TOLERANCE = 5e-2
# Smaller weights are not worth a Cast.
HALF_FROM_ELEMENTS = 256


def describe(proto: onnx.ModelProto, metadata: Mapping[str, object]) -> None:
    """Add `metadata` under `skipstone.*`, except values that are None."""
    for key, value in metadata.items():
        if value is not None:
            proto.metadata_props.add(key=f"skipstone.{key}", value=str(value))


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Check and write."""
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def fold_constants(proto: onnx.ModelProto) -> None:
    """Compute small nodes that read constants only, such as those that PyTorch's exporter makes of a padding. For
    graphs whose nodes hold none."""
    graph, known, kept = proto.graph, {}, []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT64 or int(np.prod(tensor.dims)) < HALF_FROM_ELEMENTS:
            known[tensor.name] = numpy_helper.to_array(tensor)
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        has_graph = any(attribute.HasField("g") for attribute in node.attribute)
        if has_graph or outputs & set(node.output) or not all(name in known for name in node.input if name):
            kept.append(node)
            continue
        element = lambda name: helper.np_dtype_to_tensor_dtype(known[name].dtype)
        inputs = [helper.make_tensor_value_info(name, element(name), None) for name in node.input if name]
        results = [onnx.ValueInfoProto(name=name) for name in node.output]
        alone = helper.make_model(helper.make_graph([node], "node", inputs, results), opset_imports=proto.opset_import)
        values = ReferenceEvaluator(alone).run(None, {name: known[name] for name in node.input if name})
        known.update(zip(node.output, map(np.asarray, values)))
    used = {name for node in kept for name in node.input} - {tensor.name for tensor in graph.initializer}
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in sorted(used & known.keys()))
    read = {name for node in kept for name in node.input} | outputs
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def halve_weights(proto: onnx.ModelProto) -> None:
    """Store every large f32 initializer as f16 with a Cast after it. Subgraphs see the results of the outer graph."""
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALF_FROM_ELEMENTS:
            continue
        name = tensor.name
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, f"{name}.f16"))
        casts.append(helper.make_node("Cast", [f"{name}.f16"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


def compare(
    path: Path, inputs: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> None:
    """Fail unless ONNX Runtime's outputs are `wanted`, within `tolerance` of the largest element of each."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # It warns of every setting.
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for (name, want), got in zip(wanted.items(), session.run(list(wanted), dict(inputs)), strict=True):
        error, largest = np.abs(got - want).max(initial=0), np.abs(want).max(initial=0)
        if got.shape != want.shape or not error <= tolerance * largest + 1e-6:
            raise AssertionError(f"{path}: {name}: ONNX Runtime differs by {error:.3g} at {largest:.3g}")
