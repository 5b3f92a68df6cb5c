"""Outlines: where a cell's molecules are, and where the segmentation locates the cell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import Voronoi, cKDTree

from resolvi_sd.datasets._layout import Layout
from resolvi_sd.datasets._regimes import TissueRegime

__all__ = ["Segmentation", "TrueOutlines", "segment"]

N_ANGLES = 24
N_SIDES = 24
N_NEIGHBORS = 12


@dataclass(frozen=True)
class TrueOutlines:
    """The true outlines, as polygons around the centers with vertices at fixed angles.

    Attributes
    ----------
    centers
        Cells × 2, micrometers.
    vertices
        Cells × angles × 2, micrometers, relative to the centers.
    cumulated
        Cell number plus share of the outline's area up to each angle, as one flat, sorted array for all cells.
    """

    centers: NDArray[np.float64]
    vertices: NDArray[np.float64]
    cumulated: NDArray[np.float64]

    @classmethod
    def of_layout(cls, layout: Layout) -> TrueOutlines:
        """Outline each cell, halfway to its neighbors and no farther than its radius, ignoring its partner."""
        angles = 2 * np.pi * np.arange(N_ANGLES) / N_ANGLES
        reach = _reach(layout, angles)
        vertices = reach[:, :, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        wedges = reach * np.roll(reach, -1, axis=1)
        shares = np.cumsum(wedges / wedges.sum(axis=1, keepdims=True), axis=1)
        shares[:, -1] = 1.0
        cumulated = np.asarray(shares + np.arange(len(reach))[:, None], dtype=np.float64).ravel()
        return cls(layout.centers, vertices, cumulated)

    @property
    def areas(self) -> NDArray[np.float64]:
        """Areas of the outlines, square micrometers."""
        following = np.roll(self.vertices, -1, axis=1)
        cross = self.vertices[..., 0] * following[..., 1] - self.vertices[..., 1] * following[..., 0]
        return np.asarray(0.5 * cross.sum(axis=1))

    def draw_positions(self, cells: NDArray[np.intp], *, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a position for each molecule, uniformly inside the outline of its cell.

        Parameters
        ----------
        cells
            Cell of each molecule.
        rng
            Generator.

        Returns
        -------
        Molecules × 2, micrometers.
        """
        slot = np.searchsorted(self.cumulated, cells + rng.random(len(cells)), side="right")
        wedge = np.clip(slot - cells * N_ANGLES, 0, N_ANGLES - 1)
        outward = np.sqrt(rng.random(len(cells)))
        sideways = outward * rng.random(len(cells))
        flat = self.vertices.reshape(-1, 2)
        position = (outward - sideways)[:, None] * flat[cells * N_ANGLES + wedge]
        position += sideways[:, None] * flat[cells * N_ANGLES + (wedge + 1) % N_ANGLES]
        position += self.centers[cells]
        return np.asarray(position)


def _reach(layout: Layout, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from each center to the outline, cells × angles."""
    n_cells = len(layout.centers)
    reach = np.repeat(layout.radii[:, None], len(angles), axis=1)
    n_neighbors = min(N_NEIGHBORS, n_cells - 1)
    if n_neighbors == 0:
        return reach
    neighbors = np.asarray(cKDTree(layout.centers).query(layout.centers, k=n_neighbors + 1)[1])
    for neighbor in neighbors.T:
        offset = layout.centers[neighbor] - layout.centers
        distance = np.hypot(offset[:, 0], offset[:, 1])
        direction = np.arctan2(offset[:, 1], offset[:, 0])
        facing = np.cos(angles - direction[:, None])
        counts = (neighbor != np.arange(n_cells)) & (neighbor != layout.partners)
        border = np.full_like(reach, np.inf)
        np.divide(0.5 * distance[:, None], facing, out=border, where=(facing > 1e-6) & counts[:, None])
        np.minimum(reach, border, out=reach)
    return reach


@dataclass(frozen=True)
class Segmentation:
    """Segmented outlines: Voronoi cells of the segmented centers, clipped to a regular polygon of a given radius.

    A molecule belongs to the cell with the nearest center if it lies within that cell's polygon, so the k-d tree of the
    centers can be used instead of a point-in-polygon test of the outlines.

    Attributes
    ----------
    centers
        Cells × 2, micrometers.
    radii
        Radius of the circle around each cell's polygon, micrometers.
    tree
        Tree of the centers.
    safe
        Half the distance to the nearest other center; molecules closer than this need no search.
    """

    centers: NDArray[np.float64]
    radii: NDArray[np.float64]
    tree: cKDTree
    safe: NDArray[np.float64]

    @classmethod
    def of_centers(cls, centers: NDArray[np.float64], radii: NDArray[np.float64]) -> Segmentation:
        """Segment around the given centers."""
        tree = cKDTree(centers)
        safe = np.full(len(centers), np.inf)
        if len(centers) > 1:
            safe = 0.5 * np.asarray(tree.query(centers, k=2)[0])[:, 1]
        return cls(centers, radii, tree, safe)

    def assign(self, positions: NDArray[np.float64], guess: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        """Return the cell whose outline each molecule lies in, -1 for none.

        Parameters
        ----------
        positions
            Molecules × 2, micrometers.
        guess
            The likely cell of each molecule; affects the run time, but not the result.
        """
        if guess is None:
            cells = np.asarray(self.tree.query(positions)[1], dtype=np.intp)
        else:
            cells = guess.astype(np.intp, copy=True)
            offset = positions - self.centers[cells]
            search = np.flatnonzero(np.hypot(offset[:, 0], offset[:, 1]) >= self.safe[cells])
            cells[search] = self.tree.query(positions[search])[1]
        cells[~self._within(positions, cells)] = -1
        return cells

    def _within(self, positions: NDArray[np.float64], cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which molecules lie within the regular polygon of the given cell."""
        offset = positions - self.centers[cells]
        distance = np.hypot(offset[:, 0], offset[:, 1])
        half = np.pi / N_SIDES
        apothem = self.radii[cells] * np.cos(half)
        within = distance <= apothem
        rim = np.flatnonzero(~within & (distance <= self.radii[cells]))
        angle = np.arctan2(offset[rim, 1], offset[rim, 0]) % (2 * half)
        within[rim] = distance[rim] * np.cos(angle - half) <= apothem[rim]
        return np.asarray(within)

    def polygons(self) -> NDArray[Any]:
        """Return the outlines as shapely polygons."""
        n_cells = len(self.centers)
        low, high = self.centers.min(axis=0), self.centers.max(axis=0)
        # Distant corners close the Voronoi cells at the rim, too far away to touch a clipped cell.
        margin = 2 * (high - low).max() + 8 * self.radii.max()
        corners = (low + high) / 2 + margin * np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        voronoi = Voronoi(np.vstack([self.centers, corners]))
        regions = [voronoi.regions[region] for region in voronoi.point_region[:n_cells]]
        lengths = np.fromiter(map(len, regions), dtype=np.intp, count=n_cells)
        owner = np.repeat(np.arange(n_cells), lengths)
        vertices = voronoi.vertices[np.fromiter(chain.from_iterable(regions), dtype=np.intp, count=lengths.sum())]
        offset = vertices - self.centers[owner]
        order = np.lexsort((np.arctan2(offset[:, 1], offset[:, 0]), owner))
        cells = shapely.polygons(shapely.linearrings(vertices[order], indices=owner))
        angles = 2 * np.pi * np.arange(N_SIDES) / N_SIDES
        circle = np.column_stack([np.cos(angles), np.sin(angles)])
        discs = shapely.polygons(self.centers[:, None, :] + self.radii[:, None, None] * circle)
        return np.asarray(shapely.intersection(cells, discs))


def segment(layout: Layout, regime: TissueRegime, *, rng: np.random.Generator) -> Segmentation:
    """Segment a section with the errors of the regime: displaced centers, dilated and uneven radii."""
    n_cells = len(layout.centers)
    centers = layout.centers + regime.segmentation * rng.standard_normal((n_cells, 2))
    # Sizes are misjudged in proportion to the typical displacement of the centers.
    misjudged = np.exp(0.5 * regime.segmentation / regime.radius * rng.standard_normal(n_cells))
    return Segmentation.of_centers(centers, regime.dilation * layout.radii * misjudged)
