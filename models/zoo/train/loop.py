"""The training loop of every classifier recipe.

A run writes two files beside its result: `NAME.checkpoint.pt`, from which it resumes at the last finished epoch, and
`NAME.log`, one line per epoch, the source of every figure in the tables. The average of the weights (EMA) is tested and
exported, with its BatchNorm measured on training images, because the statistics of the changing weights are not those
of their average. The figure of a run is that of its last epoch, never its best one.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from zoo.data import images
from zoo.train import augment, optimizers, stored

# Images for measuring the average's BatchNorm.
CALIBRATION = 4000


@dataclass
class Options:
    """The options of a run; each recipe has its own defaults."""

    epochs: int = 40
    batch: int = 128
    lr: float = 0.05
    """Muon's relative step at its peak; it falls linearly to zero."""
    adam_lr: float = 4e-3
    seed: int = 1
    bf16: bool = False
    sides: tuple[tuple[float, int], ...] = ()
    """(share of the epochs after which it applies, side of the training images)."""
    smoothing: float = 0.1
    cutmix: float = 0.0
    """Share of the batches that are mixed."""
    ema: float = 0.998
    threads: int = field(default_factory=torch.get_num_threads)
    cache: Path = Path("cache")
    out: Path = Path("model.onnx")


def parser(description: str, **defaults) -> argparse.ArgumentParser:
    """The options of all recipes. `sides` is the recipe's own."""
    base = Options(**defaults)
    result = argparse.ArgumentParser(description=description.split("\n")[0])
    for name, text in {
        "epochs": "passes over the training images",
        "batch": "images a step",
        "lr": "relative step of the hidden convolutions",
        "adam-lr": "step of everything else",
        "seed": "of weights, order and augmentation",
        "smoothing": "label smoothing",
        "cutmix": "share of the batches that CutMix mixes",
        "ema": "decay of the weights' average a step",
        "threads": "CPU threads",
    }.items():
        value = getattr(base, name.replace("-", "_"))
        result.add_argument(f"--{name}", type=type(value), default=value, help=f"{text} (default {value})")
    result.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=base.bf16,
        help="compute in bfloat16: faster for 3x3 convolutions where the CPU has it, slower for depthwise ones",
    )
    sets = ", ".join(images.SOURCES)
    own = "a folder with train and test, and in each a folder of images per class"
    result.add_argument("--data", default="cifar10", help=f"{sets}, or {own} (default cifar10)")
    result.add_argument("--side", type=int, default=32, help="pixels that a folder's images are resized to (default 32)")
    result.add_argument(
        "--mirrored",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the mirror image of a folder's image has the same class",
    )
    result.add_argument("--cache", type=Path, default=base.cache, help="folder for the data sets")
    result.add_argument("--out", type=Path, default=base.out, help="the model; log and checkpoint are written beside it")
    return result


def options(args: argparse.Namespace, sides: tuple[tuple[float, int], ...] = ()) -> Options:
    """Options from parsed arguments."""
    names = Options.__dataclass_fields__.keys() - {"sides"}
    return Options(sides=sides, **{name: getattr(args, name) for name in names})


def data(args: argparse.Namespace, gray: bool = False) -> images.ImageSet:
    """The images that the arguments name; `gray` ones only if the recipe can."""
    found = images.load(args.data, args.cache, args.side, args.mirrored)
    if found.source.channels != 3 and not gray:
        raise SystemExit(f"{args.data} has gray images, which only the recipe simplenet takes")
    return found


class Log:
    """Lines printed to the screen and to a file."""

    def __init__(self, path: Path, resumed: bool):
        self.path = path
        if not resumed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    def line(self, text: str) -> None:
        print(text, flush=True)
        with self.path.open("a") as file:
            file.write(text + "\n")


@torch.no_grad()
def accuracy(model: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, source: images.Source, side: int) -> float:
    """Share of `pictures` (uint8) whose largest logit is at the label."""
    model.eval()
    right = 0
    for x, y in zip(pictures.split(250), labels.split(250)):
        x = augment.resized(augment.normalize(x, source), side)
        right += (model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum().item()
    return right / len(labels)


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every sample against targets `[n, classes]`."""
    return -(targets * F.log_softmax(logits.float(), dim=1)).sum(1)


def cross_entropy(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The plain objective: mean cross-entropy."""
    return soft_cross_entropy(model(x), targets).mean()


def averaged(model: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """The running average of the weights."""
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average)


def fit(
    model: nn.Module,
    data: images.ImageSet,
    opts: Options,
    *,
    note: str = "",
    objective: Callable = cross_entropy,
    constrain: Callable[[nn.Module, nn.Module, float], None] | None = None,
    report: Callable[[nn.Module], str] | None = None,
    answer: Callable[[nn.Module], tuple[float, str]] | None = None,
) -> nn.Module:
    """Train `model`, or resume from its checkpoint, and return the averaged model.

    `objective(model, x, targets)` is the loss of a batch; `constrain(model, target, progress)` makes
    `target`, which is the model after each step or its average, keep the model's constraints, such as
    a mask; `report(average)` adds to a line; `answer(average)` is for models whose one pass over the test images gives
    more than their accuracy: it returns the share that is right, and what to add.
    """
    torch.set_num_threads(opts.threads)
    source, full = data.source, opts.sides[-1][1] if opts.sides else data.source.side
    pictures, labels = torch.from_numpy(data.train), torch.from_numpy(data.train_labels)
    test, test_labels = torch.from_numpy(data.test), torch.from_numpy(data.test_labels)
    classes = len(source.labels)
    model = model.to(memory_format=torch.channels_last)
    optimizing = optimizers.make(model, opts.lr, opts.adam_lr)
    peaks = [group["lr"] for o in optimizing for group in o.param_groups]
    average = averaged(model, opts.ema)

    checkpoint = opts.out.with_suffix(".checkpoint.pt")
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimizer, state in zip(optimizing, saved["optimizers"]):
            optimizer.load_state_dict(state)
        start = saved["epoch"]
    log = Log(opts.out.with_suffix(".log"), resumed=start > 0)
    module = getattr(sys.modules["__main__"], "__spec__", None)
    command = " ".join(["python -m", module.name if module else "?", *sys.argv[1:]])
    if start:
        log.line(f"# resumed after epoch {start}: {command}")
    else:
        parameters = sum(p.numel() for p in model.parameters())
        log.line(f"# {command}")
        log.line(
            f"# {data.name}, {len(labels)} images, {opts.epochs} epochs, batch {opts.batch}, seed {opts.seed}, "
            f"{'bf16' if opts.bf16 else 'f32'}, {opts.threads} threads, torch {torch.__version__}, "
            f"{parameters} parameters{', ' + note if note else ''}"
        )

    def tested(examples: torch.Tensor) -> str:
        """The part of a log line that describes the average."""
        if constrain:
            constrain(model, average.module, 1.0)
        prepared = (augment.resized(augment.normalize(x, source), full) for x in examples[:CALIBRATION].split(250))
        stored.recalibrate(average.module, (x.contiguous(memory_format=torch.channels_last) for x in prepared))
        if answer:
            right, more = answer(average.module)
        else:
            right = accuracy(average.module, test, test_labels, source, full)
            more = report(average.module) if report else ""
        return f"test {100 * right:.2f} %" + (f"  {more}" if more else "")

    if start == opts.epochs:
        log.line(f"measured again  {tested(pictures)}")
    steps = len(pictures) // opts.batch
    if not steps:
        raise SystemExit(f"{len(pictures)} images are fewer than a batch of {opts.batch}; choose a smaller --batch")
    total = opts.epochs * steps
    warmup = max(1, total // 50)
    for epoch in range(start, opts.epochs):
        began, spent, running = time.time(), time.process_time(), 0.0
        generator = torch.Generator().manual_seed(1000 * opts.seed + epoch)
        torch.manual_seed(1000 * opts.seed + epoch)
        order = torch.randperm(len(pictures), generator=generator)
        border = 4 if source.side >= 32 else 2
        augmented = augment.crop_and_flip(pictures, epoch, border, source.mirrored, generator)
        side = next((side for share, side in reversed(opts.sides) if epoch >= share * opts.epochs), full)
        model.train()
        for step in range(steps):
            at = epoch * steps + step
            factor = min((at + 1) / warmup, (total - at) / (total - warmup))
            for group, peak in zip((g for o in optimizing for g in o.param_groups), peaks):
                group["lr"] = peak * factor
            batch = order[step * opts.batch : (step + 1) * opts.batch]
            x = augment.normalize(augmented[batch], source)
            targets = F.one_hot(labels[batch], classes) * (1 - opts.smoothing) + opts.smoothing / classes
            if opts.cutmix and torch.rand((), generator=generator).item() < opts.cutmix:
                x, targets = augment.cutmix(x, targets, generator)
            x = augment.resized(x, side).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=opts.bf16):
                loss = objective(model, x, targets)
            model.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizing:
                optimizer.step()
            if constrain:
                constrain(model, model, (at + 1) / total)
            average.update_parameters(model)
            running += loss.item()
            if step % 50 == 49 and sys.stdout.isatty():
                print(f"  step {step + 1}/{steps}  loss {running / (step + 1):.4f}", end="\r", flush=True)
        figures = tested(augmented)
        log.line(
            f"epoch {epoch + 1:3}/{opts.epochs}  side {side}  loss {running / steps:.4f}  {figures}  "
            f"{time.time() - began:.0f} s, {time.process_time() - spent:.0f} s of CPU"
        )
        state = {
            "epoch": epoch + 1,
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizers": [o.state_dict() for o in optimizing],
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)
    return copy.deepcopy(average.module).eval()
