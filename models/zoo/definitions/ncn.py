"""Link prediction by common neighbors (Wang, Yang and Zhang, "Neural Common Neighbor with Completion for Link
Prediction", ICLR 2024): a message-passing network embeds the nodes; a pair is scored by its product and by the sum
over the neighbors that both have."""

import torch
from torch import nn


class NCN(nn.Module):
    """Node features `[nodes, features]`, edges `[2, edges]` of an undirected graph with both directions, pairs
    `[2, pairs]`, to the probability of a link for each pair."""

    def __init__(self, features: int, width: int, depth: int):
        super().__init__()
        widths = [features, *[width] * depth]
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.others = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:]))
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, features, edges, pairs):
        source, target = edges[0], edges[1]
        nodes, ones = features.size(0), torch.ones(edges.size(1))
        degree = torch.zeros(nodes).scatter_add(0, target, ones).clamp_min(1.0)
        x = features
        for own, others in zip(self.own, self.others):
            messages = x.index_select(0, source)
            to = target[:, None].expand(-1, messages.size(1))
            total = torch.zeros(nodes, messages.size(1)).scatter_add(0, to, messages)
            x = torch.relu(own(x) + others(total / degree[:, None]))
        adjacency = torch.zeros(nodes * nodes).scatter_add(0, source * nodes + target, ones)
        adjacency = adjacency.reshape(nodes, nodes).clamp_max(1.0)
        first, second = pairs[0], pairs[1]
        common = (adjacency[first] * adjacency[second]) @ x
        return torch.sigmoid(self.score(torch.cat([x[first] * x[second], common], -1)))[:, 0]


def example():
    one_way = torch.randint(20, (2, 40))
    edges = torch.cat([one_way, one_way.flip(0)], 1)
    return NCN(8, 16, 2), {"features": torch.randn(20, 8), "edges": edges, "pairs": torch.randint(20, (2, 6))}, ["link"]
