"""Outlines: the k-d tree, the polygons and the positions agree with brute force and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from scipy.special import ive

from resolvi_sd.datasets import REGIMES
from resolvi_sd.datasets._layout import Layout, draw_compositions, draw_layout
from resolvi_sd.datasets._molecules import expected_emission
from resolvi_sd.datasets._outlines import Segmentation, TrueOutlines, segment
from resolvi_sd.datasets._profiles import simulate_profiles


@pytest.fixture(scope="module")
def layout() -> Layout:
    rng = np.random.default_rng(0)
    profiles = simulate_profiles(6, 40, n_rare=1, gradient=0.5, rng=rng)
    compositions = draw_compositions(4, profiles.frequencies, rng=rng)
    return draw_layout(400, replace(REGIMES["xenium"], overlap=0.1), profiles, compositions, rng=rng)


@pytest.fixture(scope="module")
def segmentation(layout: Layout) -> Segmentation:
    return segment(layout, REGIMES["xenium"], rng=np.random.default_rng(1))


def _isolated(radius: float, n_cells: int = 50) -> Layout:
    """Cells of one size, far from each other."""
    return Layout(
        centers=np.column_stack([1000.0 * np.arange(n_cells), np.zeros(n_cells)]),
        radii=np.full(n_cells, radius),
        types=np.zeros(n_cells, dtype=np.intp),
        domains=np.zeros(n_cells, dtype=np.intp),
        gradient=np.zeros(n_cells),
        partners=np.full(n_cells, -1),
    )


def test_assignment_is_point_in_polygon(segmentation: Segmentation) -> None:
    rng = np.random.default_rng(2)
    positions = rng.uniform(-10, segmentation.centers.max() + 10, size=(20_000, 2))
    tree = shapely.STRtree(segmentation.polygons())
    points, cells = tree.query(shapely.points(positions), predicate="within")
    expected = np.full(len(positions), -1)
    expected[points] = cells
    assert len(np.unique(points)) == len(points), "segmented outlines must not overlap"
    np.testing.assert_array_equal(segmentation.assign(positions), expected)
    assert 0 < (expected < 0).mean() < 0.6


def test_a_guess_does_not_change_the_assignment(segmentation: Segmentation) -> None:
    rng = np.random.default_rng(3)
    guess = rng.integers(0, len(segmentation.centers), size=5000)
    positions = segmentation.centers[guess] + rng.normal(0, 5, size=(5000, 2))
    np.testing.assert_array_equal(segmentation.assign(positions, guess), segmentation.assign(positions))


def test_polygons_are_valid_and_hold_their_center(segmentation: Segmentation) -> None:
    polygons = segmentation.polygons()
    assert shapely.is_valid(polygons).all()
    assert set(shapely.get_type_id(polygons)) == {shapely.GeometryType.POLYGON.value}
    assert shapely.contains(polygons, shapely.points(segmentation.centers)).all()


def test_emitted_positions_are_inside_the_true_outline(layout: Layout) -> None:
    outlines = TrueOutlines.of_layout(layout)
    cells = np.repeat(np.arange(len(layout.centers)), 20)
    positions = outlines.draw_positions(cells, rng=np.random.default_rng(4))
    distance = np.linalg.norm(positions[:, None] - layout.centers, axis=2)
    own = distance[np.arange(len(cells)), cells]
    assert (own <= layout.radii[cells] + 1e-9).all()
    # Partners share their space; no other cell's center is nearer than one's own.
    paired = layout.partners[cells] >= 0
    distance[np.flatnonzero(paired), layout.partners[cells[paired]]] = np.inf
    assert (own <= distance.min(axis=1) + 1e-9).all()


def test_emitted_positions_are_uniform() -> None:
    outlines = TrueOutlines.of_layout(_isolated(5.0, n_cells=1))
    positions = outlines.draw_positions(np.zeros(200_000, dtype=np.intp), rng=np.random.default_rng(5))
    assert outlines.areas[0] == pytest.approx(np.pi * 25, rel=0.02)
    # Of a uniform disc, a quarter lies within half the radius, and the mean of the squared radius is R²/2.
    radius = np.hypot(*positions.T)
    assert (radius < 2.5).mean() == pytest.approx(np.pi * 2.5**2 / outlines.areas[0], abs=0.005)
    np.testing.assert_allclose(positions.mean(axis=0), 0.0, atol=0.05)
    quadrant = np.bincount(2 * (positions[:, 0] > 0) + (positions[:, 1] > 0)) / len(positions)
    np.testing.assert_allclose(quadrant, 0.25, atol=0.005)


def test_molecules_stay_in_isolated_cells_as_diffusion_predicts() -> None:
    """Of molecules uniform in a disc, 1 - exp(-a) (I0(a) + I1(a)) stay, a = R² / s² (Soumpasis 1983)."""
    radius, step = 6.0, 2.0
    regime = replace(REGIMES["clean"], diffusion=step, tail=0.0, segmentation=0.0, background=0.0, counts=100.0)
    layout = _isolated(radius)
    rng = np.random.default_rng(6)
    emission = expected_emission(
        TrueOutlines.of_layout(layout), segment(layout, regime, rng=rng), regime, np.ones(50), rng=rng
    )
    a = (radius / step) ** 2
    stay = 1 - ive(0, a) - ive(1, a)
    np.testing.assert_allclose(emission, 100.0 / stay, rtol=0.015)


def test_overlapping_cells_come_in_pairs(layout: Layout) -> None:
    paired = np.flatnonzero(layout.partners >= 0)
    assert len(paired) == 40
    np.testing.assert_array_equal(layout.partners[layout.partners[paired]], paired)
    gap = np.linalg.norm(layout.centers[paired] - layout.centers[layout.partners[paired]], axis=1)
    assert (gap <= 0.6 * np.maximum(layout.radii[paired], layout.radii[layout.partners[paired]]) + 1e-9).all()
