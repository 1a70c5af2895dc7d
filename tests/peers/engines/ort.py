"""ONNX Runtime: all graph optimizations, input and output bound once."""

import numpy as np
import onnxruntime
from engines import Runtime


class OnnxRuntime(Runtime):
    def __init__(self, model: str, threads: int, image: np.ndarray):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input(self.session.get_inputs()[0].name, image)
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def output(self) -> np.ndarray:
        return self.binding.copy_outputs_to_cpu()[0]
