"""Runs the decision rules of `skipstone classify` against their formulas in NumPy.

A model maps an image of four pixels to any number of outputs, so that every rule gets outputs of every length; its own
arithmetic is that of one product.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper
from PIL import Image

from harness import driver

PLAIN = ("--mean", "0", "--std", "1")


def model(path: Path, rng: np.random.Generator, outputs: int, last: str | None = None) -> np.ndarray:
    """Saves a model that ends in an activation, and returns the weights of the product before it."""
    weight = rng.standard_normal((12, outputs)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    if last:
        nodes.append(helper.make_node(last, ["y"], ["z"], **({"axis": 1} if last == "Softmax" else {})))
    graph = helper.make_graph(
        nodes,
        "outputs",
        [helper.make_tensor_value_info("x", T.FLOAT, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("z" if last else "y", T.FLOAT, [1, outputs])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return weight.astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


class Rules:
    """The command, an image, and the comparisons."""

    def __init__(self, skipstone: driver.Skipstone, folder: Path, rng: np.random.Generator):
        self.skipstone, self.folder, self.rng = skipstone, folder, rng
        self.count, self.failed = 0, 0
        pixels = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "image.png")
        self.x = pixels.transpose(2, 0, 1).reshape(-1) / 255

    def scores(self, *options) -> np.ndarray:
        """All scores in the order of the classes, after a check of their ranking: the best first, the first of ties."""
        call = self.skipstone.call(
            "classify", self.folder / "model.onnx", self.folder / "image.png", *PLAIN, "--json", "--top", "1000000", *options
        )
        top = json.loads(call)["images"][0]["top"]
        keys = [(-it["score"], it["index"]) for it in top]
        assert keys == sorted(keys), "not ranked"
        return np.array([it["score"] for it in sorted(top, key=lambda it: it["index"])])

    def rule(self, name: str, table: np.ndarray, *options) -> np.ndarray:
        np.save(self.folder / "table.npy", table)
        return self.scores("--rule", f"{name}={self.folder / 'table.npy'}", *options)

    def equal(self, what: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
        self.count += 1
        if got.shape != want.shape or not np.allclose(got, want, rtol=0, atol=tolerance * max(1e-9, np.abs(want).max())):
            self.failed += 1
            print(f"FAIL {what}: {got[:5]} instead of {want[:5]}")

    def refused(self, code: str, *call) -> None:
        self.count += 1
        try:
            self.rule(*call)
        except driver.Refused as error:
            if error.code == code:
                return
            print(f"FAIL {call[0]}: {error}")
        else:
            print(f"FAIL {call[0]} is not refused")
        self.failed += 1

    def outputs(self, outputs: int, last: str | None = None) -> np.ndarray:
        """Makes a model, and returns its logits."""
        return self.x @ model(self.folder / "model.onnx", self.rng, outputs, last)


def temperatures(rules: Rules) -> None:
    for last, activation, formula in (
        (None, "softmax", softmax),
        (None, "sigmoid", sigmoid),
        ("Softmax", "softmax", softmax),
        ("Sigmoid", "sigmoid", sigmoid),
    ):
        for outputs in (1, 2, 17):
            for temperature in (0.7, 1.0, 3.0):
                z = rules.outputs(outputs, last)
                got = rules.scores("--activation", activation, "--temperature", temperature)
                rules.equal(f"{last} {activation} {outputs} at {temperature}", got, formula(z / temperature), 1e-5)


def cosines(rules: Rules) -> None:
    for outputs, classes in ((1, 1), (1, 4), (3, 2), (8, 1), (17, 33), (512, 1000)):
        for dtype, tolerance in ((np.float32, 1e-5), (np.float16, 1e-5)):
            z = rules.outputs(outputs)
            table = rules.rng.standard_normal((classes, outputs)).astype(dtype)
            rows = table.astype(np.float64)
            want = rows @ z / np.linalg.norm(z) / np.linalg.norm(rows, axis=1)
            what = f"cosine {outputs} {classes} {dtype.__name__}"
            rules.equal(what, rules.rule("cosine", table), want, tolerance)
            got = rules.rule("cosine", table, "--activation", "softmax", "--temperature", "0.05")
            rules.equal(f"{what} softmax", got, softmax(want / 0.05), 1e-4)
    rules.outputs(4)
    rules.refused("input.table", "cosine", np.ones((3, 5), np.float32))
    rules.refused("input.table", "cosine", np.zeros((3, 4), np.float32))
    rules.refused("input.table", "cosine", np.full((3, 4), np.nan, np.float32))
    rules.refused("input.table", "cosine", np.ones(4, np.float32))
    rules.refused("input.table", "cosine", np.ones((3, 4), np.int32))


def frechet(rules: Rules) -> None:
    for outputs, candidates, width in ((1, 1, 1), (2, 3, 1), (5, 5, 4), (10, 50, 16), (100, 100, 300)):
        for last, activation, formula in ((None, "softmax", softmax), ("Sigmoid", "sigmoid", sigmoid)):
            p = formula(rules.outputs(outputs, last) / 2)
            embeddings = rules.rng.standard_normal((candidates, width)).astype(np.float32)
            far = embeddings.astype(np.float64)
            squared = ((far[:outputs, np.newaxis] - far[np.newaxis]) ** 2).sum(-1)
            options = ("--activation", activation, "--temperature", "2")
            what = f"{outputs} {candidates} {width} {activation}"
            got = rules.rule("frechet", embeddings, *options)
            rules.equal(f"frechet {what}", got, -(p @ squared), 1e-4)
            for dtype in (np.float32, np.float16):
                distances = np.sqrt(squared).astype(dtype)
                got = rules.rule("distances", distances, *options)
                want = -(p @ distances.astype(np.float64) ** 2)
                rules.equal(f"distances {what} {dtype.__name__}", got, want, 1e-4)
    p = softmax(rules.outputs(1000))
    many = rules.rng.standard_normal((100_000, 32)).astype(np.float16)
    mean, exact = p @ many[:1000].astype(np.float64), many.astype(np.float64)
    want = -(((exact - mean) ** 2).sum(1) + p @ ((exact[:1000] - mean) ** 2).sum(1))
    rules.equal("frechet of 100,000 classes", rules.rule("frechet", many), want, 1e-4)
    rules.refused("input.table", "frechet", many[:999])
    rules.refused("input.table", "distances", many)
    rules.refused("input.table", "frechet", many, "--activation", "none")


def hamming(rules: Rules) -> None:
    for bits, classes in ((1, 1), (7, 3), (8, 8), (9, 100), (64, 5), (65, 5), (128, 5000)):
        for last, bound in ((None, 0.0), ("Sigmoid", 0.5), ("Tanh", 0.0)):
            z = rules.outputs(bits, last)
            own = {None: z, "Sigmoid": sigmoid(z), "Tanh": np.tanh(z)}[last] > bound
            codes = rules.rng.integers(0, 2, (classes, bits)).astype(bool)
            want = -(codes != own).sum(1).astype(np.float64)
            rules.equal(f"hamming {bits} {classes} {last}", rules.rule("hamming", codes), want, 0)
            rules.equal(f"packed {bits} {classes} {last}", rules.rule("hamming", np.packbits(codes, axis=1)), want, 0)
    rules.outputs(9)
    rules.refused("input.table", "hamming", np.ones((3, 8), bool))
    rules.refused("input.table", "hamming", np.full((3, 2), 255, np.uint8))
    rules.refused("input.table", "hamming", np.ones((3, 9), np.float32))


def packages(rules: Rules) -> None:
    """Temperature and thresholds are stored by `compile`."""
    z = rules.outputs(3)
    options = ("--temperature", "2.5", "--threshold", "0.2,0.9,0.3")
    package = rules.folder / "model.skip"
    rules.skipstone.call("compile", rules.folder / "model.onnx", "-o", package, *PLAIN, *options)
    found = rules.skipstone.call("classify", package, rules.folder / "image.png", "--json")
    top = json.loads(found)["images"][0]["top"]
    p = softmax(z / 2.5)
    want = [index for index in np.argsort(-p) if p[index] >= (0.2, 0.9, 0.3)[index]]
    rules.equal("a package's classes", np.array([it["index"] for it in top]), np.array(want), 0)
    rules.equal("a package's scores", np.array([it["score"] for it in top]), p[want], 1e-5)


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="skipstone-") as name:
        rules = Rules(driver.Skipstone(args.binary, args.runner), Path(name), np.random.default_rng(11))
        for check in (temperatures, cosines, frechet, hamming, packages):
            check(rules)
    print(f"rules: {rules.count - rules.failed} of {rules.count} comparisons right")
    sys.exit(rules.failed > 0)


if __name__ == "__main__":
    main()
