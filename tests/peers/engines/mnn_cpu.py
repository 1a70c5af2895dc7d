"""MNN: an f32 session (precision high), with the Winograd tiles that it chooses, and with smaller ones.

Its largest tiles are the fastest but lose precision: on some networks more than the comparison allows.
"""

import MNN
import numpy as np
from engines import Runtime


# An MNN hint: the memory level of Winograd, 3 by default; lower means smaller tiles.
WINOGRAD_MEMORY_LEVEL = 3


class Mnn(Runtime):
    winograd = 3

    def __init__(self, model: str, threads: int, image: np.ndarray):
        self.interpreter = MNN.Interpreter(model)
        self.interpreter.setSessionHint(WINOGRAD_MEMORY_LEVEL, self.winograd)
        self.session = self.interpreter.createSession(
            {"backend": "CPU", "precision": "high", "memory": "high", "power": "high", "numThread": threads}
        )
        self.entry = self.interpreter.getSessionInput(self.session)
        self.image = MNN.Tensor(image.shape, MNN.Halide_Type_Float, image, MNN.Tensor_DimensionType_Caffe)

    def place_input(self) -> None:
        # An inference overwrites the input's memory.
        self.entry.copyFrom(self.image)

    def run(self) -> None:
        self.interpreter.runSession(self.session)

    def output(self) -> np.ndarray:
        result = self.interpreter.getSessionOutput(self.session)
        shape = result.getShape()
        host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), MNN.Tensor_DimensionType_Caffe)
        result.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32)


class MnnSmall(Mnn):
    winograd = 1
