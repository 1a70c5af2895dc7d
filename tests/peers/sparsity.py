"""How the latency and the memory of a pruned network follow its zeros.

`cargo xtask python peers.sparsity` prunes SkipNet-M and MobileNetV1 (harness/prune.py) in steps of 5 % and compares every
file with the dense one, on one thread. In every round, the dense file is measured before and after each pruned one, each in
a process of its own, and a ratio is taken with the mean of the two; the table has the median ratio of the rounds, and the
shortest latencies of all rounds. It is printed as Markdown.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from harness import driver, prune

MODELS = ["skipnet_m", "mobilenet_v1"]


@dataclass
class Runs:
    """Measurements of a model, relative to another."""

    ratios: list[float] = field(default_factory=list)
    # The shortest latency in milliseconds.
    least: float = float("inf")
    # Bytes of the packed weights.
    weights: int = 0


def bench(skipstone: driver.Skipstone, model: Path, args: argparse.Namespace, *options) -> dict:
    """`skipstone bench --json`."""
    options += ("--warmup", 3, "--seconds", args.seconds, "--precision", args.precision)
    options += ("--isa", args.isa) if args.isa else ()
    return json.loads(skipstone.call("bench", model, *options, "--json", "-"))


def compare(skipstone: driver.Skipstone, base: Path, models: dict, args: argparse.Namespace) -> dict[object, Runs]:
    """Measures the models alternating with `base`; by the keys of `models`."""
    runs = {key: Runs() for key in models}
    for _ in range(args.rounds):
        before = bench(skipstone, base, args)
        for key, model in models.items():
            one, after = bench(skipstone, model, args), bench(skipstone, base, args)
            median = lambda run: run["latency_ms"]["p50"]
            runs[key].ratios.append(median(one) / statistics.mean([median(before), median(after)]))
            runs[key].least = min(runs[key].least, one["latency_ms"]["min"])
            runs[key].weights = one["memory"]["packed_bytes"]
            before = after
    return runs


def package_bytes(skipstone: driver.Skipstone, model: Path, args: argparse.Namespace) -> int:
    """The size of a package for this CPU."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.skip"
        skipstone.call("compile", model, "-o", package, "--target", "host", "--precision", args.precision)
        return package.stat().st_size


def table(skipstone: driver.Skipstone, name: str, args: argparse.Namespace) -> list[str]:
    """The lines of a network's table."""
    files = {zeros: prune.pruned(skipstone, name, zeros) for zeros in sorted({0, *args.zeros})}
    runs = compare(skipstone, files[0], files, args)
    sizes = {zeros: package_bytes(skipstone, file, args) for zeros, file in files.items()}
    lines = [
        f"| {name}: zeros | latency / dense | least latency, ms | weights / dense | package / dense |",
        "|---|---|---|---|---|",
    ]
    for zeros, one in runs.items():
        weights, size = one.weights / runs[0].weights, sizes[zeros] / sizes[0]
        ratio = statistics.median(one.ratios)
        lines.append(f"| {zeros} % | {ratio:.2f} | {one.least:.2f} | {weights:.2f} | {size:.2f} |")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a measurement."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="time of each measurement")
    parser.add_argument("--isa", help="an instruction set other than the best of this CPU")
    parser.add_argument("--precision", choices=["f32", "f16"], default="f32")


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="models of the zoo, or mobilenet_v1")
    parser.add_argument("--zeros", nargs="+", type=int, default=list(range(0, 100, 5)), help="percentages")
    add_arguments(parser)
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    for name in args.models:
        print("\n".join(table(skipstone, name, args)), flush=True)


if __name__ == "__main__":
    main()
