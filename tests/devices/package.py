"""Tests packages as app developers and apps use them.

Every model of the zoo is compiled, and its package must give bit-identical outputs to its ONNX file on the same
instruction set. The pretrained model must predict the same classes for the samples, also on the CPU of an emulated
phone and in a program without an ONNX parser. A package that is damaged, truncated, signed with another key or of a
newer version must be refused with a reason.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from harness import driver, fill

PRETRAINED = driver.ROOT / "models" / "pretrained" / "simplenet-310k-cifar10.onnx"
SAMPLES = sorted((driver.ROOT / "models" / "samples").glob("*.png"))
TOLERANCE = 1e-4
# Tolerance for a probability when weights, and perhaps products, are rounded to half precision.
F16_TOLERANCE = 0.01
DAMAGES = 300


class Check:
    """Counts and prints passed and failed checks."""

    def __init__(self):
        self.failed = 0

    def __call__(self, what: str, wrong: str | None = None) -> None:
        self.failed += wrong is not None
        print(f"{'ok  ' if wrong is None else 'FAIL'} {what}{'' if wrong is None else ': ' + wrong}", flush=True)


def tops(skipstone: driver.Skipstone, model: Path) -> list[dict]:
    """The top-1 class of every sample."""
    report = json.loads(skipstone.call("classify", model, *SAMPLES, "--top", "1", "--json"))
    return [image["top"][0] for image in report["images"]]


def same_answers(skipstone: driver.Skipstone, model: Path, folder: Path) -> str | None:
    """Compares a model with its packages for this machine and for any machine."""
    inspected = skipstone.inspect(model)
    inputs = {port["name"]: fill.image(port["shape"][2], seed=5) for port in inspected["inputs"]}
    names = [port["name"] for port in inspected["outputs"]]
    want = skipstone.run(model, inputs, names)
    for target in ("host", "generic"):
        package = folder / f"{model.stem}-{target}.skip"
        skipstone.call("compile", model, "-o", package, "--target", target)
        got = skipstone.run(package, inputs, names)
        package.unlink()
        if not all(np.array_equal(g, w) for g, w in zip(got, want)):
            return f"the {target} package's output differs"
    return None


def refusal(skipstone: driver.Skipstone, package: Path, *options) -> str:
    """The error code of opening, or 'opened'."""
    try:
        skipstone.inspect(package, *options)
    except driver.Refused as refused:
        return refused.code if len(refused.message) > 20 else "no reason"
    return "opened"


def damage(check: Check, skipstone: driver.Skipstone, good: Path, bad: Path) -> None:
    """Flipped bytes, truncated files and another version are refused."""
    whole = good.read_bytes()
    numbers = random.Random(1)
    places = [*range(0, 152, 7), *(numbers.randrange(len(whole)) for _ in range(DAMAGES)), len(whole) - 1]
    codes: dict[str, int] = {}
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << numbers.randrange(8)
        bad.write_bytes(changed)
        code = refusal(skipstone, bad)
        codes[code] = codes.get(code, 0) + 1
    # Without its first eight bytes a file is not a package, and is parsed as ONNX.
    odd = [code for code in codes if not code.startswith(("package.", "model."))]
    check(f"{good.stem}, {len(places)} flipped bits: {codes}", f"{odd}" if odd else None)
    cut = set()
    for length in [0, 1, 8, 100, *(numbers.randrange(len(whole)) for _ in range(30)), len(whole) - 1]:
        bad.write_bytes(whole[:length])
        cut.add(refusal(skipstone, bad))
    check(f"{good.stem}, truncated", None if all(c.startswith(("package.", "model.")) for c in cut) else f"{cut}")
    bad.write_bytes(whole[:8] + (99).to_bytes(4, "little") + whole[12:])
    check(f"{good.stem}, a newer version", None if refusal(skipstone, bad) == "package.version" else refusal(skipstone, bad))


def signatures(check: Check, skipstone: driver.Skipstone, folder: Path) -> None:
    """Keys made by openssl."""
    for name in ("ours", "theirs"):
        key, public = folder / f"{name}.pem", folder / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    signed, unsigned = folder / "signed.skip", folder / "unsigned.skip"
    skipstone.call("compile", PRETRAINED, "-o", signed, "--sign", folder / "ours.pem")
    skipstone.call("compile", PRETRAINED, "-o", unsigned)
    for package, key, want in [
        (signed, "ours", "opened"),
        (signed, "theirs", "package.signature"),
        (unsigned, "ours", "package.signature"),
    ]:
        got = refusal(skipstone, package, "--signed-by", folder / f"{key}.pub")
        check(f"{package.stem}, {key} demanded", None if got == want else got)
    for package in (unsigned, signed):
        damage(check, skipstone, package, folder / "bad.skip")


def one_node(operator: str, name: str, model: Path, **attributes) -> Path:
    """A model of one node that keeps an image's shape."""
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [1, 3, 8, 8]) for port in ("x", "y")]
    node = helper.make_node(operator, ["x"], ["y"], name=name, **attributes)
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
    return model


def fallback(check: Check, skipstone: driver.Skipstone, folder: Path) -> None:
    """A model that no device can run is refused with the node's name."""
    model = one_node("RandomNormalLike", "the odd one", folder / "odd.onnx")
    try:
        skipstone.call("compile", model, "-o", folder / "odd.skip")
        check("a step without a kernel", "compiled")
    except driver.Refused as refused:
        check("a step without a kernel", None if "the odd one" in refused.message else str(refused))


class Frames:
    """The samples as camera frames for the example `classify`, and their expected labels."""

    def __init__(self, skipstone: driver.Skipstone, folder: Path):
        self.want = tops(skipstone, PRETRAINED)
        self.size = [str(side) for side in Image.open(SAMPLES[0]).size]
        self.files = [folder / f"{sample.stem}.rgb" for sample in SAMPLES]
        for sample, file in zip(SAMPLES, self.files):
            file.write_bytes(np.asarray(Image.open(sample).convert("RGB")).tobytes())

    def wrong(self, program: list, package: Path, tolerance: float = TOLERANCE) -> str | None:
        """What is wrong with a program's answers."""
        done = subprocess.run([*program, package, *self.size, *self.files], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"exit status {done.returncode}: {done.stderr.strip()}"
        got = [line.rsplit(" ", 2)[1:] for line in done.stdout.splitlines()]
        if [label for label, _ in got] != [top["label"] for top in self.want]:
            return "other labels"
        if any(abs(float(score) - top["score"]) > tolerance for (_, score), top in zip(got, self.want)):
            return "other scores"
        return None


def device(check: Check, skipstone: driver.Skipstone, folder: Path, program: Path, cpus: list[str]) -> None:
    """The samples on emulated phones, with the library that has no parser. With f16 weights, CPUs that have
    half-precision arithmetic use it, and the others read the same package."""
    frames = Frames(skipstone, folder)
    packages = (("neon", "f32", TOLERANCE), ("generic", "f32", TOLERANCE), ("neon", "f16", F16_TOLERANCE))
    for target, precision, tolerance in packages:
        package = folder / f"device-{target}-{precision}.skip"
        skipstone.call("compile", PRETRAINED, "-o", package, "--target", target, "--precision", precision)
        for cpu in cpus:
            wrong = frames.wrong([*driver.xtask("cross", "emulator", cpu).split(), program], package, tolerance)
            check(f"{len(SAMPLES)} samples on {cpu}, {target} package in {precision}", wrong)


def subset(check: Check, skipstone: driver.Skipstone, folder: Path) -> None:
    """A library with the operators of one package runs that package, and its error for another package names the
    missing operators."""
    package, other = folder / "subset.skip", folder / "other.skip"
    skipstone.call("compile", PRETRAINED, "-o", package, "--target", "generic")
    skipstone.call("compile", one_node("Softmax", "odds", folder / "other.onnx"), "-o", other, "--target", "generic")
    operators = skipstone.call("operators", package).strip()
    target = Path(os.environ.get("CARGO_TARGET_DIR", driver.ROOT / "target"))
    build = ["cargo", "build", "--quiet", "-p", "skipstone", "--no-default-features", "--example", "classify"]
    subprocess.run(build, cwd=driver.ROOT, env=os.environ | {"SKIPSTONE_OPERATORS": operators}, check=True)
    program, frames = target / "debug/examples/classify", Frames(skipstone, folder)
    check(f"a library of {operators}", frames.wrong([program], package))
    wrong = frames.wrong([program], other) or "it runs"
    check("the error names the missing operators", None if "SKIPSTONE_OPERATORS" in wrong and "odds" in wrong else wrong)


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--device", type=Path, metavar="PROGRAM", help="the example `classify`, built for aarch64")
    parser.add_argument("--cpus", nargs="+", default=["cortex-a53", "max"], help="what to emulate")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    check = Check()
    with tempfile.TemporaryDirectory(prefix="skipstone-") as name:
        folder = Path(name)
        package = folder / "s.skip"
        skipstone.call("compile", PRETRAINED, "-o", package)
        alike = tops(skipstone, package) == tops(skipstone, PRETRAINED)
        check("the samples, labels and scores", None if alike else "differ from the ONNX file's")
        models = [fill.fill(name) for name in fill.names()] + [PRETRAINED]
        for model, wrong in zip(models, driver.in_parallel(lambda m: same_answers(skipstone, m, folder), models)):
            check(model.stem, wrong)
        signatures(check, skipstone, folder)
        fallback(check, skipstone, folder)
        subset(check, skipstone, folder)
        if args.device:
            device(check, skipstone, folder, args.device, args.cpus)
    sys.exit(check.failed > 0)


if __name__ == "__main__":
    main()
