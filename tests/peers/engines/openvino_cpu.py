"""OpenVINO: tuned for the latency of one request, in f32 (by default it uses bf16 if the CPU has it)."""

import numpy as np
import openvino
from engines import Runtime

core = openvino.Core()
# The CPU plugin is a separate library, loaded on first use.
core.get_property("CPU", "FULL_DEVICE_NAME")


class OpenVino(Runtime):
    def __init__(self, model: str, threads: int, image: np.ndarray):
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
            },
        )
        self.request = compiled.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(image, shared_memory=True))

    def run(self) -> None:
        self.request.infer()

    def output(self) -> np.ndarray:
        return self.request.get_output_tensor().data
