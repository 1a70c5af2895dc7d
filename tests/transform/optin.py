"""Checks `skipstone prune --method optin` against its definition in numpy, and its files against ONNX Runtime.

A small transformer is built here. Each of its heads and neurons is set to zero in the file, and ONNX Runtime computes the
values at all sums between blocks and the answer without it: from these, a few lines of numpy compute the scores and the best
choice under the budget. The command has to keep the same heads and neurons, in a file that runs alike everywhere.
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

from harness import driver
from transform.experts import TOKENS, WIDTH, Net, held
from transform.pruning import SAMPLES, SIMPLENET, observed, parity, same

BLOCKS, HEADS, NEURONS = 2, 4, 24
# Neurons that are kept or removed together.
MULTIPLE = 4
# Samples and compared tokens of each, for twenty images.
IMAGES, EACH, TEMPERATURE = 16, 4, 4


def transformer(path: Path, gelu: bool) -> tuple[Path, list[str]]:
    """Blocks of attention and feed-forward layers, each added to the tokens; and the names of these sums."""
    net, sums = Net(7), []
    x, size = net.tokens, WIDTH // HEADS
    weights = lambda name, *shape: net.const(net.random.normal(0, 0.6 * shape[0] ** -0.5, shape), name)
    for block in range(BLOCKS):
        normal = net.node("LayerNormalization", x, net.const(np.ones(WIDTH)), net.const(np.zeros(WIDTH)))
        perms = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        parts = {}
        for part, perm in perms.items():
            y = net.node("Add", net.node("MatMul", normal, weights(f"{part}{block}", WIDTH, WIDTH)), net.const(net.random.normal(0, 0.1, WIDTH), f"{part}b{block}"))
            y = net.node("Reshape", y, net.const(np.array([1, TOKENS, HEADS, size])))
            parts[part] = net.node("Transpose", y, perm=perm)
        scores = net.node("Mul", net.node("MatMul", parts["q"], parts["k"]), net.const(np.array(size**-0.5)))
        y = net.node("Transpose", net.node("MatMul", net.node("Softmax", scores, axis=-1), parts["v"]), perm=[0, 2, 1, 3])
        y = net.node("Reshape", y, net.const(np.array([1, TOKENS, WIDTH])))
        x = net.node("Add", x, net.node("MatMul", y, weights(f"o{block}", WIDTH, WIDTH)))
        sums.append(x)
        normal = net.node("LayerNormalization", x, net.const(np.ones(WIDTH)), net.const(np.zeros(WIDTH)))
        y = net.node("Add", net.node("MatMul", normal, weights(f"up{block}", WIDTH, NEURONS)), net.const(net.random.normal(0, 0.1, NEURONS), f"upb{block}"))
        if gelu:
            inner = net.node("Erf", net.node("Div", y, net.const(np.array(2**0.5))))
            y = net.node("Mul", net.node("Mul", y, net.node("Add", inner, net.const(np.array(1.0)))), net.const(np.array(0.5)))
        else:
            y = net.node("Relu", y)
        x = net.node("Add", x, net.node("MatMul", y, weights(f"down{block}", NEURONS, WIDTH)))
        sums.append(x)
    return net.save(x, path), sums


def without(model: onnx.ModelProto, name: str, rows: slice) -> onnx.ModelProto:
    """The model with zeros in these rows of a matrix."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weights = numpy_helper.to_array(tensor).copy()
    weights[rows] = 0
    tensor.CopyFrom(numpy_helper.from_array(weights, name))
    return model


def seen(model: onnx.ModelProto, sums: list[str], folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """The products of the compared tokens' features at each sum, and the answers' logarithms."""
    values = observed(model, [*sums, "y"], folder)
    taken = [k * TOKENS // EACH for k in range(EACH)]
    grams = []
    for name in sums:
        features = values[name][:, taken].reshape(-1, WIDTH).astype(np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        grams.append(features @ features.T)
    logits = values["y"].astype(np.float64) / TEMPERATURE
    return grams, logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def scores(model: onnx.ModelProto, sums: list[str], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of heads `[blocks, heads]` and neurons `[blocks, neurons]`."""
    grams, answers = seen(model, sums, folder)
    size, changes = WIDTH // HEADS, []
    parts = [(f"o{b}", slice(h * size, (h + 1) * size)) for b in range(BLOCKS) for h in range(HEADS)]
    parts += [(f"down{b}", slice(n, n + 1)) for b in range(BLOCKS) for n in range(NEURONS)]
    for name, rows in parts:
        changed, other = seen(without(model, name, rows), sums, folder)
        trajectory = sum(((a - b) ** 2).mean() for a, b in zip(grams, changed))
        divergence = TEMPERATURE**2 * (np.exp(answers) * (answers - other)).sum(-1).mean()
        changes.append((trajectory, divergence))
    changes = np.array(changes)
    total = (changes / changes.mean(0)).sum(1)
    return total[: BLOCKS * HEADS].reshape(BLOCKS, HEADS), total[BLOCKS * HEADS :].reshape(BLOCKS, NEURONS)


def choice(heads: np.ndarray, neurons: np.ndarray, less: float) -> tuple[list[list[int]], list[list[int]]]:
    """The heads and neurons that stay, by trying every number of heads."""
    size = WIDTH // HEADS
    stem, last = WIDTH * 3 * 16 * TOKENS, WIDTH * 10
    head_cost, neuron_cost = 4 * TOKENS * WIDTH * size, 2 * TOKENS * WIDTH
    dense = stem + last + BLOCKS * (HEADS * head_cost + NEURONS * neuron_cost)
    units, forced_score, used = [[], []], 0, stem + last
    keep = [[[] for _ in range(BLOCKS)] for _ in range(2)]
    for kind, (of, cost, together) in enumerate(((heads, head_cost, 1), (neurons, neuron_cost, MULTIPLE))):
        for block in range(BLOCKS):
            order = (-of[block]).argsort(kind="stable")
            groups = [order[i : i + together] for i in range(0, len(order), together)]
            keep[kind][block] += groups[0].tolist()
            used += cost * len(groups[0])
            units[kind] += [(of[block][group].sum(), cost * len(group), block, group.tolist()) for group in groups[1:]]
        units[kind].sort(key=lambda unit: -unit[0] / unit[1])
    best = (-1, 0, 0)
    for count in range(len(units[0]) + 1):
        left = dense * (1 - less) - used - sum(unit[1] for unit in units[0][:count])
        if left < 0:
            break
        fitting = 0
        while fitting < len(units[1]) and units[1][fitting][1] <= left:
            left -= units[1][fitting][1]
            fitting += 1
        score = sum(unit[0] for unit in units[0][:count] + units[1][:fitting])
        best = max(best, (score, count, fitting))
    for kind in range(2):
        for _, _, block, group in units[kind][: best[1 + kind]]:
            keep[kind][block] += group
    return tuple([sorted(block) for block in kind] for kind in keep)


def check_choice(skipstone: driver.Skipstone, folder: Path, gelu: bool, less: int) -> list[str]:
    source, sums = transformer(folder / "transformer.onnx", gelu)
    model, target, zeros = onnx.load(source), folder / "optin.onnx", folder / "optin-zeros.onnx"
    # The command takes 16 images, evenly.
    names = sorted(SAMPLES.glob("*.png"))
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for at in range(IMAGES):
        path = names[at * len(names) // IMAGES]
        (images / path.name).write_bytes(path.read_bytes())
    arguments = ["--less", less, "--method", "optin", "--calibrate", SAMPLES]
    report = json.loads(skipstone.call("prune", source, "-o", target, *arguments, "--json"))
    skipstone.call("prune", source, "-o", zeros, *arguments, "--form", "zeros")
    onnx.checker.check_model(onnx.load(target), full_check=True)
    heads, neurons = choice(*scores(model, sums, images), less / 100)
    before, after = held(model), held(onnx.load(target))
    size, wrong = WIDTH // HEADS, []
    for block in range(BLOCKS):
        row = {value.tobytes(): j for j, value in enumerate(before[f"o{block}"])}
        kept = sorted({row[value.tobytes()] // size for value in after[f"o{block}"]})
        if kept != heads[block]:
            wrong.append(f"block {block} keeps heads {kept} instead of {heads[block]}")
        row = {value.tobytes(): j for j, value in enumerate(before[f"down{block}"])}
        kept = sorted(row[value.tobytes()] for value in after[f"down{block}"])
        if kept != neurons[block]:
            wrong.append(f"block {block} keeps neurons {kept} instead of {neurons[block]}")
    removed = 1 - report["after"]["macs"] / report["before"]["macs"]
    if not 0.5 * less / 100 < removed:
        wrong.append(f"only {removed:.2f} of the multiply-adds are removed")
    return wrong + parity(skipstone, target) + [f"zeros: {problem}" for problem in same(target, zeros)]


def check_refusals(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    wrong, source = [], transformer(folder / "transformer.onnx", True)[0]
    for model, less, expected in ((source, 99, "ask for less"), (SIMPLENET, 90, "ask for less")):
        try:
            skipstone.call("prune", model, "--less", less, "--method", "optin", "--calibrate", SAMPLES, "-o", folder / "no.onnx")
            wrong.append(f"{model.name}: {less} % is not refused")
        except driver.Refused as error:
            wrong += [] if error.code == "model.unsupported" and expected in error.message else [f"{model.name}: {error}"]
    for arguments in (["--less", 20], ["--zeros", 20, "--calibrate", SAMPLES], ["--less", 20, "--pattern", "4x1"]):
        try:
            skipstone.call("prune", source, "--method", "optin", *arguments, "-o", folder / "no.onnx")
            wrong.append(f"{arguments} was accepted")
        except driver.Crashed as usage:
            wrong += [] if str(usage).startswith("exit status 2: error") else [f"{arguments}: {usage}"]
    return wrong


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = 0
    checks = [(check_choice, arguments) for arguments in ((False, 20), (True, 35), (True, 50))] + [(check_refusals, ())]
    with tempfile.TemporaryDirectory(prefix="skipstone-optin-") as folder:
        for check, arguments in checks:
            try:
                wrong = check(skipstone, Path(folder), *arguments)
            except (driver.Refused, driver.Crashed) as error:
                wrong = [str(error)]
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {check.__name__.removeprefix('check_')} {' '.join(map(str, arguments))}", flush=True)
            for problem in wrong:
                print(f"     {problem}", flush=True)
    print(f"optin: {len(checks)} checks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
