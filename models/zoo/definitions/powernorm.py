"""A transformer with PowerNorm (Shen et al., "PowerNorm: Rethinking Batch Normalization in Transformers", ICML 2020).

At inference: every group of features is scaled to a quadratic mean of one, then each feature is divided by the root
of its running second moment."""

import torch
from torch import nn

from zoo.definitions.attention import Block, padding_mask


class PowerNorm(nn.Module):
    """`[N, tokens, width]` to the same, as at inference."""

    def __init__(self, width: int, groups: int = 1, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_phi", torch.empty(width).uniform_(0.5, 1.5))
        self.groups, self.eps = groups, eps

    def forward(self, x):
        grouped = x.reshape(*x.shape[:-1], self.groups, -1)
        grouped = grouped / (grouped.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return grouped.reshape(x.shape) / (self.running_phi + self.eps).sqrt() * self.weight + self.bias


class PowerNormEncoder(nn.Module):
    """Token ids and 1/0 mask `[N, tokens]` to logits, from the mean of the tokens."""

    def __init__(self, vocabulary: int, width: int, depth: int, classes: int, tokens: int = 32):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(tokens, width) * 0.1)
        norm = lambda channels: PowerNorm(channels, groups=4)
        self.layers = nn.ModuleList(
            Block(width, 4, 4 * width, norm=norm, first=False, activation=nn.ReLU()) for _ in range(depth)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, ids, mask):
        x = self.embed(ids) + self.position[: ids.size(1)]
        for layer in self.layers:
            x = layer(x, padding_mask(mask))
        keep = mask[:, :, None].float()
        return self.head((x * keep).sum(1) / keep.sum(1))


def example():
    mask = torch.ones(1, 12, dtype=torch.int64)
    mask[:, 9:] = 0
    return PowerNormEncoder(100, 32, 2, 3), {"input_ids": torch.randint(100, (1, 12)), "mask": mask}, ["logits"]
