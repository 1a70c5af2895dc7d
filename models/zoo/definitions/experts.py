"""Small classifiers with experts, as `zoo.networks.experts` defines them: a router per layer and one for all layers, with
gathered weights and with com.microsoft's MoE operator."""

import torch

from zoo.networks.experts import ExpertNet
from zoo.networks.moe_operator import with_moe


def _example(**options):
    model = ExpertNet(experts=4, width=16, hidden=24, depth=2, side=16, **options)
    return model, {"input": torch.randn(1, 3, 16, 16)}, ["logits"]


def example_top2():
    return _example(top=2)


def example_shared_router():
    return _example(top=1, shared_router=True)


def example_operator():
    model, inputs, outputs = _example(top=2)
    return with_moe(model), inputs, outputs
