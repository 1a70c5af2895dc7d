"""The list of trained models, `models/manifest.toml`, and the table of them in `models/README.md`.

What a person writes there is kept (what a model is for, its recipe); everything measurable is measured again by `python
-m zoo.manifest`: sha256, size, parameters, multiply-adds, and the figures of the last line of its log. `--measure
../target/release/skipstone` also measures the latency, of all models or of those named, on a quiet machine; otherwise
the latency of an unchanged file is kept. PyTorch is not needed.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
import tomllib
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).resolve().parent.parent
PRETRAINED, MANIFEST, README = MODELS / "pretrained", MODELS / "manifest.toml", MODELS / "README.md"
SAMPLES = MODELS / "samples"
# What every entry has; a classifier also has labels.
REQUIRED = frozenset(
    "file family task data license recipe log sha256 bytes input outputs parameters multiply_adds latency_ms "
    "latency_machine".split()
)
# How often each of the samples is classified to measure the latency.
ROUNDS = 25
BEGIN, END = "<!-- table: python -m zoo.manifest -->", "<!-- end of table -->"


def entries() -> list[dict]:
    """The models, in the order of the file."""
    return tomllib.loads(MANIFEST.read_text())["model"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def multiply_adds(proto: onnx.ModelProto) -> int:
    """All multiply-adds of convolutions and matrix products, of an If's branches those of the more expensive one, of
    experts those that a token computes: savings by masks, zeros and exits are not subtracted."""
    proto, mixtures = without_mixtures(proto)

    def count(graph: onnx.GraphProto, outer: dict[str, list[int]]) -> int:
        shapes = outer | {
            value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        total = 0
        for node in graph.node:
            counted = node.op_type in ("Conv", "Gemm", "MatMul") or node.output[0] in mixtures
            if counted and 0 in shapes[node.output[0]]:
                raise ValueError(f"{node.name}: the sizes of its result are not known")
            if node.op_type == "Conv":
                total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
            elif node.op_type in ("Gemm", "MatMul"):
                transposed = any(a.name == "transA" and a.i for a in node.attribute)
                total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if transposed else -1]
            elif node.output[0] in mixtures:
                total += math.prod(shapes[node.output[0]][:-1]) * mixtures[node.output[0]]
            total += max((count(a.g, shapes) for a in node.attribute if a.HasField("g")), default=0)
        return total

    return count(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph, {})


def without_mixtures(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A copy in which com.microsoft's MoE, whose shapes ONNX does not know, is an Identity of its tokens, and by output the
    multiply-adds of a token."""
    other, found = onnx.ModelProto(), {}
    other.CopyFrom(proto)
    sizes = {tensor.name: math.prod(tensor.dims[1:]) for tensor in proto.graph.initializer}
    for node in other.graph.node:
        if node.domain == "com.microsoft" and node.op_type == "MoE":
            chosen = next((attribute.i for attribute in node.attribute if attribute.name == "k"), 1)
            found[node.output[0]] = chosen * (sizes[node.input[2]] + sizes[node.input[4]])
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1], node.name))
    return other, found


def weights(proto: onnx.ModelProto) -> tuple[int, float]:
    """Parameters, and the share of zeros among those of convolutions and products."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    arrays = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type in floats]
    large = [array for array in arrays if array.ndim > 1]
    zeros = sum(int((array == 0).sum()) for array in large) / max(1, sum(array.size for array in large))
    return sum(array.size for array in arrays), zeros


# Possible figures of a log's last line: the manifest's key, and the log's spelling.
FIGURES = {
    "accuracy": r"test ([\d.]+) %",
    "image_auroc": r"image AUROC ([\d.]+) %",
    "pixel_auroc": r"pixel AUROC ([\d.]+) %",
    "fewer_multiply_adds": r"([\d.]+) % fewer multiply-adds",
    "diversity": r"diversity ([\d.]+)",
    "experts": r"(\d+) experts?\b",
}


# A value of a model's setting with its accuracy and million multiply-adds.
CHOICE = r"([\d.]+): ([\d.]+) % at ([\d.]+) M"


def logged(log: Path) -> dict:
    """The figures of the last line."""
    last = log.read_text().strip().splitlines()[-1]
    found = {key: float(m[1]) for key, pattern in FIGURES.items() if (m := re.search(pattern, last))}
    choices = [[float(number) for number in choice] for choice in re.findall(CHOICE, last)]
    return found | ({"choices": choices} if choices else {})


def machine() -> str:
    """The name of this machine's processor, and how many cores it has."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def latency(path: Path, skipstone: Path) -> dict:
    """Median milliseconds of the model on the sample images, one thread, and where that was measured. Images, since the
    work of a model with masks or exits depends on them."""
    command = [skipstone, "classify", path, *[SAMPLES] * ROUNDS, "--threads", "1", "--top", "1", "--json"]
    images = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["images"]
    return {"latency_ms": round(statistics.median(image["ms"] for image in images), 3), "latency_machine": machine()}


def measured(entry: dict, skipstone: Path | None) -> dict:
    """`entry` with everything measurable measured; its latency by the command `skipstone`, or kept."""
    path = PRETRAINED / entry["file"]
    proto = onnx.load(path)
    parameters, zeros = weights(proto)
    written = ("file", "family", "task", "data", "license", "recipe", "log")
    kept = {key: value for key, value in entry.items() if key in written}
    found = {
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "input": [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim],
        "outputs": [output.name for output in proto.graph.output],
        "parameters": parameters,
        "multiply_adds": multiply_adds(proto),
    }
    if zeros > 0.05:
        found["zeros"] = round(100 * zeros, 1)
    told = {p.key: p.value for p in proto.metadata_props}
    if "skipstone.settings" in told:
        found["setting"] = told["skipstone.settings"]
    labels = told["skipstone.labels"].split("\n") if "skipstone.labels" in told else None
    if labels:
        found["labels"] = labels
    found |= logged(PRETRAINED / entry["log"])
    if skipstone:
        found |= latency(path, skipstone)
    elif found["sha256"] == entry.get("sha256"):
        found |= {key: entry[key] for key in ("latency_ms", "latency_machine") if key in entry}
    return {**kept, **found}


def toml(value) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value)


def row(entry: dict) -> str:
    """A line of the table."""
    figures = []
    if "accuracy" in entry:
        figures.append(f"{entry['accuracy']:.2f} %")
    if "image_auroc" in entry:
        figures.append(f"AUROC {entry['image_auroc']:.2f} % (images), {entry['pixel_auroc']:.2f} % (pixels)")
    saved = []
    if "zeros" in entry:
        saved.append(f"{entry['zeros']:.1f} % zeros")
    if entry.get("experts", 1) > 1:
        saved.append(f"a token computes 1 of {entry['experts']:.0f} experts")
    if "fewer_multiply_adds" in entry:
        saved.append(f"{entry['fewer_multiply_adds']:.1f} % of the multiply-adds left out")
    if "choices" in entry:
        (first, *low), (last, *high) = (min(entry["choices"]), max(entry["choices"]))
        at = "{0:.2f} % at {1:.1f} M".format
        saved.append(f"`{entry['setting']}` {first:g}: {at(*low)}, to {last:g}: {at(*high)}")
    cells = (
        f"[{entry['file'].removesuffix('.onnx')}](pretrained/{entry['log']})",
        entry["data"],
        f"{entry['parameters'] / 1e6:.3f} M",
        f"{entry['multiply_adds'] / 1e6:.1f} M",
        "; ".join(saved),
        ", ".join(figures),
        f"{entry['latency_ms']:.2f} ms" if "latency_ms" in entry else "",
        f"{entry['bytes'] / 1e6:.2f} MB",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", type=Path, metavar="SKIPSTONE", help="measure the latency with this command")
    parser.add_argument("--only", nargs="+", metavar="FILE", help="measure the latency of these models")
    args = parser.parse_args()
    asked = lambda entry: args.measure if not args.only or entry["file"] in args.only else None
    models = [measured(entry, asked(entry)) for entry in entries()]
    head = MANIFEST.read_text().partition("[[model]]")[0]
    parts = ["[[model]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in model.items()) for model in models]
    MANIFEST.write_text(head + "\n".join(parts))
    table = "\n".join(
        [
            BEGIN,
            "| model (its log) | data | parameters | multiply-adds | what can be skipped | test figure | one thread | file |",
            "|---|---|---|---|---|---|---|---|",
            *map(row, models),
            END,
        ]
    )
    text = README.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(before + table + after)
    print(f"{MANIFEST.name}: {len(models)} models, {sum(m['bytes'] for m in models) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
