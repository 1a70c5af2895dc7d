"""RCNN for text (Lai et al., "Recurrent Convolutional Neural Networks for Text Classification", AAAI 2015): a word
with what both directions of an LSTM say of its surroundings, a tanh layer, and the maximum over the text."""

import torch
from torch import nn


class RCNN(nn.Module):
    """Token ids `[N, tokens]` to logits."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, classes: int):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        self.context = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.mix = nn.Linear(embedding + 2 * hidden, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, ids):
        words = self.embed(ids)
        context, _ = self.context(words)
        left, right = context.chunk(2, -1)
        mixed = torch.tanh(self.mix(torch.cat([left, words, right], -1)))
        return self.head(mixed.amax(1))


def example():
    return RCNN(200, 24, 32, 4), {"input_ids": torch.randint(200, (1, 20))}, ["logits"]
