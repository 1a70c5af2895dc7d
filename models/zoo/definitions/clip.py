"""A CLIP-like pair (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021):
an image against the texts of several classes; the zero-shot rule is a softmax over scaled cosines."""

import torch
from torch import nn

from zoo.definitions.attention import Block


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def _unit(x):
    return x / x.norm(dim=-1, keepdim=True)


class Clip(nn.Module):
    """An image `[1, 3, side, side]` and token ids `[classes, tokens]` to probabilities `[1, classes]`. A text is read
    where its largest id, the end token, stands."""

    def __init__(self, side: int, patch: int, width: int, depth: int, vocabulary: int, tokens: int, shared: int):
        super().__init__()
        make = lambda: nn.ModuleList(Block(width, 4, 4 * width, activation=QuickGELU()) for _ in range(depth))
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.image_position = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width) * 0.1)
        self.before, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.image_layers, self.image_out = make(), nn.Linear(width, shared, bias=False)
        self.words, self.text_position = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(tokens, width) * 0.1)
        self.text_layers, self.text_norm = make(), nn.LayerNorm(width)
        self.text_out = nn.Linear(width, shared, bias=False)
        self.register_buffer("causal", torch.full((tokens, tokens), -1e4).triu(1))
        self.scale = nn.Parameter(torch.tensor(2.6))

    def image(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.before(torch.cat([self.token.expand(x.size(0), -1, -1), x], 1) + self.image_position)
        for layer in self.image_layers:
            x = layer(x)
        return _unit(self.image_out(self.image_norm(x[:, 0])))

    def text(self, ids):
        x = self.words(ids) + self.text_position
        for layer in self.text_layers:
            x = layer(x, self.causal)
        end = ids.argmax(-1)
        picked = x.gather(1, end[:, None, None].expand(-1, 1, x.size(-1)))[:, 0]
        return _unit(self.text_out(self.text_norm(picked)))

    def forward(self, image, ids):
        return (self.scale.exp() * self.image(image) @ self.text(ids).T).softmax(-1)


def example():
    ids = torch.randint(1, 99, (5, 8))
    ids[torch.arange(5), torch.tensor([3, 7, 5, 4, 6])] = 99
    model = Clip(32, 8, 32, 2, vocabulary=100, tokens=8, shared=16)
    return model, {"image": torch.randn(1, 3, 32, 32), "ids": ids}, ["probabilities"]
