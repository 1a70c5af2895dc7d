"""ONNX to LiteRT, by way of PyTorch: `convert_litert.py MODEL.onnx OUT.tflite`.

Runs in the converters' environment. The input becomes channels-last, which is what LiteRT's
kernels compute in.
"""

import sys

import litert_torch
import onnx
import onnx2torch
import torch
from onnx2torch.node_converters.activations import OnnxHardSigmoid


class HardSigmoid(torch.nn.Module):
    """In the form that LiteRT's fast path (XNNPACK) supports: a clamp between 0 and 1 would split the graph."""

    def __init__(self, alpha: float, beta: float):
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x):
        return torch.nn.functional.relu6(x * (6 * self.alpha) + 6 * self.beta) * (1 / 6)


def main(source: str, destination: str) -> None:
    shape = [d.dim_value for d in onnx.load(source).graph.input[0].type.tensor_type.shape.dim]
    model = onnx2torch.convert(source).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, OnnxHardSigmoid):
            model.set_submodule(name, HardSigmoid(module.alpha, module.beta))
    channels_last = litert_torch.to_channel_last_io(model, args=[0]).eval()
    batch, channels, height, width = shape
    litert_torch.convert(channels_last, (torch.zeros(batch, height, width, channels),)).export(destination)


if __name__ == "__main__":
    main(*sys.argv[1:])
