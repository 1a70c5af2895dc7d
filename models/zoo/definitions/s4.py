"""S4 with a diagonal state matrix (Gu et al., "On the Parameterization and Initialization of Diagonal State Space
Models", 2022), in its convolution form: the recurrence of every channel is one filter as long as the sequence."""

import torch
import torch.nn.functional as F
from torch import nn


class S4Layer(nn.Module):
    """`[N, channels, length]` to the same. The filter is computed when the network is made, as for inference."""

    def __init__(self, channels: int, length: int, states: int = 16):
        super().__init__()
        a = torch.complex(torch.full((states,), -0.5), torch.pi * torch.arange(states).float())
        step = torch.exp(torch.empty(channels, 1).uniform_(-5.0, -1.5))
        c = torch.randn(channels, states, dtype=torch.cfloat)
        # Zero-order hold: the discrete input matrix is (exp(step a) - 1) / a.
        powers = torch.exp((step * a)[:, :, None] * torch.arange(length))
        kernel = 2 * ((c * (torch.exp(step * a) - 1) / a)[:, :, None] * powers).sum(1).real
        self.register_buffer("kernel", kernel.flip(-1).unsqueeze(1))
        self.skip = nn.Parameter(torch.ones(channels, 1))
        self.out = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, x):
        channels, length = x.size(1), self.kernel.size(2)
        y = F.conv1d(F.pad(x, (length - 1, 0)), self.kernel, groups=channels)
        return F.glu(self.out(F.gelu(y + self.skip * x)), 1)


class S4(nn.Module):
    """Signals `[N, length, features]` to logits."""

    def __init__(self, features: int, length: int, width: int, depth: int, classes: int):
        super().__init__()
        self.into = nn.Linear(features, width)
        self.layers = nn.ModuleList(S4Layer(width, length) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.into(x)
        for layer, norm in zip(self.layers, self.norms):
            x = norm(x + layer(x.transpose(1, 2)).transpose(1, 2))
        return self.head(x.mean(1))


def example():
    return S4(3, 64, 24, 2, 5), {"input": torch.randn(1, 64, 3)}, ["logits"]
