"""Operators for ONNX's reference evaluator, replacing its own where those are wrong."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference.op_run import OpRun

# Weights are split into multiples of this and the rest: floats represent the sums of products of either exactly.
SPLIT = 16


def _convolution(x: np.ndarray, w: np.ndarray, attributes: dict) -> np.ndarray:
    """ONNX Runtime's float convolution."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "w", "y")]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], "conv", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "w": w})[0].astype(np.int64)


class ConvInteger(OpRun):
    """The evaluator's own uses wrong padding for strides, dilations and `auto_pad`."""

    op_domain = ""

    def _run(self, x, w, x_zero_point=None, w_zero_point=None, **attributes):
        x, w = (
            array.astype(np.int32) - np.int32(0 if zero is None else zero)
            for array, zero in ((x, x_zero_point), (w, w_zero_point))
        )
        given = {name: value for name, value in attributes.items() if value is not None}
        high, low = (_convolution(x.astype(np.float32), part.astype(np.float32), given) for part in np.divmod(w, SPLIT))
        return ((high * SPLIT + low).astype(np.int32),)
