"""The recurrence of state space models as ONNX's Scan.

PyTorch's exporter unrolls loops; here the recurrence is exported as one node in a private domain, which `as_scan`
replaces by a Scan whose body is one step.
"""

import onnx
import torch
from onnx import TensorProto, helper

_DOMAIN, _OP = "zoo", "SelectiveScan"


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, delta, b, c, x, a, backward):
        steps = range(x.size(1))
        state, out = torch.zeros(x.size(0), x.size(2), a.size(1)), [None] * x.size(1)
        for t in reversed(steps) if backward else steps:
            decay = torch.exp(delta[:, t, :, None] * a)
            state = decay * state + (delta[:, t] * x[:, t])[:, :, None] * b[:, t, None, :]
            out[t] = (state * c[:, t, None, :]).sum(-1)
        return torch.stack(out, 1)

    @staticmethod
    def symbolic(g, delta, b, c, x, a, backward):
        return g.op(f"{_DOMAIN}::{_OP}", delta, b, c, x, a, backward_i=int(backward)).setType(x.type())


def selective_scan(delta, b, c, x, a, backward: bool = False):
    """`h = exp(delta a) h + delta x b`, `y = c h` along axis 1: `delta` and `x` are `[N, tokens, channels]`, `b` and
    `c` `[N, tokens, states]`, `a` `[channels, states]`; the result is like `x`. `backward` starts at the end."""
    return _SelectiveScan.apply(delta, b, c, x, a, backward)


def _body(a: str, prefix: str) -> onnx.GraphProto:
    """One step. Reads `a` of the outer graph."""
    p = lambda name: f"{prefix}/{name}"
    node = helper.make_node
    nodes = [
        node("Unsqueeze", [p("delta"), p("last")], [p("delta_column")]),
        node("Mul", [p("delta_column"), a], [p("exponent")]),
        node("Exp", [p("exponent")], [p("decay")]),
        node("Mul", [p("decay"), p("state")], [p("kept")]),
        node("Mul", [p("delta"), p("x")], [p("input")]),
        node("Unsqueeze", [p("input"), p("last")], [p("input_column")]),
        node("Unsqueeze", [p("b"), p("middle")], [p("b_row")]),
        node("Mul", [p("input_column"), p("b_row")], [p("added")]),
        node("Add", [p("kept"), p("added")], [p("next")]),
        node("Unsqueeze", [p("c"), p("middle")], [p("c_row")]),
        node("Mul", [p("next"), p("c_row")], [p("weighted")]),
        node("ReduceSum", [p("weighted"), p("last")], [p("y")], keepdims=0),
    ]
    value = lambda name: helper.make_tensor_value_info(p(name), TensorProto.FLOAT, None)
    constants = [
        helper.make_tensor(p("last"), TensorProto.INT64, [1], [-1]),
        helper.make_tensor(p("middle"), TensorProto.INT64, [1], [1]),
    ]
    inputs = [value(name) for name in ("state", "delta", "b", "c", "x")]
    return helper.make_graph(nodes, p("step"), inputs, [value("next"), value("y")], constants)


def as_scan(proto: onnx.ModelProto) -> None:
    """Replace every placeholder in `proto` by a Scan."""
    nodes = []
    for index, node in enumerate(proto.graph.node):
        if (node.domain, node.op_type) != (_DOMAIN, _OP):
            nodes.append(node)
            continue
        delta, b, c, x, a = node.input
        backward = next(attribute.i for attribute in node.attribute if attribute.name == "backward")
        name = f"scan{index}"
        make = helper.make_node
        zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
        # The first state, [N, channels, states]: the shape of the first delta beside a.
        nodes += [
            make("Constant", [], [f"{name}/zero_index"], value=helper.make_tensor("v", TensorProto.INT64, [], [0])),
            make("Gather", [delta, f"{name}/zero_index"], [f"{name}/first"], axis=1),
            make("Shape", [f"{name}/first"], [f"{name}/rows"]),
            make("Shape", [a], [f"{name}/states"], start=1),
            make("Concat", [f"{name}/rows", f"{name}/states"], [f"{name}/shape"], axis=0),
            make("ConstantOfShape", [f"{name}/shape"], [f"{name}/initial"], value=zero),
            make(
                "Scan",
                [f"{name}/initial", delta, b, c, x],
                [f"{name}/final", node.output[0]],
                f"{name}/Scan",
                body=_body(a, name),
                num_scan_inputs=4,
                scan_input_axes=[1] * 4,
                scan_output_axes=[1],
                scan_input_directions=[backward] * 4,
                scan_output_directions=[backward],
            ),
        ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    kept = [opset for opset in proto.opset_import if opset.domain != _DOMAIN]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    # The exporter could not know these shapes; readers infer them again.
    del proto.graph.value_info[:]
