"""A classifier with experts on CIFAR-10, from scratch: one router per layer, or one for all; `--experts 1` is the dense
network of equal active size.

Two ONNX forms are written: `NAME.onnx`, in which every token gathers its experts' weights for a batched product, and
`NAME.contrib.onnx` with com.microsoft's MoE operator, which ONNX Runtime groups by expert.
"""

import copy
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn

from zoo import export
from zoo.data import images
from zoo.networks.experts import Experts, ExpertNet
from zoo.train import loop

# Weight of the loss that keeps the experts equally busy.
BALANCE = 0.01
_DOMAIN, _OP = "zoo", "Experts"


def objective(model: ExpertNet, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and balance."""
    loss = loop.cross_entropy(model, x, targets)
    return loss + BALANCE * sum(router.balance for router in model.routers())


class _Placeholder(torch.autograd.Function):
    """Experts and their router's probabilities as one node, for `as_contrib` to replace."""

    @staticmethod
    def forward(ctx, x, probabilities, up, up_bias, down, down_bias, top):
        return x

    @staticmethod
    def symbolic(g, x, probabilities, up, up_bias, down, down_bias, top):
        inputs = (x, probabilities, up, up_bias, down, down_bias)
        return g.op(f"{_DOMAIN}::{_OP}", *inputs, top_i=top).setType(x.type())


class _Contrib(nn.Module):
    """`Experts` for the exporter: in the contrib operator's layout the outputs come first."""

    def __init__(self, experts: Experts, top: int):
        super().__init__()
        self.up, self.down = (nn.Parameter(w.detach().transpose(1, 2).contiguous()) for w in (experts.up, experts.down))
        self.up_bias, self.down_bias, self.top = experts.up_bias, experts.down_bias, top

    def forward(self, x, probabilities, _):
        return _Placeholder.apply(x, probabilities, self.up, self.up_bias, self.down, self.down_bias, self.top)


class _Logits(nn.Module):
    """A router that returns its logits: the contrib operator computes the softmax itself."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear, self.balance = linear, torch.zeros(())

    def forward(self, x):
        return self.linear(x), None


def as_contrib(proto: onnx.ModelProto) -> None:
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


def contrib(model: ExpertNet, path: Path, x: torch.Tensor) -> None:
    """Write the form with com.microsoft's MoE and compare ONNX Runtime's outputs with the network's."""
    with torch.no_grad():
        wanted = model.eval()(x).numpy()
    other = copy.deepcopy(model)
    for block in other.blocks:
        top = (block.router or other.shared).top
        block.experts = _Contrib(block.experts, top)
        block.router = _Logits(block.router.linear) if block.router else None
    if other.shared:
        other.shared = _Logits(other.shared.linear)
    torch.onnx.export(
        other, (x,), path, input_names=["input"], output_names=["logits"], opset_version=export.OPSET, dynamo=False
    )
    proto = onnx.load(path)
    as_contrib(proto)
    onnx.save(proto, path)
    export.compare(path, {"input": x.numpy()}, {"logits": wanted})


def main() -> None:
    parser = loop.parser(__doc__, epochs=24, batch=128, lr=0.05, adam_lr=1e-3, bf16=True, out=Path("experts.onnx"))
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top", type=int, default=1)
    parser.add_argument("--shared-router", action="store_true", help="one router before the blocks (Read-ME)")
    args = parser.parse_args()
    opts = loop.options(args)
    data = images.load("cifar10", opts.cache)
    torch.manual_seed(opts.seed)
    model = ExpertNet(args.experts, args.top, args.shared_router)
    average = loop.fit(model, data, opts, objective=objective)
    export.classifier(average, opts.out, data.source)
    contrib(average, opts.out.with_suffix(".contrib.onnx"), torch.randn(1, 3, 32, 32))


if __name__ == "__main__":
    main()
