"""SimpleNet, the anomaly detector, on a folder of magnetic tiles.

The backbone's maps are computed once and stored; adaptor and discriminator learn to distinguish them from the same maps
with gaussian noise. No defect is seen in training.

The adaptor starts as the whitening of whole tiles' features. From a random start the task is too easy to be useful: the
features of this backbone fill few of their dimensions, so that noise in all of them can be detected without knowing
what a tile looks like (image AUROC 54 % at a loss of 0.05). In whitened features, tiles vary equally in every
direction, and the noise is scaled to that.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from zoo import export
from zoo.data import magnetic_tile
from zoo.networks import anomaly, efficientnet_lite
from zoo.train.loop import Log

SIDE = 256
# For whitened features, whose standard deviation is one; the margin of both classes is the paper's.
NOISE, MARGIN = 0.25, 0.5
# Positions of an image used per step.
POSITIONS = 128


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive scores above a negative; ties count half."""
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    rank = (ends - (counts - 1) / 2)[ranks]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 to the backbone's input."""
    return (pixels.float() - 127) / 128


@torch.no_grad()
def maps(features: anomaly.Features, tiles, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Both maps of every tile as f16, from `cache` if they are there."""
    files = cache.with_suffix(".fine.npy"), cache.with_suffix(".coarse.npy")
    if not all(file.exists() for file in files):
        parts = []
        for index in range(0, len(tiles), 8):
            x = torch.from_numpy(np.stack([tile.pixels(SIDE) for tile in tiles[index : index + 8]]))
            parts.append([m.half().numpy() for m in features.maps(normalized(x))])
            print(f"  maps {index + len(x)}/{len(tiles)}", end="\r", flush=True)
        for file, arrays in zip(files, zip(*parts)):
            np.save(file, np.concatenate(arrays))
    fine, coarse = (np.load(file, mmap_mode="r") for file in files)
    return fine, coarse


@torch.no_grad()
def whiten(adaptor: torch.nn.Conv2d, features: torch.Tensor) -> None:
    """Make `adaptor` the projection of `features` `[n, channels]` on their principal directions, each scaled to
    standard deviation one."""
    variance, directions = torch.linalg.eigh(torch.cov(features.T))
    kept = adaptor.out_channels
    weight = (directions[:, -kept:] / (variance[-kept:] + 1e-4).sqrt()).T
    adaptor.weight.copy_(weight[:, :, None, None])
    adaptor.bias.copy_(-weight @ features.mean(0))


@torch.no_grad()
def sample(stored, count: int, per_tile: int) -> torch.Tensor:
    """Features `[n, channels]` at random positions of every tile."""
    generator, found = torch.Generator().manual_seed(0), []
    for index in range(0, count, 8):
        joined = anomaly.join(*(torch.from_numpy(np.array(m[index : index + 8])).float() for m in stored)).flatten(2)
        at = torch.randperm(joined.size(2), generator=generator)[:per_tile]
        found.append(joined[:, :, at].transpose(1, 2).flatten(0, 1))
    return torch.cat(found)


@torch.no_grad()
def evaluate(detector: anomaly.AnomalyDetector, stored, tiles) -> tuple[float, float]:
    """Image AUROC and pixel AUROC; pixels at a quarter of the side, which is the resolution of the heat map."""
    detector.eval()
    scores, heat, broken = [], [], []
    for index, tile in enumerate(tiles):
        joined = anomaly.join(*(torch.from_numpy(np.array(m[index : index + 1])).float() for m in stored))
        score = -detector.head(joined)
        scores.append(score.max().item())
        full = torch.nn.functional.interpolate(score, scale_factor=8.0, mode="bilinear", align_corners=False)
        heat.append(detector.smooth(full)[0, 0, 2::4, 2::4].numpy())
        broken.append(tile.defect(SIDE)[2::4, 2::4])
    positive = np.array([tile.kind != "Free" for tile in tiles])
    return auroc(np.array(scores), positive), auroc(np.stack(heat).ravel(), np.stack(broken).ravel())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiles", type=Path, required=True, help="folder of MT_*/Imgs")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise", type=float, default=NOISE, help=f"of the adapted features (default {NOISE})")
    parser.add_argument("--every", type=int, default=5, help="epochs between two evaluations")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder for the maps")
    parser.add_argument("--out", type=Path, default=Path("anomaly.onnx"))
    args = parser.parse_args()
    learn, rest = magnetic_tile.split(args.tiles)
    torch.manual_seed(args.seed)
    features = anomaly.Features(efficientnet_lite.pretrained()).eval().requires_grad_(False)
    fine, coarse = maps(features, learn, args.cache / f"tiles-learn-{SIDE}")
    held_out = maps(features, rest, args.cache / f"tiles-rest-{SIDE}")

    head = anomaly.Head()
    detector = anomaly.AnomalyDetector(features, head)
    adapting = torch.optim.AdamW(head.adaptor.parameters(), lr=1e-4)
    discriminating = torch.optim.Adam(head.discriminator.parameters(), lr=2e-4, weight_decay=1e-5)
    checkpoint, start = args.out.with_suffix(".checkpoint.pt"), 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        head.load_state_dict(saved["head"])
        adapting.load_state_dict(saved["adapting"])
        discriminating.load_state_dict(saved["discriminating"])
        start = saved["epoch"]
    else:
        whiten(head.adaptor, sample((fine, coarse), len(learn), 48))
    log = Log(args.out.with_suffix(".log"), resumed=start > 0)
    if not start:
        log.line(
            f"# anomaly, magnetic tiles, {len(learn)} whole ones to learn from, {len(rest)} held out "
            f"({sum(t.kind != 'Free' for t in rest)} broken), {SIDE} pixels, {args.epochs} epochs, noise {args.noise}, "
            f"seed {args.seed}, torch {torch.__version__}"
        )
    side = fine.shape[-1]
    for epoch in range(start, args.epochs):
        began, running = time.time(), 0.0
        generator = torch.Generator().manual_seed(1000 * args.seed + epoch)
        order = torch.randperm(len(learn), generator=generator)
        batches = order.split(8)
        detector.train()
        features.eval()
        for batch in batches:
            picked = batch.sort().values.numpy()
            joined = anomaly.join(*(torch.from_numpy(m[picked]).float() for m in (fine, coarse)))
            at = torch.randperm(side * side, generator=generator)[:POSITIONS]
            adapted = head.adaptor(joined.flatten(2)[:, :, at].unsqueeze(-1))
            noisy = adapted + args.noise * torch.randn(adapted.shape, generator=generator)
            both = head.discriminator(torch.cat([adapted, noisy]))
            normal, broken = both.chunk(2)
            loss = (MARGIN - normal).clamp_min(0).mean() + (MARGIN + broken).clamp_min(0).mean()
            adapting.zero_grad()
            discriminating.zero_grad()
            loss.backward()
            adapting.step()
            discriminating.step()
            running += loss.item()
        line = f"epoch {epoch + 1:3}/{args.epochs}  loss {running / len(batches):.4f}"
        if (epoch + 1) % args.every == 0 or epoch + 1 == args.epochs:
            image, pixel = evaluate(detector, held_out, rest)
            line += f"  image AUROC {100 * image:.2f} %  pixel AUROC {100 * pixel:.2f} %"
        log.line(f"{line}  {time.time() - began:.0f} s")
        state = {"head": head.state_dict(), "adapting": adapting.state_dict()}
        torch.save({**state, "discriminating": discriminating.state_dict(), "epoch": epoch + 1}, checkpoint)
    export.write(
        detector,
        args.out,
        {"input": normalized(torch.from_numpy(rest[0].pixels(SIDE))[None])},
        ["score", "map"],
        metadata={
            "labels": "defect",
            "activation": "none",
            "mean": ",".join(map(str, efficientnet_lite.MEAN)),
            "std": ",".join(map(str, efficientnet_lite.STD)),
            "fit": "stretch",
            "resize": SIDE,
            "crop": SIDE,
        },
        half=True,
        fold=True,
    )


if __name__ == "__main__":
    main()
