"""Checks `skipstone slice` against ONNX Runtime, on networks whose parts are cut out here in another way.

A narrower network must answer what the whole one answers with zeros for the other channels; a cropped kernel what the whole
one answers with zeros round its middle; a network without a residual block what it answers where the block adds zeros; one
for images of another size what ONNX Runtime answers for it.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from architectures import check as architectures
from harness import driver, fill
from transform.pruning import SIMPLENET, parity, same


def find(name: str, folder: Path) -> Path:
    if name == SIMPLENET.stem:
        return SIMPLENET
    return fill.fill(name) if (fill.GRAPHS / f"{name}.onnx").exists() else architectures.fill(name, folder)


def label(node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type} of '{node.output[0]}'"


def stored(model: onnx.ModelProto, name: str) -> onnx.TensorProto | None:
    """The constant of that name, or the one that a Cast reads for it."""
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] == name:
            name = node.input[0]
    return next((tensor for tensor in model.graph.initializer if tensor.name == name), None)


def change(model: onnx.ModelProto, name: str, edit) -> None:
    tensor = stored(model, name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), tensor.name))


def macs(report: dict) -> float:
    return report["after"]["macs"] / report["before"]["macs"]


def check_width(skipstone: driver.Skipstone, name: str, folder: Path) -> list[str]:
    source, path = find(name, folder), folder / "narrow.onnx"
    report = json.loads(skipstone.call("slice", source, "--width", 50, "-o", path, "--json"))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    wrong = [] if macs(report) < 0.6 else [f"{macs(report):.2f} of the multiply-adds are left"]
    # The first layer keeps the first filters.
    first = [next(node for node in onnx.load(file).graph.node if node.op_type == "Conv") for file in (source, path)]
    whole, part = (numpy_helper.to_array(stored(onnx.load(file), node.input[1])) for file, node in zip((source, path), first))
    if not np.array_equal(whole[: len(part)], part):
        wrong.append("the first layer does not keep the first filters")
    return wrong + parity(skipstone, path)


def check_kernel(skipstone: driver.Skipstone, name: str, folder: Path) -> list[str]:
    source, path = find(name, folder), folder / "cropped.onnx"
    want, cropped, whole = onnx.load(source), 0, []
    for node in want.graph.node:
        tensor = stored(want, node.input[1]) if node.op_type == "Conv" else None
        if tensor is not None and max(tensor.dims[2:]) > 3:
            # Patches of 4x4 pixels have no middle of 3x3.
            if any(side % 2 == 0 for side in tensor.dims[2:]):
                whole += ["--skip", label(node)]
                continue
            cropped += 1

            def middle(weights: np.ndarray) -> np.ndarray:
                kept = np.zeros_like(weights)
                parts = tuple(slice(max((side - 3) // 2, 0), side - max((side - 3) // 2, 0)) for side in weights.shape[2:])
                kept[:, :, *parts] = weights[:, :, *parts]
                return kept

            change(want, node.input[1], middle)
    onnx.save(want, folder / "middle.onnx")
    skipstone.call("slice", source, "--kernel", 3, *whole, "-o", path)
    return ([] if cropped else ["there is no large kernel"]) + same(folder / "middle.onnx", path) + parity(skipstone, path)


def residual(model: onnx.ModelProto) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """The first sum of a value and of what a convolution, or its normalization, makes of it in the end, and that node."""
    writers = {output: node for node in model.graph.node for output in node.output}

    def reads(value: str, wanted: str) -> bool:
        return value == wanted or value in writers and any(reads(name, wanted) for name in writers[value].input)

    for add in (node for node in model.graph.node if node.op_type == "Add"):
        for block, shortcut in (add.input, reversed(add.input)):
            last = writers.get(block)
            if last is not None and last.op_type in ("Conv", "BatchNormalization") and shortcut in writers and reads(block, shortcut):
                return add, last
    raise ValueError("there is no residual block")


def check_depth(skipstone: driver.Skipstone, name: str, folder: Path) -> list[str]:
    """A residual block whose last layer is a convolution without an activation."""
    source, path = find(name, folder), folder / "shallow.onnx"
    want = onnx.load(source)
    add, last = residual(want)
    for constant in last.input[1:3]:
        change(want, constant, np.zeros_like)
    onnx.save(want, folder / "zeros.onnx")
    report = json.loads(skipstone.call("slice", source, "--drop", label(add), "-o", path, "--json"))
    wrong = [] if report["after"]["macs"] < report["before"]["macs"] else ["no work is gone"]
    return wrong + same(folder / "zeros.onnx", path) + parity(skipstone, path)


def check_size(skipstone: driver.Skipstone, name: str, folder: Path) -> list[str]:
    source, path = find(name, folder), folder / "small.onnx"
    skipstone.call("slice", source, "--size", "96x96", "-o", path)
    want = onnx.load(source)
    for at, side in ((2, 96), (3, 96)):
        want.graph.input[0].type.tensor_type.shape.dim[at].dim_value = side
    del want.graph.value_info[:]
    onnx.save(want, folder / "declared.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return same(folder / "declared.onnx", path) + parity(skipstone, path)


def check_refusals(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    wrong = []
    first = next(node for node in onnx.load(SIMPLENET).graph.node if node.op_type == "Conv")
    for arguments, expected in ((["--drop", "none"], "none"), (["--drop", label(first)], "shape"), (["--kernel", 2], "middle")):
        try:
            skipstone.call("slice", SIMPLENET, *arguments, "-o", folder / "refused.onnx")
            wrong.append(f"{arguments} is not refused")
        except driver.Refused as error:
            wrong += [] if expected in error.message else [f"{arguments}: {error}"]
    return wrong


CHECKS = [
    (check_width, ["simplenet-310k-cifar10", "skipnet_xs", "resnet18", "mobilenetv3_large", "dynamo_mobilenetv2_100"]),
    (check_kernel, ["mobilenetv3_large", "convnext_atto"]),
    (check_depth, ["resnet18", "dynamo_mobilenetv2_100", "mobilenetv3_large"]),
    (check_size, ["skipnet_xs", "resnet18", "mobilenetv3_large"]),
]


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="skipstone-slice-") as scratch:
        folder = Path(scratch)
        for check, names in [*CHECKS, (check_refusals, [None])]:
            for name in names:
                try:
                    wrong = check(skipstone, *([name] if name else []), folder)
                except (driver.Refused, driver.Crashed) as error:
                    wrong = [str(error)]
                failed, total = failed + bool(wrong), total + 1
                print(f"{'FAIL' if wrong else 'ok  '} {check.__name__.removeprefix('check_')} {name or ''}", flush=True)
                for problem in wrong:
                    print(f"     {problem}", flush=True)
    print(f"slice: {total} checks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
