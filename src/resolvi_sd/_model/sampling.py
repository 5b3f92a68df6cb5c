"""Draws from the posterior of selected cells; those of a cell do not depend on which cells are drawn with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from resolvi_sd._model.logistic_normal import MaskedLogisticNormal
from resolvi_sd._model.module import Rates, ResolviModule
from resolvi_sd._model.molecules import draw_molecules
from resolvi_sd._random import random_elements
from resolvi_sd._tiles import Minibatch, SparseRows, Tissue, cut_minibatch, encoder_features

__all__ = ["SITES", "SOURCES", "Sampler", "Site"]

SOURCES = ("own", "diffusion", "background")


@dataclass(frozen=True)
class Site:
    """A quantity of the model that can be sampled.

    Attributes
    ----------
    dims
        Names of its dimensions; without `sample`, it is a point estimate.
    dtype
        Number type.
    description
        Description of the quantity.
    units
        Units of the quantity.
    """

    dims: tuple[str, ...]
    dtype: type[np.generic]
    description: str
    units: str = "1"

    @property
    def is_sampled(self) -> bool:
        """Whether there are draws of it."""
        return "sample" in self.dims


_BY_GENE = ("sample", "cell", "gene")
SITES = {
    "latent": Site(("sample", "cell", "latent_dim"), np.float32, "latent z"),
    "expression": Site(_BY_GENE, np.float32, "expression profile rho, sums to 1 over all genes"),
    "shares": Site(("sample", "cell", "source"), np.float32, "shares of the sources alpha, sum to 1"),
    "neighbor_weights": Site(("cell", "neighbor"), np.float32, "neighbor weights beta, sum to 1"),
    "own_counts": Site(_BY_GENE, np.int32, "own molecules among those counted", "molecules"),
    "diffused_counts": Site(_BY_GENE, np.int32, "molecules of neighbors among those counted", "molecules"),
    "background_counts": Site(_BY_GENE, np.int32, "background among the molecules counted", "molecules"),
    "corrected_rate": Site(_BY_GENE, np.float32, "expected own molecules", "molecules"),
    "residual_rate": Site(_BY_GENE, np.float32, "expected diffused and background molecules", "molecules"),
}
_WITHOUT_NEIGHBORS = {"latent", "expression"}
_OF_MOLECULES = ("own_counts", "diffused_counts", "background_counts")
_OF_RATES = {*_OF_MOLECULES, "corrected_rate", "residual_rate"}


@dataclass(frozen=True)
class Sampler:
    """Posterior draws, each a function of the seeds, the number of the draw, and the cell's row.

    Attributes
    ----------
    module
        Fitted model with the neighbor weights of its cells, in evaluation mode.
    tissue
        All cells.
    seeds
        Seeds for the latent, the shares and the molecules of each draw, draws × 3, uint64.
    """

    module: ResolviModule
    tissue: Tissue
    seeds: NDArray[np.uint64]

    @classmethod
    def create(cls, module: ResolviModule, tissue: Tissue, *, n_samples: int, rng: np.random.Generator) -> Sampler:
        """Draw the seeds from `rng`; fewer samples get the first seeds of a larger number of samples."""
        return cls(module.eval(), tissue, rng.integers(0, 2**64, (n_samples, 3), dtype=np.uint64))

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

        The latent of the cells and of their neighbors is drawn from its normal posterior, and the shares of the cells
        from their logistic-normal posterior; expression and rates follow from these. Molecules by source are then drawn
        given the rates and the counts. Neighbor weights are point estimates.

        Parameters
        ----------
        cells
            Rows of the table, each once.
        sites
            Names in :data:`SITES`.
        genes
            Columns, each once; all if None.
        samples
            Which of the draws to return.

        Returns
        -------
        An array for each site, with the dimensions given in :data:`SITES`.
        """
        genes = np.arange(self.tissue.n_genes) if genes is None else genes
        seeds = self.seeds[samples]
        sampled = [site for site in sites if SITES[site].is_sampled]
        out: dict[str, NDArray[np.generic]] = {
            site: np.empty((len(seeds), len(cells), self._width(site, genes)), SITES[site].dtype) for site in sampled
        }
        with torch.no_grad():
            setting = _Setting.of(self.module, self.tissue, cells, alone=_WITHOUT_NEIGHBORS.issuperset(sites))
            if "neighbor_weights" in sites:
                out["neighbor_weights"] = setting.neighbor_weights().numpy()
            for i, draw_seeds in enumerate(seeds if sampled else ()):
                for site, values in self._one_draw(setting, draw_seeds, genes, sampled).items():
                    out[site][i] = values
        return out

    def _width(self, site: str, genes: NDArray[np.int64]) -> int:
        return {"latent": self.module.config.n_latent, "shares": len(SOURCES)}.get(site, len(genes))

    def _one_draw(
        self, setting: _Setting, seeds: NDArray[np.uint64], genes: NDArray[np.int64], sites: Collection[str]
    ) -> dict[str, NDArray[np.generic]]:
        module, n_core = self.module, setting.n_core
        latent_seed, share_seed, molecule_seed = seeds
        noise = _normal(latent_seed, setting.rows, module.config.n_latent)
        latent = setting.mean + setting.spread * torch.from_numpy(noise)
        out: dict[str, NDArray[np.generic]] = {}
        if "latent" in sites:
            out["latent"] = latent[:n_core].numpy()
        shares = None
        if setting.surroundings is not None:
            noise = _normal(share_seed, setting.rows[:n_core], len(SOURCES) - 1)
            shares = setting.surroundings.share_posterior.at(torch.from_numpy(noise))
            if "shares" in sites:
                out["shares"] = shares.numpy()
        if not set(sites) - {"latent", "shares"}:
            return out
        profiles = module.expression(latent, setting.categories)
        if "expression" in sites:
            out["expression"] = profiles[:n_core].numpy()[:, genes]
        if setting.surroundings is None or shares is None or _OF_RATES.isdisjoint(sites):
            return out
        minibatch, weights, _ = setting.surroundings
        amount = module.amount(minibatch, latent, shares)
        rates = module.rates(minibatch, profiles, amount, weights, module.background_profile())
        if "corrected_rate" in sites:
            out["corrected_rate"] = rates.own.numpy()[:, genes]
        if "residual_rate" in sites:
            out["residual_rate"] = (rates.diffused + rates.background).numpy()[:, genes]
        if not set(_OF_MOLECULES).isdisjoint(sites):
            molecules = _dense_molecules(module, minibatch, rates, molecule_seed, genes)
            out |= {site: values for site, values in molecules.items() if site in sites}
        return out


class _Surroundings(NamedTuple):
    """Properties of the cells that require their neighbors."""

    minibatch: Minibatch
    weights: Tensor
    share_posterior: MaskedLogisticNormal


@dataclass(frozen=True)
class _Setting:
    """Data shared by all draws of some cells: the encoded cells and halo, and properties that depend on both."""

    n_core: int
    rows: NDArray[np.int64]
    categories: Tensor
    mean: Tensor
    spread: Tensor
    surroundings: _Surroundings | None

    def neighbor_weights(self) -> Tensor:
        """Return the neighbor weights of the cells, core × k."""
        if self.surroundings is None:
            raise ValueError("The cells were encoded without their neighbors.")
        return self.surroundings.weights

    @classmethod
    def of(cls, module: ResolviModule, tissue: Tissue, cells: NDArray[np.int64], *, alone: bool) -> _Setting:
        """Encode `cells` and, unless `alone`, their neighbors."""
        if alone:
            features = encoder_features(SparseRows.from_scipy(tissue.rows(cells)))
            categories = torch.from_numpy(tissue.categories[cells])
            molecules = torch.from_numpy(tissue.molecules[cells])
            mean, spread = module.encode(features, categories, molecules)
            return cls(len(cells), cells, categories, mean, spread, None)
        minibatch = cut_minibatch(tissue, cells)
        mean, spread = module.encode_all(minibatch)
        return cls(
            len(cells),
            minibatch.cells.numpy(),
            minibatch.categories,
            mean,
            spread,
            _Surroundings(
                minibatch,
                module.neighbor_weights(minibatch),
                module.share_posterior(minibatch),
            ),
        )


def _normal(seed: np.uint64, rows: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    """Return standard normal numbers, rows × width, float32; those of a row depend only on the seed and the row."""
    index = (rows[:, None] * width + np.arange(width)).astype(np.uint64)
    uniform = ((random_elements(seed, index) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    normal: NDArray[np.float32] = ndtri(uniform).astype(np.float32)
    return normal


def _dense_molecules(
    module: ResolviModule, minibatch: Minibatch, rates: Rates, seed: np.uint64, genes: NDArray[np.int64]
) -> dict[str, NDArray[np.int32]]:
    """Draw the molecules of the core cells by source, core × `genes`; they are zero wherever the counts are zero."""
    n_cells, n_genes = rates.own.shape
    column = np.full(n_genes, -1)
    column[genes] = np.arange(len(genes))
    counts = minibatch.counts
    wanted = torch.from_numpy(np.flatnonzero(column[counts.gene.numpy()] >= 0))
    row, gene = counts.rows()[wanted], counts.gene[wanted]
    entry = (minibatch.cells[row] * n_genes + gene).numpy().astype(np.uint64)
    own, diffused = draw_molecules(module, minibatch, rates, random_elements(seed, entry), wanted)
    background = counts.value[wanted].numpy() - own - diffused
    dense = {}
    for site, values in zip(_OF_MOLECULES, (own, diffused, background), strict=True):
        dense[site] = np.zeros((n_cells, len(genes)), np.int32)
        dense[site][row.numpy(), column[gene.numpy()]] = values
    return dense
