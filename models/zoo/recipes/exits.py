"""Early exits on a stored SimpleNet: classifiers and gates along the frozen network, exported as nested ONNX Ifs.

Exits learn from the labels and from the last answer, the gates whether stopping loses anything. PALBERT trains its
gates by the expected loss and the distance from a geometric prior instead, which says how often to stop, but hardly for
which images: here, with a weight of 0.05 for the prior they never stopped in six epochs, and with 0.5 they lost five
points for 6 % fewer multiply-adds after two.

Gates lag behind exits that still change, so at the end they train alone, on the averaged exits, whose answers are
computed once.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import nn

from zoo import export
from zoo.networks.exits import THRESHOLD, ExitingSimpleNet, stop_at
from zoo.train import augment, cost, loop, stored

# The share of the last answer in the targets of the exits (Zhang et al., "Be your own teacher", 2019).
TAUGHT = 0.5
# How many needless stages a wrong early answer counts for: above a threshold of one half, stopping is right with nine
# to one.
WRONG = 9.0
THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Training images for the gates alone, passes over them, images a step, and the first step's size.
JUDGED, PASSES, BATCH, STEP = 20_000, 40, 500, 2e-2


def gate_loss(gates: list[torch.Tensor], right: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of having stopped by an exit, against whether stopping there loses nothing: its answer is right,
    or the last one is wrong as well. `right` is `[n, exits + 1]`."""
    fine = (right[:, :-1] | ~right[:, -1:]).float()
    going = torch.cumprod(1 - torch.stack(gates, 1), 1).clamp(1e-6, 1 - 1e-6)
    return -(fine * (1 - going).log() + WRONG * (1 - fine) * going.log()).sum(1).mean()


def objective(model: ExitingSimpleNet, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of every exit, and the gates' loss."""
    logits, gates = model.answers(x)
    taught = (1 - TAUGHT) * targets + TAUGHT * logits[-1].float().softmax(1)
    loss = sum(loop.soft_cross_entropy(answer, taught) for answer in logits[:-1]).mean()
    return loss + gate_loss(gates, torch.stack(logits, 1).argmax(2) == targets.argmax(1)[:, None])


def teach_gates(model: ExitingSimpleNet, answers: list[torch.Tensor], right: torch.Tensor) -> None:
    """Train the gates alone on the logits of their exits, and on which exits are right, `[n, exits + 1]`."""
    gates = nn.ModuleList(leave.gate for leave in model.exits).requires_grad_(True)
    optimizer = torch.optim.Adam(gates.parameters(), lr=STEP)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, PASSES)
    for _ in range(PASSES):
        for batch in torch.randperm(len(right)).split(BATCH):
            loss = gate_loss([leave.judge(part[batch]) for leave, part in zip(model.exits, answers)], right[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        falling.step()


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


def as_ifs(model: ExitingSimpleNet, side: int, classes: int) -> onnx.ModelProto:
    """One image: after each exit an If whose then-branch returns its answer and whose else-branch holds the rest. The
    threshold is an input with a default."""
    weights = [helper.make_tensor("threshold", TensorProto.FLOAT, [], [THRESHOLD])]
    weights += [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])]
    value = helper.make_tensor_value_info
    node = helper.make_node
    result = lambda suffix: [
        value(f"logits{suffix}", TensorProto.FLOAT, [1, classes]),
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
    nodes.insert(0, node("Sub", ["one", "threshold"], ["going.most"]))
    inputs = [value("input", TensorProto.FLOAT, [1, 3, side, side]), value("threshold", TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "exits", inputs, result(""), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", export.OPSET)], ir_version=8)


def main() -> None:
    parser = loop.parser(__doc__, epochs=4, batch=128, lr=0.05, adam_lr=2e-3, bf16=True, out=Path("exits.onnx"))
    parser.add_argument("--base", type=Path, default=Path("pretrained/simplenet-310k-cifar10.onnx"))
    args = parser.parse_args()
    opts = loop.options(args)
    data = loop.data(args)
    source = data.source
    pictures = augment.normalize(torch.from_numpy(data.train[:1000]), source)
    torch.manual_seed(opts.seed)
    model = ExitingSimpleNet(stored.simplenet(args.base, pictures, len(data.source.labels)))
    test, labels = torch.from_numpy(data.test), torch.from_numpy(data.test_labels)
    up_to = torch.tensor(costs(model, source.side), dtype=torch.float64)

    @torch.no_grad()
    def answer(average: ExitingSimpleNet) -> tuple[float, str]:
        average.eval()
        found = [average.answers(augment.normalize(part, source)) for part in test.split(250)]
        logits = [torch.cat(parts) for parts in zip(*(answers for answers, _ in found))]
        gates = [torch.cat(parts) for parts in zip(*(gates for _, gates in found))]
        right = torch.stack(logits, 1).argmax(2) == labels[:, None]
        exits = " ".join(f"{100 * share:.2f}" for share in right.double().mean(0))
        share, spent, said = {}, {}, []
        for threshold in THRESHOLDS:
            stops = stop_at(gates, threshold)
            share[threshold] = right[torch.arange(len(stops)), stops].double().mean().item()
            spent[threshold] = up_to[stops].mean().item()
            said.append(f"{threshold}: {100 * share[threshold]:.2f} % at {spent[threshold] / 1e6:.1f} M")
        less = 1 - spent[THRESHOLD] / up_to[-1].item()
        more = f"{100 * less:.1f} % fewer multiply-adds  exits {exits}  thresholds {', '.join(said)}"
        return share[THRESHOLD], more

    note = f"multiply-adds up to each exit {[int(count) for count in up_to]}"
    average = loop.fit(model, data, opts, note=note, objective=objective, answer=answer)
    order = torch.Generator().manual_seed(opts.seed)
    judged = augment.crop_and_flip(torch.from_numpy(data.train[:JUDGED]), opts.epochs, 4, source.mirrored, order)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=opts.bf16):
        found = [average.answers(augment.normalize(part, source))[0] for part in judged.split(250)]
    answers = [torch.cat(parts).float() for parts in zip(*found)]
    right = torch.stack(answers, 1).argmax(2) == torch.from_numpy(data.train_labels[:JUDGED])[:, None]
    teach_gates(average, answers, right)
    share, more = answer(average)
    log = loop.Log(opts.out.with_suffix(".log"), resumed=True)
    log.line(f"gates alone, {len(judged)} images  test {100 * share:.2f} %  {more}")
    proto = as_ifs(average, source.side, len(source.labels))
    export.describe(proto, export.image_metadata(source.labels, source.mean, source.std, source.side))
    export.describe(proto, {"settings": "threshold"})
    export.halve_weights(proto)
    export.save(proto, opts.out)
    for picture in test[:20]:
        x = augment.normalize(picture[None], source)
        with torch.no_grad():
            wanted = average(x).numpy()
        export.compare(opts.out, {"input": x.numpy()}, {"logits": wanted}, export.HALF_TOLERANCE)


if __name__ == "__main__":
    main()
