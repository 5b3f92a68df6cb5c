"""Draws from the posterior of chosen cells; what a cell gets does not depend on which others are drawn with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from resolvi_sd._model.delaporte import draw_own
from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._tiles import Minibatch, Tissue, cut_minibatch, encoder_features

__all__ = ["SITES", "SOURCES", "Sampler", "Site"]

SOURCES = ("own", "diffusion", "background")

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Site:
    """A quantity of the model that can be sampled.

    Parameters
    ----------
    dims
        Names of its dimensions; without `sample` it is a point estimate.
    dtype
        Number type.
    description
        What it is.
    units
        Its units.
    """

    dims: tuple[str, ...]
    dtype: type[np.generic]
    description: str
    units: str = "1"

    @property
    def is_sampled(self) -> bool:
        """Whether there are draws of it."""
        return "sample" in self.dims


SITES = {
    "latent": Site(("sample", "cell", "latent_dim"), np.float32, "latent z"),
    "expression": Site(("sample", "cell", "gene"), np.float32, "expression profile rho, sums to 1 over all genes"),
    "shares": Site(("cell", "source"), np.float32, "shares of the sources alpha, sum to 1"),
    "neighbor_weights": Site(("cell", "neighbor"), np.float32, "neighbor weights beta, sum to 1"),
    "own_counts": Site(("sample", "cell", "gene"), np.int32, "own molecules among those counted", "molecules"),
    "corrected_rate": Site(("sample", "cell", "gene"), np.float32, "expected own molecules", "molecules"),
    "residual_rate": Site(
        ("sample", "cell", "gene"), np.float32, "expected diffused and background molecules", "molecules"
    ),
}
_WITHOUT_NEIGHBORS = {"latent", "expression"}
_OF_RATES = {"own_counts", "corrected_rate", "residual_rate"}


@dataclass(frozen=True)
class Sampler:
    """Posterior draws, each a function of the seeds, the number of the draw, and the cell's row.

    Parameters
    ----------
    module
        Fitted model with the neighbor weights of its cells, in evaluation mode.
    tissue
        All cells.
    seeds
        Of the latent and of the molecules of each draw, draws × 2, uint64.
    """

    module: ResolviModule
    tissue: Tissue
    seeds: NDArray[np.uint64]

    @classmethod
    def create(cls, module: ResolviModule, tissue: Tissue, *, n_samples: int, rng: np.random.Generator) -> Sampler:
        """Take the seeds from `rng`; fewer draws are the first of more."""
        return cls(module.eval(), tissue, rng.integers(0, 2**64, (n_samples, 2), dtype=np.uint64))

    @property
    def n_samples(self) -> int:
        """Number of draws."""
        return len(self.seeds)

    def draw(
        self,
        cells: NDArray[np.int64],
        sites: Collection[str],
        *,
        genes: NDArray[np.int64] | None = None,
        samples: slice = slice(None),
    ) -> dict[str, NDArray[np.generic]]:
        """Draw `sites` of some cells.

        The latent of the cells and of their neighbors is drawn from its normal posterior; expression and rates follow
        from it. Own molecules are then drawn given the rates and the counts. Shares and neighbor weights are point
        estimates.

        Parameters
        ----------
        cells
            Rows of the table, each once.
        sites
            Names in :data:`SITES`.
        genes
            Columns, each once; all when None.
        samples
            Which of the draws.

        Returns
        -------
        An array for each site, with the dimensions that :data:`SITES` says.
        """
        genes = np.arange(self.tissue.n_genes) if genes is None else genes
        seeds = self.seeds[samples]
        sampled = [site for site in sites if SITES[site].is_sampled]
        out: dict[str, NDArray[np.generic]] = {
            site: np.empty((len(seeds), len(cells), self._width(site, genes)), SITES[site].dtype) for site in sampled
        }
        with torch.no_grad():
            setting = _Setting.of(self.module, self.tissue, cells, alone=_WITHOUT_NEIGHBORS.issuperset(sites))
            if "shares" in sites:
                out["shares"] = setting.shares.numpy()
            if "neighbor_weights" in sites:
                out["neighbor_weights"] = setting.weights.numpy()
            for i, (latent_seed, molecule_seed) in enumerate(seeds if sampled else ()):
                noise = _normal(latent_seed, setting.rows, self.module.config.n_latent)
                latent = setting.mean + setting.spread * torch.from_numpy(noise)
                for site, values in self._one_draw(setting, latent, molecule_seed, genes, sampled).items():
                    out[site][i] = values
        return out

    def _width(self, site: str, genes: NDArray[np.int64]) -> int:
        return self.module.config.n_latent if site == "latent" else len(genes)

    def _one_draw(
        self, setting: _Setting, latent: Tensor, seed: np.uint64, genes: NDArray[np.int64], sites: Collection[str]
    ) -> dict[str, NDArray[np.generic]]:
        module, n_core = self.module, setting.n_core
        out: dict[str, NDArray[np.generic]] = {}
        if "latent" in sites:
            out["latent"] = latent[:n_core].numpy()
        if not set(sites) - {"latent"}:
            return out
        profiles = module.expression(latent, setting.categories)
        if "expression" in sites:
            out["expression"] = profiles[:n_core].numpy()[:, genes]
        if setting.minibatch is None or _OF_RATES.isdisjoint(sites):
            return out
        amount = module.amount(setting.minibatch, latent, setting.shares)
        rates = module.rates(setting.minibatch, profiles, amount, setting.weights, module.background_profile())
        if "corrected_rate" in sites:
            out["corrected_rate"] = rates.own.numpy()[:, genes]
        if "residual_rate" in sites:
            out["residual_rate"] = (rates.diffused + rates.background).numpy()[:, genes]
        if "own_counts" in sites:
            out["own_counts"] = _draw_molecules(module, setting.minibatch, rates, seed, genes)
        return out


@dataclass(frozen=True)
class _Setting:
    """What all draws of some cells share: the cells and their halo, encoded, and the point estimates of the cells."""

    n_core: int
    rows: NDArray[np.int64]
    categories: Tensor
    mean: Tensor
    spread: Tensor
    shares: Tensor
    weights: Tensor
    minibatch: Minibatch | None

    @classmethod
    def of(cls, module: ResolviModule, tissue: Tissue, cells: NDArray[np.int64], *, alone: bool) -> _Setting:
        """Encode `cells`, and their neighbors too unless `alone`."""
        if alone:
            features = torch.from_numpy(encoder_features(tissue.counts, cells))
            categories = torch.from_numpy(tissue.categories[cells])
            mean, spread = module.latent_encoder(features, categories)
            none = torch.empty(len(cells), 0)
            return cls(len(cells), cells, categories, mean, spread, none, none, None)
        minibatch = cut_minibatch(tissue, cells)
        mean, spread = module.latent_encoder(minibatch.features, minibatch.categories)
        return cls(
            len(cells),
            minibatch.cells.numpy(),
            minibatch.categories,
            mean,
            spread,
            module.shares(minibatch),
            module.neighbor_weights(minibatch, module.leakage_range()),
            minibatch,
        )


def _hash(seed: np.uint64, index: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return elements `index` of the SplitMix64 sequence of `seed` (Steele, Lea & Flood 2014).

    It is a counter put through a mixing function, so any element costs the same as the first.
    """
    z = seed + (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _normal(seed: np.uint64, rows: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    """Return standard normal numbers, rows × width, float32; those of a row depend on the seed and the row only."""
    index = (rows[:, None] * width + np.arange(width)).astype(np.uint64)
    uniform = ((_hash(seed, index) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    normal: NDArray[np.float32] = ndtri(uniform).astype(np.float32)
    return normal


def _draw_molecules(
    module: ResolviModule, minibatch: Minibatch, rates: Rates, seed: np.uint64, genes: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Draw the own molecules of the core cells, core × `genes`; zero wherever the counts are."""
    n_cells, n_genes = rates.own.shape
    column = np.full(n_genes, -1)
    column[genes] = np.arange(len(genes))
    row, gene = minibatch.counts.rows(), minibatch.counts.gene
    wanted = torch.from_numpy(column[gene.numpy()] >= 0)
    row, gene, value = row[wanted], gene[wanted], minibatch.counts.value[wanted]
    r = torch.full_like(rates.own[:1], torch.inf)
    if module.config.likelihood == "nb":
        r = module.concentration()
    group = module.concentration_group(minibatch.core_batch)
    entry = (minibatch.cells[row] * n_genes + gene).numpy().astype(np.uint64)
    own = draw_own(
        value.numpy(),
        rates.own[row, gene].numpy(),
        rates.diffused[row, gene].numpy(),
        rates.background[row, gene].numpy(),
        r[group[row], gene].numpy(),
        _hash(seed, entry),
    )
    dense = np.zeros((n_cells, len(genes)), np.int32)
    dense[row.numpy(), column[gene.numpy()]] = own
    return dense
