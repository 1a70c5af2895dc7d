"""Batches from a data set in memory: uint8 in, normalized float out, augmented as whole tensors."""

import torch
import torch.nn.functional as F

from zoo.data.images import Source


def normalize(images: torch.Tensor, source: Source) -> torch.Tensor:
    """uint8 images to the float input that the models take."""
    mean = torch.tensor(source.mean).view(1, -1, 1, 1) * 255
    std = torch.tensor(source.std).view(1, -1, 1, 1) * 255
    return (images.float() - mean) / std


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Float images at another size."""
    if images.size(-1) == side:
        return images
    return F.interpolate(images, size=side, mode="bilinear", antialias=True, align_corners=False)


def crop_and_flip(images: torch.Tensor, epoch: int, border: int, mirrored: bool, generator) -> torch.Tensor:
    """Random crop from a reflected border, and, if mirror images are as likely, a flip that alternates by epoch (each
    image is seen once each way in every two epochs)."""
    n, _, side, _ = images.shape
    padded = F.pad(images, (border,) * 4, mode="reflect")
    shift = torch.randint(0, 2 * border + 1, (n, 2), generator=generator)
    rows = shift[:, 0].view(n, 1, 1) + torch.arange(side).view(1, side, 1)
    cols = shift[:, 1].view(n, 1, 1) + torch.arange(side).view(1, 1, side)
    out = padded.permute(0, 2, 3, 1)[torch.arange(n).view(n, 1, 1), rows, cols].permute(0, 3, 1, 2)
    if not mirrored:
        return out
    first = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(7)).bool()
    flip = first if epoch % 2 == 0 else ~first
    return torch.where(flip.view(n, 1, 1, 1), out.flip(3), out)


def cutmix(images: torch.Tensor, targets: torch.Tensor, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of every image replaced by that of another (Yun et al., "CutMix", 2019): the box's area is
    uniform, one box a batch; targets `[n, classes]` mix in proportion."""
    n, _, height, width = images.shape
    share = torch.rand((), generator=generator).item() ** 0.5
    tall, wide = int(height * share), int(width * share)
    top = torch.randint(0, height - tall + 1, (), generator=generator).item()
    left = torch.randint(0, width - wide + 1, (), generator=generator).item()
    other = torch.randperm(n, generator=generator)
    mixed = images.clone()
    mixed[:, :, top : top + tall, left : left + wide] = images[other, :, top : top + tall, left : left + wide]
    area = tall * wide / (height * width)
    return mixed, (1 - area) * targets + area * targets[other]
