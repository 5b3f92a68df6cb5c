"""Molecules that are made by cells, displaced, and counted by the outline in which they end up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from resolvi_sd.datasets._outlines import Segmentation, TrueOutlines
from resolvi_sd.datasets._regimes import TissueRegime

__all__ = ["Molecules", "SectionCounts", "count_section", "draw_background", "expected_emission", "leak_section"]

# Cells × genes worked on at a time.
BLOCK_SIZE = 4_000_000
# Molecules with which a section is probed to find out which share of them is counted at all.
N_PROBES = 100_000
TAIL_FACTOR = 3.0


@dataclass(frozen=True)
class Molecules:
    """Molecules of one section.

    Attributes
    ----------
    origin
        Cell that made each molecule, -1 for background.
    counted_by
        Cell whose segmented outline holds it, -1 for none.
    gene
        Code of the gene.
    positions
        Molecules × 2, micrometers, float32.
    """

    origin: NDArray[np.int32]
    counted_by: NDArray[np.int32]
    gene: NDArray[np.int32]
    positions: NDArray[np.float32]

    @staticmethod
    def concatenate(parts: list[Molecules]) -> Molecules:
        """Return the molecules of all parts, in order."""
        return Molecules(
            origin=np.concatenate([part.origin for part in parts]),
            counted_by=np.concatenate([part.counted_by for part in parts]),
            gene=np.concatenate([part.gene for part in parts]),
            positions=np.concatenate([part.positions for part in parts]),
        )


@dataclass(frozen=True)
class SectionCounts:
    """Counts of one section by source, CSR float32.

    Attributes
    ----------
    own, leaked, background
        Cells × genes.
    flow
        Cells × cells: molecules in a cell (row) that another cell (column) made.
    emitted
        Molecules that each cell made, wherever they ended up.
    """

    own: sp.csr_matrix
    leaked: sp.csr_matrix
    background: sp.csr_matrix
    flow: sp.csr_matrix
    emitted: NDArray[np.int64]


def expected_emission(
    outlines: TrueOutlines,
    segmentation: Segmentation,
    regime: TissueRegime,
    depth: NDArray[np.float64],
    *,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Scale `depth` to the number of molecules made per cell, so that the counts reach the regime's mean.

    The share of the molecules that is counted at all depends on the outlines, so the section is probed to estimate it.
    """
    probes = np.sort(rng.choice(len(depth), size=N_PROBES, p=depth / depth.sum()))
    positions = outlines.draw_positions(probes, rng=rng)
    positions += _displacement(len(probes), regime, rng=rng)
    counted = float((segmentation.assign(positions, probes) >= 0).mean())
    if counted == 0:
        raise ValueError(f"No molecule would be counted under this regime; are its lengths right? {regime}")
    return np.asarray(depth / depth.mean() * regime.counts * (1 - regime.background) / counted)


def _displacement(
    n_molecules: int,
    regime: TissueRegime,
    gene_factor: NDArray[np.float64] | None = None,
    *,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Draw how far each molecule is from where it was made, molecules × 2, micrometers."""
    step = rng.standard_normal((n_molecules, 2), dtype=np.float32)
    scale = np.full(n_molecules, regime.diffusion, dtype=np.float32)
    scale[rng.random(n_molecules, dtype=np.float32) < regime.tail] *= TAIL_FACTOR
    if gene_factor is not None:
        scale *= gene_factor.astype(np.float32)
    return np.asarray(step * scale[:, None])


def leak_section(
    outlines: TrueOutlines,
    segmentation: Segmentation,
    regime: TissueRegime,
    *,
    emission: NDArray[np.float64],
    expression: NDArray[np.float32],
    dispersion: NDArray[np.float64],
    gene_factor: NDArray[np.float64],
    rng: np.random.Generator,
) -> Iterator[Molecules]:
    """Make, displace and count the molecules of a section, a block of cells at a time.

    Parameters
    ----------
    outlines, segmentation
        True and segmented outlines.
    regime
        Settings of the diffusion.
    emission
        Expected number of molecules that each cell makes.
    expression
        Cells × genes, rows sum to 1.
    dispersion
        Inverse overdispersion of each gene.
    gene_factor
        Factor of each gene on the diffusion.
    rng
        Generator.
    """
    n_cells, n_genes = expression.shape
    block = max(1, BLOCK_SIZE // n_genes)
    varies = np.isfinite(dispersion)  # otherwise Poisson
    shape = dispersion[varies].astype(np.float32)
    for start in range(0, n_cells, block):
        mean = expression[start : start + block] * emission[start : start + block, None].astype(np.float32)
        mean[:, varies] *= rng.standard_gamma(shape, size=(len(mean), len(shape)), dtype=np.float32) / shape
        made = rng.poisson(mean)
        cell, gene = np.nonzero(made)
        repeats = made[cell, gene]
        origin = np.repeat(cell + start, repeats)
        genes = np.repeat(gene, repeats).astype(np.int32)
        position = outlines.draw_positions(origin, rng=rng)
        position += _displacement(len(origin), regime, gene_factor[genes], rng=rng)
        # Counted at the stored position, so that the points and the table agree.
        stored = position.astype(np.float32)
        counted_by = segmentation.assign(stored.astype(np.float64), origin)
        yield Molecules(origin.astype(np.int32), counted_by.astype(np.int32), genes, stored)


def draw_background(
    segmentation: Segmentation,
    areas: NDArray[np.float64],
    profile: NDArray[np.float64],
    mean: float,
    *,
    rng: np.random.Generator,
) -> Molecules:
    """Draw unspecific molecules, uniform over the section and its rim.

    Parameters
    ----------
    segmentation
        Segmented outlines.
    areas
        Their areas, square micrometers.
    profile
        Share of each gene.
    mean
        Expected number per cell.
    rng
        Generator.
    """
    margin = segmentation.radii.max()
    low = segmentation.centers.min(axis=0) - margin
    extent = segmentation.centers.max(axis=0) + margin - low
    n_molecules = int(rng.poisson(mean * len(areas) / areas.sum() * extent.prod()))
    positions = (low + extent * rng.random((n_molecules, 2))).astype(np.float32)
    counted_by = segmentation.assign(positions.astype(np.float64))
    gene = rng.choice(len(profile), size=n_molecules, p=profile)
    origin = np.full(n_molecules, -1, dtype=np.int32)
    return Molecules(origin, counted_by.astype(np.int32), gene.astype(np.int32), positions)


def _tally(
    rows: NDArray[np.int32], columns: NDArray[np.int32], shape: tuple[int, int], offset: int = 0
) -> sp.csr_matrix:
    """Count how often each pair of row and column occurs; rows are numbered from `offset`."""
    ones = np.ones(len(rows), dtype=np.float32)
    counts = sp.coo_matrix((ones, (rows - offset, columns)), shape=shape).tocsr()
    counts.sum_duplicates()
    return counts


def count_section(
    blocks: Iterator[Molecules], background: Molecules, *, n_cells: int, n_genes: int, keep: bool
) -> tuple[SectionCounts, Molecules | None]:
    """Count the molecules of a section by source.

    Parameters
    ----------
    blocks
        Molecules made by cells; each block has the molecules of consecutive cells.
    background
        Unspecific molecules.
    n_cells, n_genes
        Shape of the table.
    keep
        Whether to return the molecules; if not, memory holds only one block at a time.
    """
    emitted = np.zeros(n_cells, dtype=np.int64)
    own_parts, strays, kept = [], [], []
    next_cell = 0
    for block in blocks:
        # Cells without molecules at the end of a block are counted with the next block.
        last = int(block.origin.max()) + 1 if len(block.origin) else next_cell
        emitted[next_cell:last] = np.bincount(block.origin - next_cell, minlength=last - next_cell)
        at_home = block.origin == block.counted_by
        shape = (last - next_cell, n_genes)
        own_parts.append(_tally(block.counted_by[at_home], block.gene[at_home], shape, offset=next_cell))
        away = ~at_home & (block.counted_by >= 0)
        strays.append((block.counted_by[away], block.origin[away], block.gene[away]))
        next_cell = last
        if keep:
            kept.append(block)
    own = sp.vstack(own_parts, format="csr")
    own.resize(n_cells, n_genes)
    host, source, gene = (np.concatenate(parts) for parts in zip(*strays, strict=True))
    inside = background.counted_by >= 0
    counts = SectionCounts(
        own=own,
        leaked=_tally(host, gene, (n_cells, n_genes)),
        background=_tally(background.counted_by[inside], background.gene[inside], (n_cells, n_genes)),
        flow=_tally(host, source, (n_cells, n_cells)),
        emitted=emitted,
    )
    return counts, Molecules.concatenate([*kept, background]) if keep else None
