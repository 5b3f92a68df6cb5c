"""Positions and types of the cells of a simulated section."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from resolvi_sd.datasets._profiles import TypeProfiles
from resolvi_sd.datasets._regimes import TissueRegime

__all__ = ["Layout", "draw_compositions", "draw_layout"]

# Share of a domain's cells whose type follows the tissue as a whole instead of the domain.
MIXING = 0.3


@dataclass(frozen=True)
class Layout:
    """The true cells of one section.

    Attributes
    ----------
    centers
        Cells × 2, micrometers.
    radii
        Largest radius of each cell, micrometers.
    types, domains
        Codes of each cell's type and spatial domain.
    gradient
        Position along the type's gradient, -1 to 1.
    partners
        Cell that lies on top of or below each cell, -1 for none.
    """

    centers: NDArray[np.float64]
    radii: NDArray[np.float64]
    types: NDArray[np.intp]
    domains: NDArray[np.intp]
    gradient: NDArray[np.float64]
    partners: NDArray[np.intp]


def draw_compositions(
    n_domains: int, frequencies: NDArray[np.float64], *, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the share of each type in each domain, domains × types, rows sum to 1."""
    own = rng.dirichlet(1.5 * frequencies, size=n_domains)
    # Dirichlet draws with tiny concentrations may underflow to zero.
    own = np.where(np.isfinite(own), own, frequencies)
    mixed = MIXING * frequencies + (1 - MIXING) * own
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


def draw_layout(
    n_cells: int,
    regime: TissueRegime,
    profiles: TypeProfiles,
    compositions: NDArray[np.float64],
    *,
    rng: np.random.Generator,
) -> Layout:
    """Draw the cells of one section.

    Parameters
    ----------
    n_cells
        Number of cells.
    regime
        Spacing, crowding and sizes.
    profiles
        The cell types.
    compositions
        Share of each type in each domain, domains × types.
    rng
        Generator.
    """
    centers = _place(n_cells, regime, rng=rng)
    domains = _draw_domains(centers, len(compositions), rng=rng)
    types = _draw_types(domains, compositions, rng=rng)
    sizes = profiles.size[types] * np.exp(regime.size_sd * rng.standard_normal(n_cells))
    radii = regime.radius * sizes
    partners = _overlap(centers, radii, regime.overlap, rng=rng)
    return Layout(
        centers=centers,
        radii=radii,
        types=types,
        domains=domains,
        gradient=_wave(centers, rng.uniform(300.0, 600.0), rng=rng)[0],
        partners=partners,
    )


def _wave(
    points: NDArray[np.float64], wavelength: float, *, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a plane wave of random direction and phase at the points, and its direction."""
    angle, phase = rng.uniform(0, 2 * np.pi, size=2)
    direction = np.array([np.cos(angle), np.sin(angle)])
    return np.sin(2 * np.pi * (points @ direction) / wavelength + phase), direction


def _place(n_cells: int, regime: TissueRegime, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Place the cells on a jittered hexagonal lattice with vacancies, then squeeze and stretch it."""
    n_sites = int(np.ceil(n_cells / (1 - regime.vacancy)))
    n_columns = max(1, int(np.ceil(np.sqrt(n_sites * np.sqrt(3) / 2))))
    sites = np.sort(rng.choice(n_sites, size=n_cells, replace=False))
    row, column = np.divmod(sites, n_columns)
    lattice = np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2]) * regime.spacing
    centers = lattice + 0.15 * regime.spacing * rng.standard_normal((n_cells, 2))
    n_waves = 3
    warp = np.zeros_like(centers)
    for _ in range(n_waves):
        wavelength = rng.uniform(150.0, 500.0)
        height, direction = _wave(lattice, wavelength, rng=rng)
        # The slope of each wave is at most crowding / n_waves, so that their sum never folds the tissue.
        amplitude = regime.crowding / n_waves * wavelength / (2 * np.pi)
        warp += amplitude * height[:, None] * direction
    centers += warp
    return np.asarray(centers - centers.min(axis=0))


def _draw_domains(centers: NDArray[np.float64], n_domains: int, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Split the section into domains: nearest of random seeds, with wavy borders."""
    extent = centers.max(axis=0)
    seeds = rng.uniform(0, 1, size=(n_domains, 2)) * extent
    waves = np.column_stack([_wave(centers, rng.uniform(80.0, 200.0), rng=rng)[0] for _ in range(2)])
    return np.asarray(cKDTree(seeds).query(centers + 15.0 * waves)[1], dtype=np.intp)


def _draw_types(
    domains: NDArray[np.intp], compositions: NDArray[np.float64], *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw each cell's type from its domain's composition."""
    cumulated = np.cumsum(compositions, axis=1)
    types = (rng.random(len(domains))[:, None] >= cumulated[domains, :-1]).sum(axis=1)
    return np.asarray(types, dtype=np.intp)


def _overlap(
    centers: NDArray[np.float64], radii: NDArray[np.float64], share: float, *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Push a share of the cells onto their nearest neighbor, in place, and return the partners."""
    n_cells = len(centers)
    partners = np.full(n_cells, -1, dtype=np.intp)
    n_pairs = round(share * n_cells / 2)
    if n_pairs == 0 or n_cells < 2:
        return partners
    nearest = np.asarray(cKDTree(centers).query(centers, k=2)[1])[:, 1]
    movers: list[int] = []
    for cell in rng.permutation(n_cells):
        if len(movers) == n_pairs:
            break
        other = nearest[cell]
        if partners[cell] < 0 and partners[other] < 0:
            partners[cell], partners[other] = other, cell
            movers.append(cell)
    moved = np.array(movers, dtype=np.intp)
    angle = rng.uniform(0, 2 * np.pi, size=len(moved))
    distance = rng.uniform(0.2, 0.6, size=len(moved)) * radii[partners[moved]]
    centers[moved] = centers[partners[moved]] + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return partners
