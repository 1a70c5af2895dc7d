"""The only export from PyTorch: plain ONNX, checked against ONNX Runtime when it is written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from zoo.proto import HALF_TOLERANCE, TOLERANCE, compare, describe, fold_constants, halve_weights, save

OPSET = 17


def write(
    model: nn.Module,
    path: Path,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    *,
    metadata: Mapping[str, object] | None = None,
    half: bool = False,
    keep_norm: bool = False,
    fold: bool = False,
    rewrite: Callable[[onnx.ModelProto], None] | None = None,
) -> dict[str, np.ndarray]:
    """Write `model`, traced with `inputs`, compare ONNX Runtime's answer with PyTorch's, and return the latter.

    `metadata` becomes `metadata_props` under `skipstone.*`; `half` stores weights as f16; `keep_norm` keeps
    BatchNormalization nodes; `fold` computes what depends on constants only; `rewrite` changes the exported graph before it is checked.
    """
    model = model.eval().to(memory_format=torch.contiguous_format)
    mode = torch.onnx.TrainingMode
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=list(outputs),
        opset_version=OPSET,
        training=mode.PRESERVE if keep_norm else mode.EVAL,
        dynamo=False,
    )
    proto = onnx.load(path)
    if fold:
        fold_constants(proto)
    if rewrite:
        rewrite(proto)
    describe(proto, metadata or {})
    if half:
        halve_weights(proto)
    save(proto, path)
    with torch.no_grad():
        wanted = model(*inputs.values())
    wanted = wanted if isinstance(wanted, tuple | list) else [wanted]
    results = {name: result.numpy() for name, result in zip(outputs, wanted, strict=True)}
    compare(path, {k: v.numpy() for k, v in inputs.items()}, results, HALF_TOLERANCE if half else TOLERANCE)
    return results


def image_metadata(labels: Sequence[str], mean: Sequence[float], std: Sequence[float], side: int) -> dict[str, object]:
    """The metadata that Skipstone reads for an image classifier."""
    return {
        "labels": "\n".join(labels),
        "mean": ",".join(map(str, mean)),
        "std": ",".join(map(str, std)),
        "resize": side,
        "crop": side,
    }


class OfColor(nn.Module):
    """Makes a grayscale network take RGB: phones and files provide three channels."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.mean(1, keepdim=True))


def classifier(
    model: nn.Module,
    path: Path,
    source,
    *,
    side: int | None = None,
    half: bool = True,
    rewrite: Callable[[onnx.ModelProto], None] | None = None,
) -> None:
    """Write a trained classifier of one of the image sets: input `input` `[1, 3, side, side]`, output `logits`."""
    side = side or source.side
    gray = source.channels == 1
    metadata = image_metadata(source.labels, source.mean * (3 if gray else 1), source.std * (3 if gray else 1), side)
    write(
        OfColor(model) if gray else model,
        path,
        {"input": torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))},
        ["logits"],
        metadata=metadata,
        half=half,
        rewrite=rewrite,
    )
