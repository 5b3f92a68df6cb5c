"""Encoders and decoders: multilayer perceptrons that also take the batch and other covariates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resolvi_sd._model.sparse_linear import SparseLinear
from resolvi_sd._tiles import SparseRows

__all__ = ["Classifier", "Decoder", "DensityDecoder", "LatentEncoder", "Perceptron", "ShareEncoder"]

N_SETTING = 4
# Adam changes the weight of every gene by the same amount in a step, which adds up over the genes of a cell.
_SKIP_SPEED = 0.03


class Perceptron(nn.Module):
    """Hidden layers (linear, layer norm, ReLU, dropout); every layer also sees the categories ("deep injection").

    A one-hot category as an additional input of a linear layer is equivalent to a bias per category, which is looked
    up. Covariates with a single category have no such bias.
    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_layers: int,
        n_categories: Sequence[int],
        dropout_rate: float = 0.0,
        *,
        reads_counts: bool = False,
    ) -> None:
        super().__init__()
        first = SparseLinear if reads_counts else nn.Linear
        self.linear = nn.ModuleList(
            first(n_in, n_hidden) if layer == 0 else nn.Linear(n_hidden, n_hidden) for layer in range(n_layers)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(n_hidden) for _ in range(n_layers))
        self.category = nn.ModuleList(
            nn.ParameterDict({str(i): 0.1 * torch.randn(n, n_hidden) for i, n in enumerate(n_categories) if n > 1})
            for _ in range(n_layers)
        )
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor | SparseRows, categories: Tensor, *, dropout: bool = True) -> Tensor:
        """Map cells × n_in, and the category of each covariate, cells × covariates, to cells × n_hidden.

        A network that `reads_counts` takes sparse rows. Without `dropout`, nothing is dropped, even in training.
        """
        for linear, norm, effects in zip(self.linear, self.norm, self.category, strict=True):
            hidden: Tensor = linear(x)
            for covariate, effect in effects.named_parameters():
                hidden = hidden + F.embedding(categories[:, int(covariate)], effect)
            hidden = torch.relu(norm(hidden))
            x = self.dropout(hidden) if dropout else hidden
        return cast(Tensor, x)


class _WithLinearMap(nn.Module):
    """Network with a linear map beside its perceptron, whose weight starts at zero and is raised by the training.

    With perceptrons alone, differences within a cell type (gradients, similar subtypes) are found late or never: until
    the decoder separates them, the divergence keeps them out of the latent, and until they are in the latent, there is
    nothing for the decoder to learn. Linear maps to and from the latent capture them immediately (a generative skip
    model, Dieng et al. 2019, doi 10.48550/arXiv.1807.04863). They would also capture leakage, so their weight is zero
    until the shares roughly account for it.
    """

    skip_weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("skip_weight", torch.zeros(()))

    def raise_skip_weight(self, weight: float) -> None:
        """Raise the weight of the linear map to `weight`, at most 1; never lower it, so that a trained map is kept."""
        self.skip_weight.clamp_(min=min(weight, 1.0))


class LatentEncoder(_WithLinearMap):
    """Map from log-normalized counts to the mean and standard deviation of the latent posterior.

    The mean is a perceptron plus a linear map.
    """

    def __init__(
        self,
        n_genes: int,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        n_categories: Sequence[int],
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.hidden = Perceptron(n_genes, n_hidden, n_layers, n_categories, dropout_rate, reads_counts=True)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.skip = SparseLinear(n_genes, n_latent, bias=False)
        nn.init.zeros_(self.skip.weight)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, features: SparseRows, categories: Tensor, *, dropout: bool = True) -> tuple[Tensor, Tensor]:
        """Map cells × genes and cells × covariates to two tensors, both cells × n_latent."""
        hidden = self.hidden(features, categories, dropout=dropout)
        scale = torch.exp(0.5 * self.log_variance(hidden).clamp(-12.0, 6.0))
        linear = self.skip_weight * _SKIP_SPEED * self.skip(features)
        return self.mean(hidden) + linear, scale + 1e-4


class Decoder(_WithLinearMap):
    """Map from the latent to the expression profile: a perceptron plus a linear map, on a log scale."""

    def __init__(self, n_genes: int, n_latent: int, n_hidden: int, n_layers: int, n_categories: Sequence[int]) -> None:
        super().__init__()
        self.hidden = Perceptron(n_latent, n_hidden, n_layers, n_categories)
        self.rate = nn.Linear(n_hidden, n_genes)
        self.skip = nn.Linear(n_latent, n_genes, bias=False)

    def forward(self, latent: Tensor, categories: Tensor) -> Tensor:
        """Map cells × n_latent to the expression profile, cells × genes; rows sum to 1."""
        linear = self.skip(self.skip_weight * latent)
        return torch.softmax(self.rate(self.hidden(latent, categories)) + linear, dim=-1)


class DensityDecoder(nn.Module):
    """Map from the latent to the number of molecules of a cell of median size."""

    def __init__(self, n_latent: int, n_hidden: int, n_categories: Sequence[int], depth: float) -> None:
        super().__init__()
        self.hidden = Perceptron(n_latent, n_hidden, 1, n_categories)
        self.log_density = nn.Linear(n_hidden, 1)
        with torch.no_grad():
            self.log_density.weight.zero_()
            self.log_density.bias.fill_(math.log(depth))

    def forward(self, latent: Tensor, categories: Tensor) -> Tensor:
        """Map cells × n_latent to one number per cell."""
        return torch.exp(self.log_density(self.hidden(latent, categories)).squeeze(-1).clamp(-12.0, 12.0))


class ShareEncoder(nn.Module):
    """Map from a cell's counts and surroundings to the posterior of its shares, as log-ratios to the own share.

    The molecules that a cell has received can only be recognized by comparing the cell with its neighbors, so their
    profiles, depths and distances are inputs in addition to the cell's own counts.
    """

    def __init__(self, n_genes: int, n_hidden: int, n_layers: int, n_batches: int) -> None:
        super().__init__()
        self.own = SparseLinear(n_genes, n_hidden)
        self.around = SparseLinear(n_genes, n_hidden, bias=False)
        self.setting = nn.Linear(N_SETTING, n_hidden, bias=False)
        self.norm = nn.LayerNorm(n_hidden)
        self.hidden = Perceptron(n_hidden, n_hidden, n_layers - 1, (n_batches,))
        self.loc = nn.Linear(n_hidden, 2)
        self.log_scale = nn.Linear(n_hidden, 2)

    def forward(self, counts: SparseRows, around: Tensor, setting: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Map core cells to means and standard deviations, both cells × 2.

        Parameters
        ----------
        counts
            The cells' counts, cells × genes, read on a log scale.
        around
            Image of their neighbors' features under `around`, averaged, cells × n_hidden.
        setting
            Depth and distances, cells × `N_SETTING`.
        batch
            Batch of the cells.
        """
        own = self.own(counts.with_values(torch.log1p(counts.value)))
        hidden = torch.relu(self.norm(own + around + self.setting(setting)))
        hidden = self.hidden(hidden, batch[:, None])
        return self.loc(hidden).clamp(-10.0, 10.0), torch.exp(self.log_scale(hidden).clamp(-5.0, 1.5))


class Classifier(nn.Module):
    """Map from the latent to the logits of the labels."""

    def __init__(self, n_latent: int, n_hidden: int, n_labels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_latent, n_hidden)
        self.logits = nn.Linear(n_hidden, n_labels)

    def forward(self, latent: Tensor) -> Tensor:
        """Map cells × n_latent to cells × n_labels."""
        logits: Tensor = self.logits(torch.relu(self.hidden(latent)))
        return logits
