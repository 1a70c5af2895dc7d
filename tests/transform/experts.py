"""Checks `skipstone experts` against its definitions in numpy, and its files against ONNX Runtime.

A small vision network is built here, whose feed-forward blocks have neurons of known kinds: splitting must find exactly these,
the router must be the least-squares one, and outputs those of a few lines of numpy. On networks that were not built for it
(exports of timm's with random weights, the pretrained SimpleNets), all experts together must give the answer of the block, and a
few of them the same answer in ONNX Runtime, in the command and as a package, computed as routed products. Experts as exporters
write them are merged and dropped as the definitions say.
"""

import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from architectures import check as architectures
from harness import driver
from transform.pruning import RECIPE, SAMPLES, SIMPLENET, TOLERANCE, observed, parity, same

WIDTH, TOKENS = 16, 64
# Tokens on which the command measures the loss.
JUDGED = 256
# Feed-forward blocks of 1x1 convolutions, the second stored as f16; of matrix products, with GELU in many nodes.
PRETRAINED = (SIMPLENET, RECIPE)
# Enough for a router of 128 inputs where an image has 16 tokens.
IMAGES = 9
NETWORKS = ("vit_tiny_patch16_224", "convnext_atto")
PREPROCESSING = {"mean": "0.5, 0.5, 0.5", "std": "0.25, 0.25, 0.25", "resize": "32", "crop": "32"}


class Net:
    """An ONNX graph under construction: images [1, 3, 32, 32] become tokens [1, 64, 16]."""

    def __init__(self, seed: int):
        self.random, self.nodes, self.held = np.random.default_rng(seed), [], {}
        patches = self.node("Conv", "image", self.const(self.random.normal(0, 0.2, (WIDTH, 3, 4, 4))), strides=[4, 4])
        rows = self.node("Reshape", patches, self.const(np.array([1, WIDTH, TOKENS])))
        self.tokens = self.node("Transpose", rows, perm=[0, 2, 1])

    def const(self, value: np.ndarray, name: str = "") -> str:
        name = name or f"c{len(self.held)}"
        self.held[name] = value if value.dtype == np.int64 else value.astype(np.float32)
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, names[0], **attributes))
        return names[0] if outputs == 1 else names

    def save(self, tokens: str, path: Path) -> Path:
        """With a classifier on the mean token."""
        mean = self.node("ReduceMean", tokens, axes=[1], keepdims=0)
        self.nodes.append(helper.make_node("MatMul", [mean, self.const(self.random.normal(0, 1, (WIDTH, 10)))], ["y"], "head"))
        ports = [("image", [1, 3, 32, 32]), ("y", [1, 10])]
        entry, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports)
        held = [numpy_helper.from_array(value, name) for name, value in self.held.items()]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(helper.make_graph(self.nodes, "g", [entry], [last], held), opset_imports=opsets)
        helper.set_model_props(model, {f"skipstone.{key}": value for key, value in PREPROCESSING.items()})
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=False)
        onnx.save(model, path)
        return path


def planted(path: Path, kinds: int, each: int, blocks: int = 1) -> Path:
    """Blocks whose neuron j is active where tokens point into direction j mod `kinds`. Several blocks add little to the tokens,
    which so have the same directions in all of them."""
    net = Net(3)
    x = net.tokens
    directions = np.linalg.qr(net.random.normal(size=(WIDTH, WIDTH)))[0][:, :kinds]
    spread = 0.3 if blocks == 1 else 0.03
    for block in range(blocks):
        size = net.random.uniform(0.5, 2, kinds * each)
        up = directions[:, np.arange(kinds * each) % kinds] * size
        y = net.node("MatMul", x, net.const(up, f"up{block}"))
        y = net.node("Add", y, net.const(-0.2 * size, f"bias{block}"))
        y = net.node("MatMul", net.node("Relu", y), net.const(net.random.normal(0, spread, (kinds * each, WIDTH)), f"down{block}"))
        x = net.node("Add", net.node("Add", y, net.const(net.random.normal(0, spread / 3, WIDTH))), x)
    return net.save(x, path)


def held(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def best(scores: np.ndarray, top: int) -> np.ndarray:
    """Which of the columns are among the `top` largest of each row."""
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, (-scores).argsort(-1, kind="stable")[..., :top], True, -1)
    return mask


def call(skipstone: driver.Skipstone, source: Path, target: Path, *arguments) -> dict:
    given = ("experts", source, "--calibrate", SAMPLES, "-o", target, "--json")
    report = json.loads(skipstone.call(*given, *arguments))
    onnx.checker.check_model(onnx.load(target), full_check=False)
    return report


def routed(skipstone: driver.Skipstone, model: Path) -> int:
    """Number of steps that multiply by the matrices of chosen experts."""
    return sum(step["op"] == "Routed" for step in skipstone.inspect(model)["steps"])


def check_definition(skipstone: driver.Skipstone, folder: Path, kinds: int, top: int, shared: int) -> list[str]:
    """Groups, router, means and outputs of a split block."""
    each = 6
    source = planted(folder / "planted.onnx", kinds, each)
    target = folder / "split.onnx"
    report = call(skipstone, source, target, "--split", kinds, "--top", top, "--shared", shared)
    block, dense, parts = report["blocks"][0], held(onnx.load(source)), held(onnx.load(target))
    one = lambda test: next(value for name, value in parts.items() if test(name, value))
    up, down = (one(lambda n, v: v.ndim == 3 and v.shape[side] == WIDTH) for side in (1, 2))
    router = one(lambda n, v: n.endswith("_router"))
    router_bias = one(lambda n, v: n.endswith("_router_bias"))
    wrong = []
    # Columns of the weights identify neurons.
    neuron = {column.tobytes(): j for j, column in enumerate(dense["up0"].T)}
    members = [[neuron[column.tobytes()] for column in expert.T] for expert in up]
    rest = sorted(set(range(kinds * each)) - {j for expert in members for j in expert})
    if len(rest) != block["shared"] or any(len(expert) != block["each"] for expert in members):
        wrong.append(f"{len(rest)} shared, {list(map(len, members))} neurons, {block} reported")
    for expert in members:
        if shared == 0 and len({j % kinds for j in expert}) != 1:
            wrong.append(f"an expert has neurons {expert} of several kinds")
    for expert, weights in zip(members, down):
        if not np.array_equal(weights, dense["down0"][expert]):
            wrong.append("neurons have other weights in the last layer")
    # The definitions, on the tokens of all images.
    model = onnx.load(source)
    entry = next(node for node in model.graph.node if node.op_type == "MatMul").input[0]
    hidden = next(node for node in model.graph.node if node.op_type == "Relu").output[0]
    seen = observed(model, [entry, hidden])
    x, h = (seen[name].reshape(-1, seen[name].shape[-1]).astype(np.float64) for name in (entry, hidden))
    sizes = np.abs(h) * np.linalg.norm(dense["down0"], axis=1)
    if shared and set(rest) != set((-sizes.mean(0)).argsort()[: len(rest)]):
        wrong.append(f"the neurons {rest} are shared")
    targets = np.stack([sizes[:, expert].sum(1) for expert in members], 1)
    targets /= targets.mean()
    x1 = np.c_[x, np.ones(len(x))]
    least = np.linalg.lstsq(x1, targets, rcond=None)[0]
    errors = [((targets - x1 @ m) ** 2).sum() for m in (least, np.r_[router, router_bias[None]])]
    if errors[1] > errors[0] * (1 + 1e-4):
        wrong.append(f"the router's error is {errors[1]:.6g}, of least {errors[0]:.6g}")
    logits = x.astype(np.float32) @ router + router_bias
    chosen = best(logits, top)
    if np.abs(chosen.mean(0) - block["usage"]).max() > 2 / len(x):
        wrong.append(f"{chosen.mean(0)} of the tokens, {block['usage']} reported")
    y, kept = h @ dense["down0"], h[:, rest] @ dense["down0"][rest]
    for e, expert in enumerate(members):
        left = ~chosen[:, e]
        mean = h[left][:, expert].mean(0) if left.any() else np.zeros(len(expert))
        kept = kept + np.where(left[:, None], mean, h[:, expert]) @ dense["down0"][expert]
    judged = [at * len(x) // JUDGED for at in range(JUDGED)]
    lost = ((y - kept)[judged] ** 2).sum() / ((y - y[judged].mean(0))[judged] ** 2).sum()
    if abs(lost - block["lost"]) > 1e-3 * lost + 1e-6:
        wrong.append(f"{lost:.4f} is lost, {block['lost']:.4f} reported")
    # The block's output in the file is this.
    outs = {node.output[0] for node in onnx.load(target).graph.node}
    out = next(node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] == "down0").output[0]
    got = observed(onnx.load(target), [out])[out].reshape(y.shape) if out in outs else y * np.nan
    # Tokens with two scores that are equal but for rounding may be routed otherwise.
    ordered = np.sort(logits, -1)
    clear = np.ones(len(x), bool) if top == kinds else (ordered[:, -top] - ordered[:, -top - 1] > 1e-4)
    problem = driver.difference(got[clear].astype(np.float64), kept[clear], 1e-4)
    wrong += [f"output of the block: {problem}"] if problem else []
    if routed(skipstone, target) != 2:
        wrong.append("its products are not routed")
    return wrong + parity(skipstone, target) + (same(source, target) if top == kinds else [])


def check_one_router(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    """One router for three blocks: experts of one number have neurons of the same kind in all."""
    kinds, each, blocks = 4, 5, 3
    source, target = planted(folder / "planted.onnx", kinds, each, blocks), folder / "one.onnx"
    report = call(skipstone, source, target, "--split", kinds, "--top", 1, "--one-router")
    model, dense = onnx.load(target), held(onnx.load(source))
    wrong = [] if sum(node.op_type == "TopK" for node in model.graph.node) == 1 else ["more than one router"]
    stacks = [value for value in held(model).values() if value.ndim == 3 and value.shape[1] == WIDTH and value.shape[2] == each]
    kinds_of = []
    for block, stack in enumerate(stacks):
        neuron = {column.tobytes(): j for j, column in enumerate(dense[f"up{block}"].T)}
        kinds_of.append([{neuron[column.tobytes()] % kinds for column in expert.T} for expert in stack])
    if len(stacks) != blocks or any(of != kinds_of[0] for of in kinds_of) or any(len(of) != 1 for of in kinds_of[0]):
        wrong.append(f"experts have neurons of kinds {kinds_of}")
    if len({tuple(block["usage"]) for block in report["blocks"]}) != 1:
        wrong.append("blocks choose other experts")
    call(skipstone, source, target, "--split", kinds, "--top", kinds, "--one-router")
    return wrong + same(source, target) + parity(skipstone, target)


def check_network(skipstone: driver.Skipstone, folder: Path, name: str) -> list[str]:
    """A network of timm's, or a SimpleNet: all experts are the network, half of them run the same everywhere."""
    source = next((path for path in PRETRAINED if path.stem == name), None)
    if source is None:
        source = architectures.fill(name, folder)
        model = onnx.load(source)
        given = PREPROCESSING | {"resize": "224", "crop": "224"}
        helper.set_model_props(model, {f"skipstone.{key}": value for key, value in given.items()})
        onnx.save(model, source)
    wrong, target = [], folder / "experts.onnx"
    report = call(skipstone, source, target, "--split", 4, "--top", 4, "--images", IMAGES)
    wrong += [f"all experts: {problem}" for problem in same(source, target)]
    if report["after"]["macs"] < report["before"]["macs"]:
        wrong.append("all experts have fewer multiply-adds")
    report = call(skipstone, source, target, "--split", 4, "--top", 2, "--shared", 10, "--images", IMAGES)
    if report["after"]["macs"] >= report["before"]["macs"]:
        wrong.append("half of the experts have no fewer multiply-adds")
    if routed(skipstone, target) < 2 * len(report["blocks"]):
        wrong.append("products are not routed")
    return wrong + parity(skipstone, target)


def mixture(path: Path, form: str, weights: dict[str, np.ndarray], top: int) -> Path:
    """A layer of experts as exporters write it: matrices gathered for a batched product, or com.microsoft MoE."""
    net = Net(4)
    flat = net.node("Reshape", net.tokens, net.const(np.array([TOKENS, WIDTH])))
    logits = net.node("Add", net.node("MatMul", flat, net.const(weights["router"], "router")), net.const(weights["bias"], "router_bias"))
    up, up_bias, down, down_bias = (net.const(weights[name], name) for name in ("up", "up_bias", "down", "down_bias"))
    if form == "moe":
        y = net.node("MoE", flat, logits, up, up_bias, down, down_bias, domain="com.microsoft", k=top, activation_type="relu")
    else:
        chances, chosen = net.node("TopK", net.node("Softmax", logits, axis=-1), net.const(np.array([top])), outputs=2, axis=-1)
        index, y = net.node("Reshape", chosen, net.const(np.array([-1]))), None
        rows = net.node("Gather", flat, net.const(np.repeat(np.arange(TOKENS), top)))
        rows = net.node("Unsqueeze", rows, net.const(np.array([2])))
        y = net.node("Squeeze", net.node("MatMul", net.node("Gather", up, index), rows), net.const(np.array([2])))
        y = net.node("Relu", net.node("Add", y, net.node("Gather", up_bias, index)))
        y = net.node("MatMul", net.node("Gather", down, index), net.node("Unsqueeze", y, net.const(np.array([2]))))
        y = net.node("Add", net.node("Squeeze", y, net.const(np.array([2]))), net.node("Gather", down_bias, index))
        y = net.node("Mul", y, net.node("Reshape", chances, net.const(np.array([-1, 1]))))
        y = net.node("ReduceSum", net.node("Reshape", y, net.const(np.array([TOKENS, top, WIDTH]))), net.const(np.array([1])), keepdims=0)
    y = net.node("Reshape", y, net.const(np.array([1, TOKENS, WIDTH])))
    return net.save(net.node("Add", y, net.tokens), path)


def experts_of(random, count: int, hidden: int) -> dict[str, np.ndarray]:
    """Weights of which experts 2i and 2i + 1 are alike: the second's are the first's with noise, in another order."""
    shapes = {"up": (count, hidden, WIDTH), "up_bias": (count, hidden), "down": (count, WIDTH, hidden), "down_bias": (count, WIDTH)}
    w = {name: random.normal(0, 0.4, shape) for name, shape in shapes.items()}
    w |= {"router": random.normal(0, 1, (WIDTH, count)), "bias": random.normal(0, 0.1, count)}
    for e in range(1, count, 2):
        order = random.permutation(hidden)
        for name, value in (("up", w["up"][e - 1][order]), ("up_bias", w["up_bias"][e - 1][order]), ("down", w["down"][e - 1][:, order])):
            w[name][e] = value + random.normal(0, 0.02, value.shape)
        w["router"][:, e] = w["router"][:, e - 1] + random.normal(0, 0.1, WIDTH)
    return {name: value.astype(np.float32) for name, value in w.items()}


def merged(w: dict[str, np.ndarray], pairs: list[list[int]], usage: np.ndarray) -> dict[str, np.ndarray]:
    """The experts of each cluster, the second's neurons in the order of the best of all permutations."""
    new = {name: [] for name in w}
    for cluster in pairs:
        first = max(cluster, key=lambda e: (usage[e], -e))
        features = {e: np.concatenate([w["up"][e], w["up_bias"][e][:, None], w["down"][e].T], 1) for e in cluster}
        order = {}
        for e in cluster:
            gains = features[first] @ features[e].T
            orders = itertools.permutations(range(len(gains))) if e != first else [tuple(range(len(gains)))]
            order[e] = list(max(orders, key=lambda o: sum(gains[i, j] for i, j in enumerate(o))))
        share = usage[cluster] / usage[cluster].sum() if usage[cluster].sum() else np.full(len(cluster), 1 / len(cluster))
        mean = lambda of: sum(s * of(e) for s, e in zip(share, cluster))
        for name, of in {
            "up": lambda e: w["up"][e][order[e]], "up_bias": lambda e: w["up_bias"][e][order[e]],
            "down": lambda e: w["down"][e][:, order[e]], "down_bias": lambda e: w["down_bias"][e],
            "router": lambda e: w["router"][:, e], "bias": lambda e: w["bias"][e],
        }.items():  # fmt: skip
            new[name].append(mean(of))
    return {name: np.stack(parts, -1 if name in ("router", "bias") else 0) for name, parts in new.items()}


def check_fewer(skipstone: driver.Skipstone, folder: Path, form: str, top: int) -> list[str]:
    """Merging finds the pairs and their neurons, dropping the least used."""
    count, hidden, wrong = 8, 6, []
    w = experts_of(np.random.default_rng(top), count, hidden)
    source, target = mixture(folder / "mixture.onnx", form, w, top), folder / "fewer.onnx"
    wrong += [f"before: {problem}" for problem in parity(skipstone, source)]
    logits = next(n for n in onnx.load(source).graph.node if n.op_type == "Add").output[0]
    scores = observed(onnx.load(source), [logits])[logits].reshape(-1, count)
    usage = best(scores, top).mean(0)
    report = call(skipstone, source, target, "--merge", count // 2)
    found = report["routers"][0]
    if np.abs(usage - found["usage"]).max() > 1e-9:
        wrong.append(f"{found['usage']} of the tokens instead of {usage}")
    pairs = [[e, e + 1] for e in range(0, count, 2)]
    if found["members"] != pairs:
        wrong.append(f"experts {found['members']} were merged")
    names = {"router": "router", "bias": "router_bias"}
    after = held(onnx.load(target))
    for name, want in merged(w, pairs, usage).items():
        problem = driver.difference(after[names.get(name, name)], want.astype(np.float32), 1e-5)
        wrong += [f"merged {name}: {problem}"] if problem else []
    wrong += [f"merged: {problem}" for problem in parity(skipstone, target)]
    if routed(skipstone, target) != 2:
        wrong.append("its products are not routed")
    report = call(skipstone, source, target, "--drop", 3)
    kept = sorted((-usage).argsort(kind="stable")[:3].tolist())
    if report["routers"][0]["members"] != [[e] for e in kept]:
        wrong.append(f"experts {report['routers'][0]['members']} stay instead of {kept}")
    after = held(onnx.load(target))
    for name in w:
        axis = w[name].ndim - 1 if name in ("router", "bias") else 0
        if not np.array_equal(after[names.get(name, name)], w[name].take(kept, axis)):
            wrong.append(f"dropped: {name} is not what it was")
    return wrong + [f"dropped: {problem}" for problem in parity(skipstone, target)]


def check_budget(skipstone: driver.Skipstone, folder: Path, *router: str) -> list[str]:
    """A package with a part of its experts in memory: the same bits, within the budget; refused if that is impossible."""
    kinds, each, blocks = 8, 256, 3
    source, target, package = planted(folder / "planted.onnx", kinds, each, blocks), folder / "split.onnx", folder / "split.skip"
    call(skipstone, source, target, "--split", kinds, "--top", 1, *router)
    skipstone.call("compile", target, "-o", package, "--target", "host")
    with package.open("rb+") as file:
        # Pages that are not on the disk yet cannot leave memory.
        os.fsync(file)
    found, wrong = skipstone.inspect(package)["experts"], []
    if [layer["experts"] for layer in found["layers"]] != [kinds] * 2 * blocks:
        wrong.append(f"experts in {found['layers']}")
    least, total = found["least_budget_bytes"], found["total_bytes"]
    size = 4 * WIDTH * each
    if any(layer["each_bytes"] != size for layer in found["layers"]) or (least, total) != (size, 2 * blocks * kinds * size):
        wrong.append(f"a package has {found}, an expert {size} bytes")
    system = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False).stdout.strip()
    image = {"image": np.random.default_rng(1).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)}
    want = skipstone.run(package, image, ["y"])[0]
    for budget, threads in itertools.product((least, 3 * total // 8, total), (1, 2)):
        options = ("--expert-budget", budget, "--threads", threads)
        if skipstone.run(package, image, ["y"], *options)[0].tobytes() != want.tobytes():
            wrong.append(f"other bits with a budget of {budget} and {threads} threads")
        used = json.loads(skipstone.call("bench", package, "--images", SAMPLES, "--json", "-", *options))["experts"]
        # Memory is all that tmpfs has.
        resident = 0 if system == "tmpfs" else used["resident_bytes"] or 0
        if max(used["held_bytes"], resident) > budget:
            wrong.append(f"{used} with a budget of {budget}")
        uses = used["hits"] + used["ahead"] + used["misses"]
        if uses < 2 * blocks * len(list(SAMPLES.rglob("*.png"))) or (used["bytes_read"] == 0) != (budget == total):
            wrong.append(f"{used} with a budget of {budget} of {total} bytes")
    refusals = [(package, least - 1, "raise it"), (target, total, "compile the model to a package")]
    for model, budget, expected in refusals:
        try:
            skipstone.inspect(model, "--expert-budget", budget)
            wrong.append(f"a budget of {budget} for {model.name} is not refused")
        except driver.Refused as error:
            wrong += [] if error.code == "model.unsupported" and expected in error.message else [str(error)]
    return wrong


def check_refusals(skipstone: driver.Skipstone, folder: Path) -> list[str]:
    wrong = []
    block = planted(folder / "planted.onnx", 4, 6)
    layer = mixture(folder / "mixture.onnx", "gathered", experts_of(np.random.default_rng(0), 4, 5), 2)
    refusals = [
        (block, ["--split", 25], "model.unsupported", "too few for 25 experts"),
        (block, ["--split", 4, "--skip", "nobody"], "model.unsupported", "nobody"),
        (block, ["--drop", 2], "model.unsupported", "no experts"),
        (layer, ["--merge", 1], "model.unsupported", "at least that many"),
        (layer, ["--drop", 4], "model.unsupported", "ask for fewer"),
        (layer, ["--split", 4], "model.unsupported", "no feed-forward block"),
    ]
    for source, arguments, code, expected in refusals:
        try:
            call(skipstone, source, folder / "refused.onnx", *arguments)
            wrong.append(f"{arguments} is not refused")
        except driver.Refused as error:
            wrong += [] if error.code == code and expected in error.message else [f"{arguments}: {error}"]
    for arguments in ([], ["--split", 4, "--merge", 2], ["--merge", 2, "--top", 1], ["--split", 1], ["--split", 2, "--top", 3]):
        try:
            call(skipstone, block, folder / "refused.onnx", *arguments)
            wrong.append(f"{arguments} was accepted")
        except driver.Crashed as usage:
            wrong += [] if str(usage).startswith("exit status 2: error") else [f"{arguments}: {usage}"]
    return wrong


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", help="checks, by name")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    failed = 0
    checks = [(check_definition, arguments) for arguments in ((4, 1, 0), (6, 2, 0), (6, 3, 30), (5, 5, 0))]
    checks += [(check_one_router, ())]
    checks += [(check_fewer, arguments) for arguments in itertools.product(("gathered", "moe"), (1, 2))]
    checks += [(check_network, (name,)) for name in (*(path.stem for path in PRETRAINED), *NETWORKS)]
    checks += [(check_budget, arguments) for arguments in ((), ("--one-router",))]
    checks += [(check_refusals, ())]
    checks = [check for check in checks if not args.only or check[0].__name__.removeprefix("check_") in args.only]
    with tempfile.TemporaryDirectory(prefix="skipstone-experts-") as folder:
        for check, arguments in checks:
            try:
                wrong = check(skipstone, Path(folder), *arguments)
            except (driver.Refused, driver.Crashed) as error:
                wrong = [str(error)]
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {check.__name__.removeprefix('check_')} {' '.join(map(str, arguments))}", flush=True)
            for problem in wrong:
                print(f"     {problem}", flush=True)
    print(f"experts: {len(checks)} checks, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
