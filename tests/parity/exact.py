"""Operators for ONNX's reference evaluator: where its own are wrong, or ONNX Runtime does not have all of one."""

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
    return session.run(None, {"x": x, "w": w})[0]


class ConvInteger(OpRun):
    """The evaluator's own uses wrong padding for strides, dilations and `auto_pad`."""

    op_domain = ""

    def _run(self, x, w, x_zero_point=None, w_zero_point=None, **attributes):
        x, w = (
            array.astype(np.int32) - np.int32(0 if zero is None else zero)
            for array, zero in ((x, x_zero_point), (w, w_zero_point))
        )
        given = {name: value for name, value in attributes.items() if value is not None}
        high, low = (
            _convolution(x.astype(np.float32), part.astype(np.float32), given).astype(np.int64) for part in np.divmod(w, SPLIT)
        )
        return ((high * SPLIT + low).astype(np.int32),)


class NhwcConv(OpRun):
    """com.microsoft NhwcConv, which ONNX Runtime has for GPUs only."""

    op_domain = "com.microsoft"

    def _run(self, x, w, bias=None, **attributes):
        given = {name: value for name, value in attributes.items() if value is not None}
        y = _convolution(*(np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (x, w)), given)
        return (y.transpose(0, 2, 3, 1) + (0 if bias is None else bias),)


class MoE(OpRun):
    """com.microsoft MoE, by its documentation. As in ONNX Runtime, of equal logits the last ones are best."""

    op_domain = "com.microsoft"

    def _run(self, x, logits, up, up_bias=None, down=None, down_bias=None, other=None, other_bias=None, **attributes):
        given = {name: value for name, value in attributes.items() if value is not None}
        kind, fusion = given.get("activation_type", "relu"), given.get("swiglu_fusion", 0)
        tokens = x.reshape(-1, x.shape[-1]).astype(np.float64)
        with np.errstate(all="ignore"):
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares = np.nan_to_num(shares / shares.sum(1, keepdims=True))
        y = np.zeros_like(tokens)
        for token, share, result in zip(tokens, shares, y):
            chosen = sorted(range(len(share)), key=lambda e: (share[e], e), reverse=True)[: given.get("k", 1)]
            total = share[chosen].sum() if given.get("normalize_routing_weights") else 1
            for expert in (e for e in chosen if share[e] > 0):
                product = lambda x, w, b: w[expert] @ x + (0 if b is None else b[expert])
                hidden, linear = product(token, up, up_bias), 1
                if fusion == 1:
                    hidden, linear = hidden[::2], hidden[1::2]
                elif fusion == 2:
                    hidden, linear = np.split(hidden, 2)
                elif other is not None:
                    linear = product(token, other, other_bias)
                hidden = self._activated(kind, hidden, linear, given)
                result += product(hidden, down, down_bias) * share[expert] / total
        return (y.reshape(x.shape).astype(x.dtype),)

    @staticmethod
    def _activated(kind, gate, linear, attributes):
        sigmoid = lambda x: 1 / (1 + np.exp(-x))
        if kind != "swiglu":
            return {"relu": np.maximum(gate, 0), "silu": gate * sigmoid(gate)}[kind] * linear
        alpha, beta = attributes.get("activation_alpha", 1), attributes.get("activation_beta", 0)
        limit, after = attributes.get("swiglu_limit", np.inf), attributes.get("swiglu_limit_after_activation", 0)
        gate = gate if after else np.minimum(gate, limit)
        gate = gate * sigmoid(alpha * gate)
        return (np.minimum(gate, limit) if after else gate) * (np.clip(linear, -limit, limit) + beta)
