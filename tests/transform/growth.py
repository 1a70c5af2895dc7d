"""Checks that `skipstone widen` and `deepen` change the size of a network and nothing else.

Of networks that nobody chose for it (the zoo's and exports of timm's, with random weights, and the pretrained SimpleNet) ONNX
Runtime must give the same answer before and after, and Skipstone that of ONNX Runtime, from the file and from its package.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime

from architectures import check as architectures
from harness import driver, fill
from transform.pruning import SIMPLENET, parity, same

# Residual sums, squeeze-and-excite, depthwise and grouped convolutions, concatenations.
NETWORKS = ("skipnet_xs", "resnet18", "mobilenetv3_large", "dynamo_mobilenetv2_100", "tv_squeezenet1_1", "ghostnet_100")


def check_width(skipstone: driver.Skipstone, source: Path, folder: Path, percent: int) -> list[str]:
    wide = folder / f"{source.stem}-wide.onnx"
    report = json.loads(skipstone.call("widen", source, "--by", percent, "-o", wide, "--json"))
    onnx.checker.check_model(onnx.load(wide), full_check=True)
    macs = report["after"]["macs"] / report["before"]["macs"]
    wrong = [] if macs > 1 + percent / 500 else [f"only {macs:.2f} of the multiply-adds"]
    return wrong + [f"widened: {problem}" for problem in same(source, wide) + parity(skipstone, wide)]


def check_depth(skipstone: driver.Skipstone, source: Path, folder: Path) -> list[str]:
    """Behind the first, the middle and the last ReLU."""
    activations = [node for node in onnx.load(source).graph.node if node.op_type in ("Relu", "Clip")]
    if not activations:
        return []
    names = {node.name or f"{node.op_type} of '{node.output[0]}'": None for node in activations[:: max(len(activations) // 2, 1)]}
    deep = folder / f"{source.stem}-deep.onnx"
    arguments = [argument for name in names for argument in ("--after", name)]
    report = json.loads(skipstone.call("deepen", source, *arguments, "-o", deep, "--json"))
    onnx.checker.check_model(onnx.load(deep), full_check=True)
    before, after = (sum(node.op_type in ("Conv", "MatMul") for node in onnx.load(file).graph.node) for file in (source, deep))
    wrong = [] if after == before + len(names) and report["after"]["macs"] > report["before"]["macs"] else ["no layer was added"]
    return wrong + [f"deepened: {problem}" for problem in same(source, deep) + parity(skipstone, deep)]


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", help="some of the networks")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="skipstone-growth-") as scratch:
        folder = Path(scratch)
        for name in args.only or (SIMPLENET.stem, *NETWORKS):
            try:
                if name == SIMPLENET.stem:
                    source = SIMPLENET
                else:
                    source = fill.fill(name) if (fill.GRAPHS / f"{name}.onnx").exists() else architectures.fill(name, folder)
                wrong = check_width(skipstone, source, folder, 50) + check_depth(skipstone, source, folder)
            except (driver.Refused, driver.Crashed) as error:
                wrong = [str(error)]
            failed, total = failed + bool(wrong), total + 1
            print(f"{'FAIL' if wrong else 'ok  '} {name}", flush=True)
            for problem in wrong:
                print(f"     {problem}", flush=True)
    print(f"growth: {total} networks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
