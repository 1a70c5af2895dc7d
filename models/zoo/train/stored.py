"""From a stored ONNX file back to a trainable network.

Exported convolutions have their BatchNorm folded in. `simplenet` reads such a file and adds a BatchNorm after every
convolution again, with the statistics of real images and a scale and shift that undo them: the outputs stay the same,
and training continues as if it had never stopped.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from zoo.networks.simplenet import SimpleNet


def _constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Weights by name, including those that go through a Cast, as f32."""
    found = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


@torch.no_grad()
def simplenet(path: Path, images: torch.Tensor, classes: int) -> SimpleNet:
    """The SimpleNet stored at `path`, which has as many `classes`, its BatchNorm measured on normalized `images`."""
    proto = onnx.load(path)
    weights = _constants(proto)
    layers, parameters, linear = [], [], None
    for node in proto.graph.node:
        if node.op_type == "Conv":
            weight, bias = (torch.from_numpy(weights[name].copy()) for name in node.input[1:])
            layers.append(f"{weight.size(0)}{'k1' if weight.size(2) == 1 else ''}")
            parameters.append((weight, bias))
        elif node.op_type == "MaxPool":
            layers.append("p")
        elif node.op_type == "Gemm":
            linear = [torch.from_numpy(weights[name].copy()) for name in node.input[1:]]
    if len(linear[1]) != classes:
        raise SystemExit(f"{path} tells {len(linear[1])} classes apart, and the images have {classes}")
    model = SimpleNet(",".join(layers), classes=len(linear[1]), channels=parameters[0][0].size(1))
    model.classifier.weight.copy_(linear[0])
    model.classifier.bias.copy_(linear[1])
    model.eval()
    x, folded = images, iter(parameters)
    modules = list(model.features)
    for module, after in zip(modules, [*modules[1:], None]):
        if isinstance(module, nn.Conv2d):
            weight, bias = next(folded)
            scale = weight.size(0) ** 0.5 / weight.norm()
            module.weight.copy_(weight * scale)
            module.bias.zero_()
            x = module(x)
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            after.running_mean.copy_(mean)
            after.running_var.copy_(variance)
            after.weight.copy_((variance + after.eps).sqrt() / scale)
            after.bias.copy_(bias + mean / scale)
        else:
            x = module(x)
    return model


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Measure the statistics of every new BatchNorm, as the plain mean over `batches`."""
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for batch in batches:
        model(batch)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1
