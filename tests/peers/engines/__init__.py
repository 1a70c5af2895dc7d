"""The runtimes that Python drives, one class each: its library, with its best settings for one f32 image.

Modules and their libraries are imported before anything is measured.
"""

import importlib

import numpy as np

# Module and class.
ENGINES = {
    "onnxruntime": ("ort", "OnnxRuntime"),
    "openvino": ("openvino_cpu", "OpenVino"),
    "ncnn": ("ncnn_cpu", "Ncnn"),
    "mnn": ("mnn_cpu", "Mnn"),
    "mnn_small": ("mnn_cpu", "MnnSmall"),
    "litert": ("litert", "LiteRt"),
}


class Runtime:
    """A loaded model with an image to run it on."""

    # Memory layout of the image.
    layout = "nchw"

    def __init__(self, model: str, threads: int, image: np.ndarray):
        raise NotImplementedError

    def place_input(self) -> None:
        """Put the image where an inference reads it; not timed. Most runtimes leave it there."""

    def run(self) -> None:
        """One inference."""
        raise NotImplementedError

    def output(self) -> np.ndarray:
        """The output of the last inference."""
        raise NotImplementedError


def find(name: str) -> type[Runtime]:
    """The class of that name, its library loaded."""
    module, engine = ENGINES[name]
    return getattr(importlib.import_module(f"engines.{module}"), engine)
