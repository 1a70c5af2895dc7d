"""Checks `skipstone prune` against the definitions of its methods in numpy, and its files against ONNX Runtime.

On the pretrained SimpleNet and the images of models/samples, every method and pattern must choose the weights or
channels that its formula chooses. Channels are also removed from networks that were not chosen for this (the zoo's,
with random weights, and exports from timm): ONNX Runtime must give the same outputs for the file without these channels
as for the file with zeros in them, and Skipstone the same as ONNX Runtime, from the file and from its package.
"""

import json
import logging
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image

from architectures import check as architectures
from harness import driver, fill

PRETRAINED = driver.ROOT / "models" / "pretrained"
SIMPLENET = PRETRAINED / "simplenet-310k-cifar10.onnx"
RECIPE = PRETRAINED / "simplenet-310k-beta50-cifar10.onnx"
SPARSE = PRETRAINED / "simplenet-310k-sparse80-cifar10.onnx"
SAMPLES = driver.ROOT / "models" / "samples"
# Networks with removable channels: residual sums, squeeze-and-excite, depthwise and grouped convolutions,
# concatenations, attention.
ZOO = ("skipnet_xs", "resnet18", "mobilenetv3_large", "simplenet_small_m1_05")
ARCHITECTURES = (
    "dynamo_mobilenetv2_100", "tv_squeezenet1_1", "regnety_002", "res2net50_26w_4s", "convnext_atto",
    "vit_tiny_patch16_224", "ghostnet_100",
)  # fmt: skip
TOLERANCE = 1e-4
# A choice may differ from the definition's if scores are this close, as a share of the larger.
CLOSE = 1e-4


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Constants by name, including those that go through a Cast."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]].astype(np.float32)
    return held


def constants_of_layers(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, np.ndarray]]:
    """Convolutions and linear layers with their weights `[filters, depth, taps]`."""
    held = constants(model)
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm") and node.input[1] in held]
    return [(node, held[node.input[1]].reshape(*held[node.input[1]].shape[:2], -1)) for node in nodes]


def layers(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, np.ndarray]]:
    """The layers to prune."""
    return [(node, weights) for node, weights in constants_of_layers(model) if weights.shape[1] > 4]


def samples(model: onnx.ModelProto, folder: Path = SAMPLES) -> list[np.ndarray]:
    """The images of a folder, which have the size that the model wants, as its input."""
    metadata = {p.key.removeprefix("skipstone."): p.value for p in model.metadata_props}
    mean, std = (np.array(list(map(float, metadata[key].split(",")))).reshape(3, 1, 1) for key in ("mean", "std"))
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return [((image.transpose(2, 0, 1) / 255 - mean) / std).astype(np.float32)[None] for image in images]


def observed(model: onnx.ModelProto, names: list[str], folder: Path = SAMPLES) -> dict[str, np.ndarray]:
    """Values of these tensors over all images of a folder, computed by ONNX Runtime."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    known = {port.name for port in [*model.graph.output, *model.graph.input]}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    entry, outputs = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    batch = samples(model, folder)
    runs = [dict(zip(outputs, session.run(None, {entry: image}))) | {entry: image} for image in batch]
    return {name: np.concatenate([run[name] for run in runs]) for name in names}


# Scores, `[filters, depth, taps]`.


def magnitude(weights: np.ndarray, read: np.ndarray) -> np.ndarray:
    return np.abs(weights)


def wanda(weights: np.ndarray, read: np.ndarray) -> np.ndarray:
    others = tuple(axis for axis in range(read.ndim) if axis != 1)
    return np.abs(weights) * np.sqrt((read.astype(np.float64) ** 2).sum(others))[None, :, None]


# Which weights stay.


def least(scores: np.ndarray, zeros: float) -> tuple[np.ndarray, np.ndarray]:
    """A mask of all but the lowest scores, and the threshold."""
    flat = scores.ravel()
    order = flat.argsort(kind="stable")
    count = round(zeros * flat.size)
    keep = np.ones(flat.size, bool)
    keep[order[:count]] = False
    threshold = flat[order[count - 1]] if count else 0
    return keep.reshape(scores.shape), np.full(scores.shape, threshold)


def chosen(scores: np.ndarray, pattern: str, scope: str, zeros: float) -> tuple[np.ndarray, np.ndarray]:
    filters, depth, taps = scores.shape
    if ":" in pattern:
        keep, of = map(int, pattern.split(":"))
        kept, thresholds = np.ones(scores.shape, bool), np.zeros(scores.shape)
        for start in range(0, depth, of):
            part = scores[:, start : start + of]
            drop = max(0, part.shape[1] - keep)
            order = part.argsort(1, kind="stable")
            np.put_along_axis(kept[:, start : start + of], order[:, :drop], False, 1)
            if drop:
                thresholds[:, start : start + of] = np.take_along_axis(part, order[:, drop - 1 : drop], 1)
        return kept, thresholds
    rows = int(pattern.split("x")[0]) if "x" in pattern else 1
    blocks = [scores[first : first + rows].mean(0) for first in range(0, filters, rows)]
    blocks = np.stack(blocks)
    if scope == "row":
        made = [least(block, zeros) for block in blocks]
        keep, thresholds = (np.stack(parts) for parts in zip(*made))
    else:
        keep, thresholds = least(blocks, zeros)
    spread = lambda array: array.repeat(rows, 0)[:filters]
    return spread(keep), spread(thresholds)


def dsnot(weights: np.ndarray, read: np.ndarray, scores: np.ndarray, keep: np.ndarray, of: int | None) -> np.ndarray:
    """DSnoT's exchange, filter by filter, as in its paper."""
    others = tuple(axis for axis in range(read.ndim) if axis != 1)
    read = read.astype(np.float64)
    mean, variance = read.mean(others), np.maximum(read.var(others), 1e-12)
    keep = keep.copy()
    for row, (w, kept, score) in enumerate(zip(weights, keep, scores)):
        m = w * mean[:, None]
        error, settled = m[~kept].sum(), np.zeros(m.shape, bool)
        sign = np.sign(error)
        for _ in range(50):
            if abs(error) <= 0.1 or np.sign(error) != sign:
                break
            candidates = ~kept & ~settled & (sign * m > 0)
            if not candidates.any():
                break
            grow = np.unravel_index(np.where(candidates, sign * m / variance[:, None], -np.inf).argmax(), m.shape)
            settled[grow] = True
            leave = kept & ~settled & (sign * m < 0)
            if of:
                inside = np.zeros(m.shape, bool)
                inside[grow[0] // of * of : grow[0] // of * of + of, grow[1]] = True
                leave &= inside
            if not leave.any():
                continue
            gone = np.unravel_index(np.where(leave, score, np.inf).argmin(), m.shape)
            settled[gone] = True
            kept[grow], kept[gone] = True, False
            error += m[gone] - m[grow]
    return keep


def check_weights(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """Every method and pattern chooses what its definition chooses."""
    wrong, model = [], onnx.load(SIMPLENET)
    reads = observed(model, [node.input[0] for node, _ in layers(model)])
    cases = [
        ("magnitude", "weights", "layer", 0.8), ("magnitude", "weights", "row", 0.37), ("magnitude", "2:4", "layer", 0),
        ("magnitude", "1:3", "layer", 0), ("magnitude", "4x1", "layer", 0.8), ("magnitude", "16x1", "row", 0.5),
        ("wanda", "weights", "row", 0.6), ("wanda", "weights", "layer", 0.5), ("wanda", "2:4", "row", 0),
        ("wanda", "4x1", "row", 0.5), ("dsnot", "weights", "row", 0.6), ("dsnot", "2:4", "row", 0),
    ]  # fmt: skip
    for method, pattern, scope, zeros in cases:
        path = folder / "weights.onnx"
        arguments = ["--method", method, "--pattern", pattern, "--scope", scope]
        arguments += [] if ":" in pattern else ["--zeros", 100 * zeros]
        arguments += ["--calibrate", SAMPLES] if method != "magnitude" else []
        skipstone.call("prune", SIMPLENET, "-o", path, *arguments)
        differing = total = unexplained = 0
        for (node, before), (_, after) in zip(layers(model), layers(onnx.load(path))):
            read = reads[node.input[0]]
            scores = (magnitude if method == "magnitude" else wanda)(before, read)
            keep, thresholds = chosen(scores, pattern, scope, zeros)
            if method == "dsnot":
                keep = dsnot(before, read, scores, keep, int(pattern.split(":")[1]) if ":" in pattern else None)
            got = after != 0
            if not np.array_equal(after[got], before[got]):
                wrong.append(f"{method} {pattern}: {node.name}: remaining weights have changed")
            differs = (got != keep) & (before != 0)
            differing += int(differs.sum())
            total += got.size
            rows = math.prod(map(int, pattern.split("x"))) if "x" in pattern else 1
            scores = np.stack([scores[i : i + rows].mean(0) for i in range(0, len(scores), rows)]).repeat(rows, 0)[: len(scores)]
            unexplained += int((differs & (np.abs(scores - thresholds) > CLOSE * np.abs(thresholds))).sum())
        # DSnoT's exchanges depend on each other: a few of its choices may differ.
        if unexplained > (0.001 * total if method == "dsnot" else 0):
            wrong.append(f"{method} {pattern} {scope}: {unexplained} of {total} weights differ from the definition's choice")
        wrong += [f"{method} {pattern}: {line}" for line in parity(skipstone, path)]
    return wrong


def check_sources(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """Seeds, scopes, f16 files, refusals."""
    wrong, path, again = [], folder / "a.onnx", folder / "b.onnx"
    made = []
    for seed, target in ((1, path), (1, again), (2, folder / "c.onnx")):
        skipstone.call("prune", SIMPLENET, "-o", target, "--method", "random", "--seed", seed, "--zeros", 50)
        made.append(target.read_bytes())
    if made[0] != made[1] or made[0] == made[2]:
        wrong.append("random: the seed does not determine the choice")
    zeros = [(w == 0).mean() for _, w in layers(onnx.load(path))]
    if any(abs(share - 0.5) > 0.01 for share in zeros):
        wrong.append(f"random: {zeros} zeros instead of 0.5")
    skipstone.call("prune", SIMPLENET, "-o", path, "--zeros", 70, "--scope", "network")
    held = layers(onnx.load(path))
    share = sum((w == 0).sum() for _, w in held) / sum(w.size for _, w in held)
    kept = min(np.abs(w[w != 0]).min() for _, w in held)
    gone = max(np.abs(before[w == 0]).max() for (_, before), (_, w) in zip(layers(onnx.load(SIMPLENET)), held))
    if abs(share - 0.7) > 1e-4 or gone > kept:
        wrong.append(f"network: {share} zeros, {gone} gone and {kept} kept")
    # Stored as f16, and already half pruned: zeros stay zero, weights stay f16.
    skipstone.call("prune", SPARSE, "-o", path, "--zeros", 90)
    before, after = onnx.load(SPARSE), onnx.load(path)
    if [t.data_type for t in before.graph.initializer] != [t.data_type for t in after.graph.initializer]:
        wrong.append("f16: types have changed")
    for (node, old), (_, new) in zip(layers(before), layers(after)):
        if ((old == 0) & (new != 0)).any() or abs((new == 0).mean() - 0.9) > 0.01:
            wrong.append(f"f16: {node.name}: {(new == 0).mean()} zeros")
    wrong += [f"f16: {line}" for line in parity(skipstone, path)]
    refusals = [
        ("model.unsupported", ["--zeros", 50, "--skip", "nobody"]),
        ("model.unsupported", ["--zeros", 50, "--method", "dsnot", "--pattern", "4x1", "--calibrate", SAMPLES]),
        ("calibration", ["--zeros", 50, "--method", "wanda", "--calibrate", folder]),
        ("calibration", ["--less", 50, "--method", "beta-rank", "--calibrate", SAMPLES, "--images", 1]),
    ]
    for code, arguments in refusals:
        try:
            skipstone.call("prune", SIMPLENET, "-o", folder / "refused.onnx", *arguments)
            wrong.append(f"{arguments} was not refused")
        except driver.Refused as refusal:
            if refusal.code != code:
                wrong.append(f"{arguments}: {refusal}")
    # Contradictory options are an error in the command line.
    contradictions = [
        ["--zeros", 50, "--less", 50], ["--zeros", 120], ["--less", 100], ["--less", 50, "--pattern", "4x1"], [],
        ["--zeros", 50, "--pattern", "2:4"], ["--zeros", 50, "--method", "wanda"], ["--zeros", 50, "--pattern", "1x4"],
        ["--less", 50, "--method", "wanda", "--calibrate", SAMPLES], ["--less", 50, "--scope", "row"],
    ]  # fmt: skip
    for arguments in contradictions:
        try:
            skipstone.call("prune", SIMPLENET, "-o", folder / "refused.onnx", *arguments)
            wrong.append(f"{arguments} was accepted")
        except driver.Crashed as usage:
            if not str(usage).startswith("exit status 2: error"):
                wrong.append(f"{arguments}: {usage}")
    return wrong


def beta_rank(model: onnx.ModelProto, node: onnx.NodeProto, weights: np.ndarray, seen: dict[str, np.ndarray]) -> np.ndarray:
    """Scores of a convolution's filters, by the definition: patches are unfolded."""
    x, out = seen[node.input[0]].astype(np.float64), seen[node.output[0]].astype(np.float64)
    ints = {a.name: list(a.ints) for a in node.attribute}
    (top, left, bottom, right), (rows, columns), strides = ints["pads"], ints["kernel_shape"], ints["strides"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    patches = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), (2, 3))[:, :, :: strides[0], :: strides[1]]
    spread = patches.std((0, 1, 4, 5), ddof=1)
    score = np.abs(weights).mean((1, 2)) * (out.std(0, ddof=1) / np.maximum(spread, 1e-6)).sum((1, 2))
    return (score - score.min()) / (score.max() - score.min())


def check_beta_rank(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """The remaining filters of the trained SimpleNet are the best of their layer by the definition."""
    wrong, model, path = [], onnx.load(SIMPLENET), folder / "beta.onnx"
    arguments = ["--less", 50, "--method", "beta-rank", "--calibrate", SAMPLES]
    report = json.loads(skipstone.call("prune", SIMPLENET, "-o", path, *arguments, "--json"))
    zeros = folder / "beta-zeros.onnx"
    skipstone.call("prune", SIMPLENET, "-o", zeros, *arguments, "--form", "zeros")
    # The recipe in models/zoo keeps the same numbers of channels.
    filters = [layer["filters"][1] for layer in report["layers"]]
    trained = [weights.shape[0] for node, weights in constants_of_layers(onnx.load(RECIPE))]
    if filters != trained:
        wrong.append(f"{filters} filters, {trained} by the recipe")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    held = constants(model)
    seen = observed(model, [name for node in convolutions for name in (node.input[0], node.output[0])])
    small = {node.output[0]: constants(onnx.load(path))[node.input[2]] for node in onnx.load(path).graph.node if node.op_type == "Conv"}
    for node in convolutions:
        weights = held[node.input[1]]
        score = beta_rank(model, node, weights.reshape(*weights.shape[:2], -1), seen)
        bias = small[node.output[0]]
        # Biases identify filters.
        kept = [int(np.flatnonzero(held[node.input[2]] == value)[0]) for value in bias]
        best = sorted(score.argsort()[::-1][: len(bias)].tolist())
        if kept != best and abs(score[kept].min() - score[best].min()) > CLOSE:
            wrong.append(f"{node.name}: filters {sorted(set(kept) ^ set(best))} differ from the definition's choice")
    return wrong + parity(skipstone, path) + [f"zeros: {line}" for line in same(path, zeros)]


def answers(model: Path, seed: int = 0) -> tuple[dict[str, np.ndarray], list[str], list[np.ndarray]]:
    """An input, the names of the outputs, and ONNX Runtime's outputs."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    inputs = {entry.name: fill.image(entry.shape[2], seed=seed)}
    return inputs, [output.name for output in session.get_outputs()], session.run(None, inputs)


def parity(skipstone: driver.Skipstone, model: Path) -> list[str]:
    """Whether Skipstone's outputs equal ONNX Runtime's, from the file and from its package."""
    inputs, names, wants = answers(model)
    package = model.with_suffix(".skip")
    skipstone.call("compile", model, "-o", package)
    wrong = []
    for file in (model, package):
        for name, got, want in zip(names, skipstone.run(file, inputs, names), wants):
            problem = driver.difference(got, want, TOLERANCE)
            wrong += [f"{file.suffix}, output {name}: {problem}"] if problem else []
    return wrong


def same(first: Path, second: Path) -> list[str]:
    """Whether ONNX Runtime gives the same outputs for both."""
    pairs = zip(answers(first)[2], answers(second)[2])
    return [problem for problem in (driver.difference(a, b, 10 * TOLERANCE) for a, b in pairs) if problem]


def check_removal(skipstone: driver.Skipstone, source: Path, folder: Path) -> tuple[str, list[str]]:
    """Removes channels from a network: a line about it, and what is wrong."""
    path, zeros = folder / f"{source.stem}-less.onnx", folder / f"{source.stem}-zeros.onnx"
    arguments = ["--less", 40, "--pattern", "channels"]
    report = json.loads(skipstone.call("prune", source, "-o", path, *arguments, "--json"))
    skipstone.call("prune", source, "-o", zeros, *arguments, "--form", "zeros")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    before, after = report["before"], report["after"]
    wrong = [] if after["macs"] < 0.95 * before["macs"] else ["hardly anything was removed"]
    line = f"{after['macs'] / before['macs']:.2f} of the multiply-adds, {after['parameters'] / before['parameters']:.2f} of the parameters"
    return line, wrong + parity(skipstone, path) + [f"zeros: {problem}" for problem in same(path, zeros)]


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", help="networks to remove channels from")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = total = 0

    def report(name: str, wrong: list[str], line: str = "") -> None:
        nonlocal failed, total
        failed, total = failed + bool(wrong), total + 1
        print(f"{'FAIL' if wrong else 'ok  '} {name:34} {line}", flush=True)
        for problem in wrong:
            print(f"     {problem}", flush=True)

    with tempfile.TemporaryDirectory(prefix="skipstone-prune-") as scratch:
        folder = Path(scratch)
        if not args.only:
            report("weights", check_weights(skipstone, folder))
            report("sources and refusals", check_sources(skipstone, folder))
            report("beta-rank", check_beta_rank(skipstone, folder))
        for name in args.only or (*ZOO, *ARCHITECTURES):
            try:
                source = fill.fill(name) if (fill.GRAPHS / f"{name}.onnx").exists() else architectures.fill(name, folder)
                line, wrong = check_removal(skipstone, source, folder)
                report(name, wrong, line)
            except (driver.Refused, driver.Crashed) as error:
                report(name, [str(error)])
    print(f"prune: {total} checks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
