"""A network with experts for the exporter, with com.microsoft's MoE operator in place of routing and experts.

The operator computes the softmax of the router's logits, the choice, both products and the weighted sum; ONNX Runtime
groups tokens by expert inside it.
"""

import copy

import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from torch import nn

from zoo.networks.experts import Experts, ExpertNet

_DOMAIN, _OP = "zoo", "Experts"


class _Placeholder(torch.autograd.Function):
    """What the operator computes, exported as one node, for `as_moe` to replace."""

    @staticmethod
    def forward(ctx, x, logits, up, up_bias, down, down_bias, top):
        if torch.onnx.is_in_onnx_export():
            return x  # Only its shape matters there.
        weights, chosen = logits.softmax(-1).topk(top, -1)
        out = 0
        for expert, weight in zip(chosen.unbind(1), weights.unbind(1)):
            y = F.relu(torch.einsum("tw,thw->th", x, up[expert]) + up_bias[expert])
            out = out + weight[:, None] * (torch.einsum("th,twh->tw", y, down[expert]) + down_bias[expert])
        return out

    @staticmethod
    def symbolic(g, x, logits, up, up_bias, down, down_bias, top):
        inputs = (x, logits, up, up_bias, down, down_bias)
        return g.op(f"{_DOMAIN}::{_OP}", *inputs, top_i=top).setType(x.type())


class _Operator(nn.Module):
    """`Experts` in the operator's layout, in which the outputs come first."""

    def __init__(self, experts: Experts, top: int):
        super().__init__()
        self.up, self.down = (nn.Parameter(w.detach().transpose(1, 2).contiguous()) for w in (experts.up, experts.down))
        self.up_bias, self.down_bias, self.top = experts.up_bias, experts.down_bias, top

    def forward(self, x, logits, _):
        return _Placeholder.apply(x, logits, self.up, self.up_bias, self.down, self.down_bias, self.top)


class _Logits(nn.Module):
    """A router that returns its logits."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x), None


def with_moe(model: ExpertNet) -> ExpertNet:
    """A copy of a network that is exported with a placeholder for each layer of experts."""
    other = copy.deepcopy(model)
    for block in other.blocks:
        block.experts = _Operator(block.experts, (block.router or other.shared).top)
        block.router = _Logits(block.router.linear) if block.router else None
    if other.shared:
        other.shared = _Logits(other.shared.linear)
    return other


def as_moe(proto: onnx.ModelProto) -> None:
    """Replace every placeholder by com.microsoft.MoE."""
    nodes = []
    for index, node in enumerate(proto.graph.node):
        if node.domain == _DOMAIN:
            top = next(a.i for a in node.attribute if a.name == "top")
            node = helper.make_node(
                "MoE",
                list(node.input),
                list(node.output),
                f"MoE{index}",
                domain="com.microsoft",
                k=top,
                activation_type="relu",
                normalize_routing_weights=0,
            )
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    kept = [opset for opset in proto.opset_import if opset.domain != _DOMAIN]
    del proto.opset_import[:]
    proto.opset_import.extend([*kept, helper.make_opsetid("com.microsoft", 1)])
