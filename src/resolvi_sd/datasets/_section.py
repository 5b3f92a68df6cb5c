"""One simulated section: cells, outlines, molecules, and where these were counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from resolvi_sd.datasets._layout import Layout, draw_layout
from resolvi_sd.datasets._molecules import (
    Molecules,
    SectionCounts,
    count_section,
    draw_background,
    expected_emission,
    leak_section,
)
from resolvi_sd.datasets._outlines import TrueOutlines, segment
from resolvi_sd.datasets._profiles import TypeProfiles
from resolvi_sd.datasets._regimes import TissueRegime

__all__ = ["GeneTraits", "Section", "simulate_section"]


@dataclass(frozen=True)
class GeneTraits:
    """Differences between genes other than their expression.

    Attributes
    ----------
    dispersion
        Inverse overdispersion of each gene.
    leakage
        Factor of each gene on the diffusion, mean 1.
    """

    dispersion: NDArray[np.float64]
    leakage: NDArray[np.float64]

    @classmethod
    def draw(cls, n_genes: int, regime: TissueRegime, *, rng: np.random.Generator) -> GeneTraits:
        """Draw the traits of all genes."""
        leakage = np.exp(regime.gene_leakage * rng.standard_normal(n_genes))
        dispersion = regime.dispersion * np.exp(0.5 * rng.standard_normal(n_genes))
        return cls(dispersion=dispersion, leakage=leakage / leakage.mean())


@dataclass(frozen=True)
class Section:
    """One simulated section.

    Attributes
    ----------
    layout
        The true cells.
    polygons
        Segmented outlines, shapely polygons in micrometers.
    expression
        Cells × genes, float32: expected own expression, rows sum to 1.
    counts
        Counts by source.
    molecules
        All molecules; None if they were not requested.
    """

    layout: Layout
    polygons: NDArray[Any]
    expression: NDArray[np.float32]
    counts: SectionCounts
    molecules: Molecules | None


def simulate_section(
    n_cells: int,
    regime: TissueRegime,
    profiles: TypeProfiles,
    genes: GeneTraits,
    *,
    compositions: NDArray[np.float64],
    gene_effect: NDArray[np.float64],
    background_profile: NDArray[np.float64],
    background_level: float,
    keep_molecules: bool,
    rng: np.random.Generator,
) -> Section:
    """Simulate one section.

    Parameters
    ----------
    n_cells
        Number of cells.
    regime
        Physical settings.
    profiles, genes
        Cell types and genes.
    compositions
        Share of each type in each domain, domains × types.
    gene_effect
        Factor of the section's batch on each gene.
    background_profile
        Share of each gene in the background.
    background_level
        Factor of the section on the regime's background.
    keep_molecules
        Whether to return the molecules.
    rng
        Generator.
    """
    layout = draw_layout(n_cells, regime, profiles, compositions, rng=rng)
    expression = profiles.of_cells(layout.types, layout.gradient, gene_effect)
    outlines = TrueOutlines.of_layout(layout)
    segmentation = segment(layout, regime, rng=rng)
    polygons = segmentation.polygons()
    # Larger cells hold more molecules, but less than in proportion to the area that is cut from them.
    depth = profiles.depth[layout.types] * np.sqrt(outlines.areas)
    depth = depth * np.exp(regime.depth_sd * rng.standard_normal(n_cells))
    blocks = leak_section(
        outlines,
        segmentation,
        regime,
        emission=expected_emission(outlines, segmentation, regime, depth, rng=rng),
        expression=expression,
        dispersion=genes.dispersion,
        gene_factor=genes.leakage,
        rng=rng,
    )
    mean_background = regime.counts * regime.background * background_level
    background = draw_background(segmentation, shapely.area(polygons), background_profile, mean_background, rng=rng)
    counts, molecules = count_section(
        blocks, background, n_cells=n_cells, n_genes=len(profiles.genes), keep=keep_molecules
    )
    return Section(layout, polygons, expression, counts, molecules)
