"""Models in the format of each runtime, kept in build/peers/models.

ONNX Runtime, tract, rten and, in one of three configurations, Skipstone read the ONNX file itself. A conversion is
repeated when the model, the command that converts it, or a pinned version changes.
"""

import hashlib
import subprocess
from pathlib import Path

from peers import environment
import onnx

MODELS = environment.BUILD / "models"
TIMEOUT_SECONDS = 600

OPENVINO = """
import sys, openvino
openvino.save_model(openvino.convert_model(sys.argv[1]), sys.argv[2], compress_to_fp16=False)
"""
# Not the packaged command, which installs a package for usage reports.
MNN = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"


class Failed(Exception):
    """The last line of the converter's log."""


def to_openvino(source: Path, folder: Path, _: list[int]) -> tuple[list, Path]:
    target = folder / "model.xml"
    return [environment.PYTHON, "-c", OPENVINO, source, target], target


def pool_by_name(model: onnx.ModelProto) -> onnx.ModelProto:
    """Global max pooling for a maximum over height and width, which pnnx does not know."""
    nodes = []
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "ReduceMax" and attributes == {"axes": [2, 3], "keepdims": 0}:
            pooled = f"{node.output[0]}/pooled"
            nodes.append(onnx.helper.make_node("GlobalMaxPool", node.input, [pooled]))
            nodes.append(onnx.helper.make_node("Flatten", [pooled], node.output))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def to_ncnn(source: Path, folder: Path, dims: list[int]) -> tuple[list, Path]:
    # pnnx names its files after the model and puts them next to it.
    rewritten = folder / "model.onnx"
    onnx.save(pool_by_name(onnx.load(source)), rewritten)
    shape = ",".join(map(str, dims))
    return [environment.CONVERTERS / "pnnx", rewritten, f"inputshape=[{shape}]", "fp16=0"], folder / "model.ncnn.param"


def to_mnn(source: Path, folder: Path, _: list[int]) -> tuple[list, Path]:
    target = folder / "model.mnn"
    options = ["-f", "ONNX", "--modelFile", source, "--MNNModel", target, "--bizCode", "skipstone"]
    return [environment.PYTHON, "-c", MNN, *options], target


def to_litert(source: Path, folder: Path, _: list[int]) -> tuple[list, Path]:
    target = folder / "model.tflite"
    script = environment.HERE / "convert_litert.py"
    return [environment.CONVERTERS / "python", script, source, target], target


def to_package(source: Path, folder: Path, _: list[int]) -> tuple[list, Path]:
    target = folder / "model.skip"
    # Not the first word of the command: a change of the `skipstone` binary must repeat the conversion.
    return ["env", environment.SKIPSTONE, "compile", source, "-o", target, "--target", "host"], target


def to_small_package(source: Path, folder: Path, dims: list[int]) -> tuple[list, Path]:
    command, target = to_package(source, folder, dims)
    return [*command, "--memory", "small"], target


# How: the command that converts, and the file that it writes.
CONVERTERS = {
    "skipstone_package": to_package,
    "skipstone_small": to_small_package,
    "openvino": to_openvino,
    "ncnn": to_ncnn,
    "mnn": to_mnn,
    "mnn_small": to_mnn,
    "litert": to_litert,
}


def digest(command: list, target: Path) -> str:
    """A hash of everything that a conversion depends on: the words of its command, the files among them, the versions."""
    state = hashlib.sha256()
    for word in command:
        state.update(str(word).encode())
        if word != command[0] and word != target and isinstance(word, Path):
            state.update(word.read_bytes())
    for name in ("requirements.txt", "requirements-converters.txt"):
        state.update((environment.HERE / name).read_bytes())
    return state.hexdigest()


def convert(runtime: str, source: Path, dims: list[int]) -> Path:
    """The file of `source` for that runtime, for an input of shape `dims`."""
    if runtime not in CONVERTERS:
        return source
    folder = MODELS / runtime / source.stem
    folder.mkdir(parents=True, exist_ok=True)
    command, target = CONVERTERS[runtime](source.resolve(), folder, dims)
    stamp, wanted = folder / "digest", digest(command, target)
    if target.exists() and stamp.exists() and stamp.read_text() == wanted:
        return target
    target.unlink(missing_ok=True)
    log = folder / "log.txt"
    with log.open("w") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=output, timeout=TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"no result after {TIMEOUT_SECONDS} s") from None
    # pnnx always exits with 0.
    if done.returncode or not target.exists():
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise Failed(f"exit status {done.returncode}: {last[-1][:200] if last else 'no output'}")
    stamp.write_text(wanted)
    return target
