"""A classifier with experts on CIFAR-10: one router per layer, or one for all; `--experts 1` is the dense network of equal
active size. It trains from scratch, or, in a few epochs, on the first layers of a stored SimpleNet (`--stem`).

Two ONNX forms are written: `NAME.onnx`, in which every token gathers its experts' weights for a batched product, and
`NAME.contrib.onnx` with com.microsoft's MoE operator, which ONNX Runtime groups by expert; its weights are f32, since
the operator takes constants only.
"""

from pathlib import Path

import torch

from zoo import export
from zoo.networks.experts import ExpertNet, FrozenStem
from zoo.networks.moe_operator import as_moe, with_moe
from zoo.train import augment, loop, stored

# Weight of the loss that keeps the experts equally busy.
BALANCE = 0.01


def objective(model: ExpertNet, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and balance."""
    loss = loop.cross_entropy(model, x, targets)
    return loss + BALANCE * sum(router.balance for router in model.routers())


def main() -> None:
    parser = loop.parser(__doc__, epochs=24, batch=128, lr=0.05, adam_lr=1e-3, bf16=True, out=Path("experts.onnx"))
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top", type=int, default=1)
    parser.add_argument("--shared-router", action="store_true", help="one router before the blocks (Read-ME)")
    parser.add_argument("--stem", type=Path, help="a stored SimpleNet, whose first layers are the stem and do not change")
    parser.add_argument("--hidden", type=int, default=192, help="width of an expert's hidden layer (default 192)")
    args = parser.parse_args()
    opts = loop.options(args)
    data = loop.data(args)
    pictures = augment.normalize(torch.from_numpy(data.train[:1000]), data.source)
    stem = FrozenStem(stored.simplenet(args.stem, pictures, len(data.source.labels))) if args.stem else None
    torch.manual_seed(opts.seed)
    side, classes = data.source.side, len(data.source.labels)
    if side % 4:
        raise SystemExit(f"images of {side} pixels cannot be cut into tokens of 4")
    form = (args.experts, args.top, args.shared_router)
    model = ExpertNet(*form, hidden=args.hidden, side=side, classes=classes, stem=stem)
    told = "1 expert" if args.experts == 1 else f"{args.experts} experts"
    average = loop.fit(model, data, opts, objective=objective, report=lambda _: told)
    export.classifier(average, opts.out, data.source)
    contrib = opts.out.with_suffix(".contrib.onnx")
    export.classifier(with_moe(average), contrib, data.source, half=False, rewrite=as_moe)


if __name__ == "__main__":
    main()
