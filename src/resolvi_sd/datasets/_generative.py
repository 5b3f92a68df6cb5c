"""The generative model in numpy: parameters shared by all cells, variables of each cell, and molecules by source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd._ratio import ratio

if TYPE_CHECKING:
    from resolvi_sd._graphs import NeighborGraph
    from resolvi_sd._model import ModelConfig

__all__ = ["Cells", "Parameters", "draw_cells", "draw_molecules", "draw_parameters"]

_SOURCES = ("own", "leaked", "background")
# Constants of the model that are not settings: the scale of a component at the start of training, and the floor that
# keeps the Dirichlet of the neighbor weights proper for neighbors far beyond the range of leakage.
_COMPONENT_SCALE, _WEIGHT_FLOOR = float(np.exp(-1.0)), 1e-2
_HIDDEN = 64
_TINY = 1e-30
# Entries of the counts drawn at a time.
_ENTRIES = 1 << 20


@dataclass(frozen=True)
class Parameters:
    """Shared by all cells: components × latent means, decoder layers, and the genes' baseline, r and background."""

    means: NDArray[np.float64]
    layers: tuple[NDArray[np.float64], NDArray[np.float64]]
    baseline: NDArray[np.float64]
    concentration: NDArray[np.float64]
    background: NDArray[np.float64]
    leakage_range: float

    def expression(self, latent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decode the latent variables into profiles, cells × genes; rows sum to 1."""
        logits = self.baseline + np.maximum(latent @ self.layers[0], 0.0) @ self.layers[1]
        rate = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(rate / rate.sum(axis=1, keepdims=True))

    def noisy(self, rate: NDArray[np.float64], *, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw gammas of mean `rate` and concentration r, cells × genes; an infinite r leaves the rate unchanged."""
        drawn, finite = rate.copy(), np.isfinite(self.concentration)
        drawn[:, finite] = rng.gamma(self.concentration[finite], rate[:, finite] / self.concentration[finite])
        return drawn


@dataclass(frozen=True)
class Cells:
    """Variables of each cell: component, latent z, profile rho, expected molecules l, shares alpha and weights beta."""

    graph: NeighborGraph
    component: NDArray[np.intp]
    latent: NDArray[np.float64]
    profile: NDArray[np.float64]
    library: NDArray[np.float64]
    shares: NDArray[np.float64]
    weights: NDArray[np.float64]

    def received(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the weighted sum of the neighbors' profiles, rows × genes."""
        total = np.zeros((len(rows), self.profile.shape[1]))
        for slot in range(self.graph.index.shape[1]):
            total += self.weights[rows, slot, None] * self.profile[self.graph.index[rows, slot]]
        return total


def draw_parameters(
    n_genes: int, config: ModelConfig, contrast: float, leakage_range: float | None, *, rng: np.random.Generator
) -> Parameters:
    """Draw the parameters that all cells share."""
    n_latent = config.n_latent
    overdispersion = rng.exponential(size=n_genes)
    if config.likelihood == "poisson":
        overdispersion[:] = 0.0
    with np.errstate(divide="ignore"):
        concentration = 1.0 / overdispersion
    length = float(np.exp(rng.standard_normal()))
    return Parameters(
        means=rng.standard_normal((config.n_components, n_latent)),
        # Standard normal latents give hidden units of variance 1, half of which the rectifier lets through.
        layers=(
            rng.standard_normal((n_latent, _HIDDEN)) / np.sqrt(n_latent),
            contrast * rng.standard_normal((_HIDDEN, n_genes)) / np.sqrt(_HIDDEN / 2),
        ),
        baseline=rng.standard_normal(n_genes),
        concentration=concentration,
        background=rng.dirichlet(np.full(n_genes, config.background_prior_weight)),
        leakage_range=length if leakage_range is None else float(leakage_range),
    )


def draw_cells(
    graph: NeighborGraph,
    parameters: Parameters,
    config: ModelConfig,
    counts: float,
    depth_sd: float,
    *,
    rng: np.random.Generator,
) -> Cells:
    """Draw the variables of each cell."""
    n_cells = graph.n_cells
    component = rng.integers(config.n_components, size=n_cells)
    latent = parameters.means[component] + _COMPONENT_SCALE * rng.standard_normal((n_cells, config.n_latent))
    mean = np.asarray(config.share_prior) / np.sum(config.share_prior)
    relative = graph.distance / (parameters.leakage_range * float(np.median(graph.distance[graph.mask])))
    kernel = np.exp(np.maximum(-0.5 * np.square(relative, dtype=np.float64), -30.0)) * graph.mask
    kernel /= kernel.sum(axis=1, keepdims=True)
    return Cells(
        graph=graph,
        component=component,
        latent=latent,
        profile=parameters.expression(latent),
        library=counts * np.exp(depth_sd * rng.standard_normal(n_cells)),
        shares=_dirichlet(np.tile(config.share_prior_weight * mean, (n_cells, 1)), rng=rng),
        weights=_dirichlet(config.neighbor_prior_weight * kernel + _WEIGHT_FLOOR, graph.mask, rng=rng),
    )


def _dirichlet(
    concentration: NDArray[np.float64], mask: NDArray[np.bool_] | None = None, *, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw each row from a Dirichlet over the entries within `mask`, by normalizing gamma variables."""
    gamma = np.maximum(rng.standard_gamma(concentration), _TINY)
    if mask is not None:
        gamma *= mask
    return np.asarray(gamma / gamma.sum(axis=1, keepdims=True))


def draw_molecules(
    cells: Cells, parameters: Parameters, *, rng: np.random.Generator
) -> tuple[dict[str, sp.csr_matrix], sp.csr_matrix]:
    """Draw the molecules of each source, cells × genes, and the flow, cells × cells."""
    n_cells, n_genes = cells.profile.shape
    parts: dict[str, list[sp.csr_matrix]] = {source: [] for source in _SOURCES}
    flows = []
    step = max(1, _ENTRIES // n_genes)
    for start in range(0, n_cells, step):
        rows = np.arange(start, min(start + step, n_cells))
        amount = cells.library[rows, None] * cells.shares[rows]
        own = amount[:, :1] * cells.profile[rows]
        rate = own + amount[:, 1:2] * cells.received(rows)
        not_background = rng.poisson(parameters.noisy(rate, rng=rng))
        kept = rng.binomial(not_background, ratio(own, rate, otherwise=0.0))
        leaked = not_background - kept
        drawn = (kept, leaked, rng.poisson(amount[:, 2:] * parameters.background))
        for source, dense in zip(_SOURCES, drawn, strict=True):
            parts[source].append(sp.csr_matrix(dense, dtype=np.float32))
        flows.append(_split_leaked(leaked, rows, cells, rng=rng))
    layers = {source: sp.vstack(blocks, format="csr") for source, blocks in parts.items()}
    return layers, sp.vstack(flows, format="csr")


def _split_leaked(
    leaked: NDArray[np.integer[Any]], rows: NDArray[np.intp], cells: Cells, *, rng: np.random.Generator
) -> sp.csr_matrix:
    """Draw the neighbor that each leaked molecule came from, rows × all cells."""
    row, gene = np.nonzero(leaked)
    source = cells.graph.index[rows[row]]
    chance = cells.weights[rows[row]] * cells.profile[source, gene[:, None]]
    taken = rng.multinomial(leaked[row, gene], chance / chance.sum(axis=1, keepdims=True))
    entries = (taken.ravel().astype(np.float32), (np.repeat(row, source.shape[1]), source.ravel()))
    flow = sp.csr_matrix(entries, shape=(len(rows), cells.graph.n_cells))
    flow.eliminate_zeros()
    return flow
