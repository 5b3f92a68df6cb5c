"""Patches are a partition; a minibatch holds its neighbors once; thinning is binomial."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from resolvi_sd._tiles import Tissue, cut_minibatch, cut_patches, encoder_features, thin_rows


def tissue_of(n_cells, seed=0):
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.poisson(1.0, (n_cells, 9)).astype(np.float32))
    neighbor = np.stack([rng.choice(np.delete(np.arange(n_cells), i), 4, replace=False) for i in range(n_cells)])
    mask = rng.random((n_cells, 4)) < 0.8
    categories = rng.integers(0, 2, (n_cells, 2))
    return Tissue.assemble(counts, categories, neighbor, rng.random((n_cells, 4)).astype("f4"), mask)


@pytest.mark.parametrize("patch_size", [1, 7, 64, 5000])
def test_patches_partition_the_included_cells_and_never_span_sections(patch_size):
    rng = np.random.default_rng(1)
    coordinates, library = rng.uniform(size=(1000, 2)), rng.integers(0, 3, 1000)
    include = rng.random(1000) < 0.9
    patches = cut_patches(coordinates, library, patch_size=patch_size, include=include)
    np.testing.assert_array_equal(np.sort(patches.order), np.flatnonzero(include))
    assert patches.sizes().max() <= patch_size
    assert all(len(np.unique(library[patches.cells(p)])) == 1 for p in range(len(patches)))


def test_patches_are_compact():
    # On a square grid a patch of 64 cells has a border of about 4 * 8 cells, a random group of 64 cells about 64 * 4.
    side = 32
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
    patches = cut_patches(grid, np.zeros(side**2, int), patch_size=64)
    for p in range(len(patches)):
        assert np.ptp(grid[patches.cells(p)], axis=0).max() == 7


def test_patch_size_must_be_positive():
    with pytest.raises(ValueError, match="patch_size.*at least 1, got 0"):
        cut_patches(np.zeros((3, 2)), np.zeros(3, int), patch_size=0)


def test_minibatch_holds_every_cell_once_and_numbers_neighbors_rightly():
    tissue = tissue_of(200)
    core = np.array([5, 3, 150, 77])
    batch = cut_minibatch(tissue, core)
    cells = batch.cells.numpy()
    assert len(np.unique(cells)) == len(cells)
    np.testing.assert_array_equal(cells[:4], core)
    mask = batch.mask.numpy()
    np.testing.assert_array_equal(cells[batch.neighbor.numpy()][mask], tissue.neighbor[core][mask])
    assert set(cells) == set(core) | set(tissue.neighbor[core][mask])
    np.testing.assert_array_equal(batch.counts.to_dense().numpy(), tissue.counts[core].toarray())
    np.testing.assert_array_equal(batch.library_size.numpy(), tissue.counts[cells].sum(1).A1)
    np.testing.assert_array_equal(batch.categories.numpy(), tissue.categories[cells])


def test_neighbors_without_molecules_are_masked():
    tissue = tissue_of(50)
    counts = tissue.counts.toarray()
    counts[tissue.neighbor[0, 0]] = 0
    again = Tissue.assemble(
        sp.csr_matrix(counts), tissue.categories, tissue.neighbor, tissue.distance, np.ones_like(tissue.mask)
    )
    np.testing.assert_array_equal(again.mask, counts.sum(1)[tissue.neighbor] > 0)
    assert not again.mask[0, 0]


def test_features_are_log1p_of_counts_over_their_mean():
    counts = np.array([[1, 0, 3], [0, 0, 0], [2, 2, 2]], dtype=np.float32)
    expected = np.log1p([[0.75, 0, 2.25], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_allclose(encoder_features(sp.csr_matrix(counts)), expected, rtol=1e-6)


def test_thinning_is_binomial():
    # One row of 1,000 entries of 8 molecules, thinned to a quarter: each entry is Binomial(8, 1/4).
    counts = sp.csr_matrix(np.full((1, 1000), 8, dtype=np.float32))
    kept = thin_rows(counts, 2000, np.random.default_rng(0)).toarray().ravel()
    observed = np.bincount(kept.astype(int), minlength=9)
    expected = 1000 * stats.binom.pmf(np.arange(9), 8, 0.25)
    tail = slice(6, None)
    pooled = [np.append(v[:6], v[tail].sum()) for v in (observed, expected)]
    assert stats.chisquare(pooled[0], pooled[1] / pooled[1].sum() * pooled[0].sum()).pvalue > 1e-3


def test_thinning_leaves_shallow_rows_alone():
    counts = sp.csr_matrix(np.array([[1, 0, 2], [50, 50, 0]], dtype=np.float32))
    thinned = thin_rows(counts, 10, np.random.default_rng(0)).toarray()
    np.testing.assert_array_equal(thinned[0], [1, 0, 2])
    assert 0 < thinned[1].sum() < 40
