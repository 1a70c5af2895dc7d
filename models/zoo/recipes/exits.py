"""Early exits on a stored SimpleNet: classifiers and gates along the frozen network, exported as nested ONNX Ifs."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import nn

from zoo import export
from zoo.data import images
from zoo.networks.exits import THRESHOLD, ExitingSimpleNet, stop_at
from zoo.train import augment, cost, loop, stored

# Prior stopping probability of each exit that the gates are trained towards (PonderNet's geometric prior), and its
# weight.
PRIOR, PULL = 0.35, 0.05
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


def objective(model: ExitingSimpleNet, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Every exit's cross-entropy; for the gates, its mean over where a sample would stop, and their distance from the
    prior."""
    logits, gates = model.answers(x)
    losses = torch.stack([loop.soft_cross_entropy(answer, targets) for answer in logits], 1)
    stops, going = [], torch.ones(len(x))
    for gate in gates:
        stops.append(gate.float() * going)
        going = going * (1 - gate.float())
    chance = torch.stack([*stops, going], 1).clamp_min(1e-6)
    steps = torch.arange(len(gates) + 1)
    prior = torch.where(steps < len(gates), PRIOR * (1 - PRIOR) ** steps, (1 - PRIOR) ** len(gates))
    distance = (chance * (chance / prior).log()).sum(1)
    return (losses[:, :-1].sum(1) + (chance * losses.detach()).sum(1) + PULL * distance).mean()


def costs(model: ExitingSimpleNet, side: int) -> list[int]:
    """Multiply-adds up to and including every exit."""
    x, total, found = torch.zeros(1, 3, side, side), 0, []
    for stage, leave in zip(model.stages, [*model.exits, model.tail]):
        total += sum(cost.multiply_adds(stage, x).values())
        with torch.no_grad():
            x = stage(x)
        total += sum(cost.multiply_adds(leave, x).values())
        found.append(total)
    return found


def _part(module: nn.Module, x: torch.Tensor, outputs: list[str], prefix: str, folder: Path) -> onnx.GraphProto:
    """A module's graph, its names prefixed; it reads `{prefix}x`."""
    path = folder / f"{prefix}.onnx"
    export.write(module, path, {"x": x}, outputs)
    return compose.add_prefix(onnx.load(path), prefix).graph


def as_ifs(model: ExitingSimpleNet, side: int) -> onnx.ModelProto:
    """One image: after each exit an If whose then-branch returns its answer and whose else-branch holds the rest."""
    weights = [helper.make_tensor("going.most", TensorProto.FLOAT, [1], [1 - THRESHOLD])]
    weights += [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])]
    value = helper.make_tensor_value_info
    node = helper.make_node
    result = lambda suffix: [
        value(f"logits{suffix}", TensorProto.FLOAT, [1, 10]),
        value(f"exit{suffix}", TensorProto.INT64, [1]),
    ]
    index = lambda i, suffix: node(
        "Constant", [], [f"exit{suffix}"], value=helper.make_tensor("value", TensorProto.INT64, [1], [i])
    )

    def part(nodes: list, module: nn.Module, x: torch.Tensor, source: str, outputs: list[str], prefix: str, folder):
        graph = _part(module, x, outputs, prefix, folder)
        weights.extend(graph.initializer)
        nodes.append(node("Identity", [source], [f"{prefix}x"]))
        nodes.extend(graph.node)

    def rest(i: int, x: torch.Tensor, source: str, going: str, suffix: str, folder: Path) -> list:
        """Nodes from stage `i` to `logits{suffix}` and `exit{suffix}`."""
        nodes: list = []
        part(nodes, model.stages[i], x, source, ["y"], f"stage{i}.", folder)
        with torch.no_grad():
            y = model.stages[i](x)
        source = f"stage{i}.y"
        if i == len(model.exits):
            part(nodes, model.tail, y, source, ["logits"], "tail.", folder)
            return [*nodes, node("Identity", ["tail.logits"], [f"logits{suffix}"]), index(i, suffix)]
        part(nodes, model.exits[i], y, source, ["logits", "gate"], f"exit{i}.", folder)
        nodes += [
            node("Sub", ["one", f"exit{i}.gate"], [f"exit{i}.stay"]),
            node("Mul", [going, f"exit{i}.stay"], [f"going{i}"]),
            node("Less", [f"going{i}", "going.most"], [f"stop{i}"], f"Less{i}"),
        ]
        here = [node("Identity", [f"exit{i}.logits"], [f"logits.then{i}"]), index(i, f".then{i}")]
        later = rest(i + 1, y, source, f"going{i}", f".else{i}", folder)
        branch = {
            "then_branch": helper.make_graph(here, f"then{i}", [], result(f".then{i}")),
            "else_branch": helper.make_graph(later, f"else{i}", [], result(f".else{i}")),
        }
        return [*nodes, node("If", [f"stop{i}"], [f"logits{suffix}", f"exit{suffix}"], f"If{i}", **branch)]

    with TemporaryDirectory() as folder:
        nodes = rest(0, torch.zeros(1, 3, side, side), "input", "one", "", Path(folder))
    graph = helper.make_graph(nodes, "exits", [value("input", TensorProto.FLOAT, [1, 3, side, side])], result(""), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", export.OPSET)], ir_version=8)


def main() -> None:
    parser = loop.parser(__doc__, epochs=5, batch=128, lr=0.05, adam_lr=3e-3, bf16=True, out=Path("exits.onnx"))
    parser.add_argument("--base", type=Path, default=Path("pretrained/simplenet-310k-cifar10.onnx"))
    args = parser.parse_args()
    opts = loop.options(args)
    data = images.load("cifar10", opts.cache)
    source = data.source
    pictures = augment.normalize(torch.from_numpy(data.train[:1000]), source)
    torch.manual_seed(opts.seed)
    model = ExitingSimpleNet(stored.simplenet(args.base, pictures))
    test, labels = torch.from_numpy(data.test), torch.from_numpy(data.test_labels)
    up_to = torch.tensor(costs(model, source.side), dtype=torch.float64)

    @torch.no_grad()
    def report(average: ExitingSimpleNet) -> str:
        found = [average.answers(augment.normalize(part, source)) for part in test.split(500)]
        logits = [torch.cat(parts) for parts in zip(*(answers for answers, _ in found))]
        gates = [torch.cat(parts) for parts in zip(*(gates for _, gates in found))]
        right = torch.stack(logits, 1).argmax(2) == labels[:, None]
        exits = " ".join(f"{100 * share:.2f}" for share in right.double().mean(0))
        said = []
        for threshold in THRESHOLDS:
            stops = stop_at(gates, threshold)
            share = right[torch.arange(len(stops)), stops].double().mean()
            said.append(f"{threshold}: {100 * share:.2f} % at {up_to[stops].mean() / 1e6:.1f} M")
        stops = stop_at(gates, THRESHOLD)
        less = 1 - up_to[stops].mean() / up_to[-1]
        return f"{100 * less:.1f} % fewer multiply-adds  exits {exits}  thresholds {', '.join(said)}"

    note = f"multiply-adds up to each exit {[int(count) for count in up_to]}"
    average = loop.fit(model, data, opts, note=note, objective=objective, report=report)
    proto = as_ifs(average, source.side)
    export.describe(proto, export.image_metadata(source.labels, source.mean, source.std, source.side))
    export.halve_weights(proto)
    export.save(proto, opts.out)
    for picture in test[:20]:
        x = augment.normalize(picture[None], source)
        with torch.no_grad():
            wanted = average(x).numpy()
        export.compare(opts.out, {"input": x.numpy()}, {"logits": wanted}, export.HALF_TOLERANCE)


if __name__ == "__main__":
    main()
