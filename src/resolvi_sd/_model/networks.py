"""Encoders and decoder: multilayer perceptrons that take the batch along."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Classifier", "Decoder", "LatentEncoder", "Perceptron", "ShareEncoder"]

N_SETTING = 4


class Perceptron(nn.Module):
    """Hidden layers (linear, layer norm, ReLU, dropout); every layer also sees the categories.

    A one-hot category beside the input of a linear layer is the same as a bias per category, looked up.
    """

    def __init__(self, n_in: int, n_hidden: int, n_layers: int, n_categories: int, dropout_rate: float = 0.0) -> None:
        super().__init__()
        sizes = [n_in] + [n_hidden] * n_layers
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.norm = nn.ModuleList(nn.LayerNorm(n_hidden) for _ in range(n_layers))
        embeddings = [nn.Embedding(n_categories, n_hidden) for _ in range(n_layers if n_categories > 1 else 0)]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.1)
        self.category = nn.ModuleList(embeddings)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, category: Tensor | None) -> Tensor:
        """Map cells × n_in to cells × n_hidden."""
        for i, (linear, norm) in enumerate(zip(self.linear, self.norm, strict=True)):
            x = linear(x)
            if len(self.category):
                x = x + self.category[i](category)
            x = self.dropout(torch.relu(norm(x)))
        return x


class LatentEncoder(nn.Module):
    """From log-normalised counts to the mean and standard deviation of the latent posterior."""

    def __init__(self, n_genes: int, n_latent: int, n_hidden: int, n_layers: int, dropout_rate: float) -> None:
        super().__init__()
        # The batch is left to the decoder, so that the latent is free of it.
        self.hidden = Perceptron(n_genes, n_hidden, n_layers, 1, dropout_rate)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map cells × genes to two tensors cells × n_latent."""
        hidden = self.hidden(features, None)
        scale = torch.exp(0.5 * self.log_variance(hidden).clamp(-12.0, 6.0))
        return self.mean(hidden), scale + 1e-4


class Decoder(nn.Module):
    """From the latent to the logarithm of the expression rates, up to a constant per cell."""

    def __init__(self, n_genes: int, n_latent: int, n_hidden: int, n_layers: int, n_batches: int) -> None:
        super().__init__()
        self.hidden = Perceptron(n_latent, n_hidden, n_layers, n_batches)
        self.rate = nn.Linear(n_hidden, n_genes)

    def forward(self, latent: Tensor, batch: Tensor) -> Tensor:
        """Map cells × n_latent to the expression profile, cells × genes, rows sum to 1."""
        return torch.softmax(self.rate(self.hidden(latent, batch)), dim=-1)


class ShareEncoder(nn.Module):
    """From a cell's counts and its surroundings to the logits of its shares.

    What a cell received can only be told by comparing it with its neighbors, so their profiles, depths and distances
    are inputs beside the cell's own counts.
    """

    def __init__(self, n_genes: int, n_hidden: int, n_layers: int, n_batches: int) -> None:
        super().__init__()
        self.own = nn.Linear(n_genes, n_hidden)
        self.around = nn.Linear(n_genes, n_hidden, bias=False)
        self.setting = nn.Linear(N_SETTING, n_hidden, bias=False)
        self.norm = nn.LayerNorm(n_hidden)
        self.hidden = Perceptron(n_hidden, n_hidden, n_layers - 1, n_batches)
        self.logits = nn.Linear(n_hidden, 3)

    def forward(self, counts: Tensor, around: Tensor, setting: Tensor, batch: Tensor) -> Tensor:
        """Map core cells to logits, cells × 3.

        Parameters
        ----------
        counts
            log1p of the cells' counts, cells × genes.
        around
            :meth:`summarise` of their neighbors, averaged, cells × n_hidden.
        setting
            Depth and distances, cells × `N_SETTING`.
        batch
            Batch of the cells.
        """
        hidden = torch.relu(self.norm(self.own(counts) + around + self.setting(setting)))
        logits: Tensor = self.logits(self.hidden(hidden, batch))
        return logits


class Classifier(nn.Module):
    """From the latent to the logits of the labels."""

    def __init__(self, n_latent: int, n_hidden: int, n_labels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_latent, n_hidden)
        self.logits = nn.Linear(n_hidden, n_labels)

    def forward(self, latent: Tensor) -> Tensor:
        """Map cells × n_latent to cells × n_labels."""
        logits: Tensor = self.logits(torch.relu(self.hidden(latent)))
        return logits
