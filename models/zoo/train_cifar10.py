"""Train a 32x32 SimpleNet on CIFAR-10 and export it to ONNX.

Made for a laptop-class CPU: the recipe wants few epochs, so it takes the Muon optimiser
(K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) for the
hidden convolutions, Adam for the rest, a learning rate that falls linearly to zero, and
small images first (progressive resizing): the net ends in a global pool, so any side will do.

The run can be stopped at any time and resumes from its checkpoint.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import cifar10
from export import export
from simplenet import SimpleNet


def orthogonalise(update: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix to `update`, by five Newton-Schulz steps
    (quintic with the coefficients of the Muon write-up)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update / (update.norm() + 1e-7)
    transposed = x.size(0) > x.size(1)
    if transposed:
        x = x.T
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised per filter matrix `[out, in*kh*kw]`.

    BatchNorm follows each of these layers and makes them scale-free, so every matrix is
    kept at the norm `sqrt(out)`: the learning rate is then a relative step.
    """

    def __init__(self, params, lr: float, momentum: float = 0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                velocity = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                nesterov = p.grad + group["momentum"] * velocity
                direction = orthogonalise(nesterov.reshape(p.size(0), -1)).view(p.shape)
                p.mul_(p.size(0) ** 0.5 / p.norm())
                p.add_(direction, alpha=-group["lr"])


def augment(images: torch.Tensor, epoch: int, generator: torch.Generator) -> torch.Tensor:
    """Random crop out of a 4-pixel reflected border, and a flip that alternates by epoch
    (each image is seen once each way in every two epochs)."""
    n = images.size(0)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    shift = torch.randint(0, 9, (n, 2), generator=generator)
    rows = shift[:, 0].view(n, 1, 1) + torch.arange(32).view(1, 32, 1)
    cols = shift[:, 1].view(n, 1, 1) + torch.arange(32).view(1, 1, 32)
    out = padded.permute(0, 2, 3, 1)[torch.arange(n).view(n, 1, 1), rows, cols].permute(0, 3, 1, 2)
    first = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(7)).bool()
    flip = first if epoch % 2 == 0 else ~first
    return torch.where(flip.view(n, 1, 1, 1), out.flip(3), out)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 images to the float input that the models take."""
    mean = torch.tensor(cifar10.MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(cifar10.STD).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / std


@torch.no_grad()
def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of `images` (uint8) whose largest logit is at the label."""
    model.eval()
    right = 0
    for x, y in zip(images.split(250), labels.split(250)):
        x = normalise(x).contiguous(memory_format=torch.channels_last)
        right += (model(x).argmax(1) == y).sum().item()
    return right / len(labels)


def side_at(progress: float) -> int:
    """Side of the training images: small while the net is coarse, full for the second half."""
    return 20 if progress < 0.25 else 24 if progress < 0.5 else 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variant", default="simplenet_310k")
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.05, help="relative step of Muon")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16; twice as fast where the CPU has it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, default=Path("cifar10-cache"))
    parser.add_argument("--out", type=Path, default=Path("simplenet-310k-cifar10.onnx"))
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    images, labels = map(torch.from_numpy, cifar10.load(args.cache, train=True))
    test_images, test_labels = map(torch.from_numpy, cifar10.load(args.cache, train=False))
    model = SimpleNet(args.variant).to(memory_format=torch.channels_last)

    convolutions = [p for p in model.parameters() if p.dim() == 4 and p.size(1) > 3]
    held = {id(p) for p in convolutions}
    rest = [p for p in model.parameters() if id(p) not in held]
    optimisers = [Muon(convolutions, lr=args.lr), torch.optim.Adam(rest, lr=4e-3, betas=(0.9, 0.95))]
    peaks = [group["lr"] for o in optimisers for group in o.param_groups]

    checkpoint, log = args.out.with_suffix(".checkpoint.pt"), args.out.with_suffix(".log")
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)
        start = saved["epoch"]
    else:
        precision = "bf16" if args.bf16 else "f32"
        log.write_text(
            f"# {args.variant}, {args.epochs} epochs, batch {args.batch}, {precision}, torch {torch.__version__}\n"
        )

    steps = len(images) // args.batch
    total = args.epochs * steps
    warmup = max(1, total // 50)
    for epoch in range(start, args.epochs):
        began, running = time.time(), 0.0
        generator = torch.Generator().manual_seed(1000 + epoch)
        order = torch.randperm(len(images), generator=generator)
        augmented = augment(images, epoch, generator)
        side = side_at(epoch / args.epochs)
        model.train()
        for step in range(steps):
            at = epoch * steps + step
            factor = min((at + 1) / warmup, (total - at) / (total - warmup))
            for group, peak in zip((g for o in optimisers for g in o.param_groups), peaks):
                group["lr"] = peak * factor
            batch = order[step * args.batch : (step + 1) * args.batch]
            x = normalise(augmented[batch])
            if side != 32:
                x = F.interpolate(x, size=side, mode="bilinear", antialias=True, align_corners=False)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels[batch], label_smoothing=0.1)
            model.zero_grad(set_to_none=True)
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            running += loss.item()
        line = (
            f"epoch {epoch + 1:3}/{args.epochs}  side {side}  loss {running / steps:.4f}  "
            f"test {100 * accuracy(model, test_images, test_labels):.2f} %  {time.time() - began:.0f} s"
        )
        print(line, flush=True)
        with log.open("a") as file:
            file.write(line + "\n")
        torch.save(
            {"epoch": epoch + 1, "model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers]},
            checkpoint,
        )

    export(
        model,
        args.out,
        side=32,
        labels=cifar10.LABELS,
        mean=cifar10.MEAN,
        std=cifar10.STD,
        resize=32,
        crop=32,
    )


if __name__ == "__main__":
    main()
