"""ncnn: Winograd and packed layouts as by default, f32 storage."""

import ncnn
import numpy as np
from engines import Runtime


class Ncnn(Runtime):
    def __init__(self, model: str, threads: int, image: np.ndarray):
        self.threads = threads
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_vulkan_compute = False
        self.net.opt.use_bf16_storage = False
        self.net.opt.use_fp16_storage = False
        self.net.opt.use_fp16_packed = False
        self.net.opt.use_fp16_arithmetic = False
        if self.net.load_param(model) or self.net.load_model(model.removesuffix(".param") + ".bin"):
            raise RuntimeError(f"cannot load {model}")
        self.image = ncnn.Mat(image[0]).clone()

    def run(self) -> None:
        extractor = self.net.create_extractor()
        extractor.input("in0", self.image)
        status, self.result = extractor.extract("out0")
        if status:
            raise RuntimeError(f"extract: {status}")

    def output(self) -> np.ndarray:
        return np.array(self.result)
