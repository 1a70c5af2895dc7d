"""A query-document scorer by late interaction (Khattab and Zaharia, "ColBERT", SIGIR 2020): every query token takes its
best match among the document's tokens, and the matches are added."""

import torch
from torch import nn

from zoo.definitions.attention import Block, padding_mask


class LateInteraction(nn.Module):
    """Query ids `[1, tokens]` and ids of several documents with their 1/0 masks `[documents, tokens]` to scores
    `[documents]`."""

    def __init__(self, vocabulary: int, width: int, depth: int, out: int, tokens: int = 32):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(tokens, width) * 0.1)
        self.layers = nn.ModuleList(Block(width, 4, 4 * width, first=False) for _ in range(depth))
        self.thin = nn.Linear(width, out, bias=False)

    def encode(self, ids, mask):
        x = self.embed(ids) + self.position[: ids.size(1)]
        for layer in self.layers:
            x = layer(x, padding_mask(mask))
        x = self.thin(x)
        return x / x.norm(dim=-1, keepdim=True)

    def forward(self, query, documents, mask):
        asked = self.encode(query, torch.ones_like(query))
        found = self.encode(documents, mask)
        match = torch.einsum("iqd,nkd->nqk", asked, found)
        match = match.masked_fill(mask[:, None, :] == 0, -1e4)
        return match.amax(-1).sum(-1)


def example():
    mask = torch.ones(3, 14, dtype=torch.int64)
    mask[0, 9:], mask[2, 5:] = 0, 0
    inputs = {"query": torch.randint(120, (1, 6)), "documents": torch.randint(120, (3, 14)), "mask": mask}
    return LateInteraction(120, 32, 2, 16), inputs, ["scores"]
