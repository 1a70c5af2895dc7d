"""LiteRT: its XNNPACK delegate, which is on by default."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from engines import Runtime


class LiteRt(Runtime):
    layout = "nhwc"

    def __init__(self, model: str, threads: int, image: np.ndarray):
        self.interpreter = Interpreter(model, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], image)
        self.result = self.interpreter.get_output_details()[0]["index"]

    def run(self) -> None:
        self.interpreter.invoke()

    def output(self) -> np.ndarray:
        return self.interpreter.get_tensor(self.result)
