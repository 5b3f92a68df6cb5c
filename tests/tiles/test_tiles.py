"""Patches are a partition; a minibatch holds its neighbors once; thinning is binomial."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from resolvi_sd._tiles import SparseRows, Tissue, cut_minibatch, cut_patches, encoder_features


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
    np.testing.assert_array_equal(batch.molecules.numpy(), tissue.counts[cells].sum(1).A1)
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
    counts = np.array([[1, 0, 3], [0, 0, 0], [2, 2, 2], [0.5, 90, 0]], dtype=np.float32)
    expected = np.log1p([[0.75, 0, 2.25], [0, 0, 0], [1, 1, 1]])
    # Fractional and large counts in the last.
    mean = 90.5 / 3
    expected = [*expected, np.log1p([0.5 / mean, 90 / mean, 0])]
    features = encoder_features(SparseRows.from_scipy(sp.csr_matrix(counts)))
    np.testing.assert_allclose(features.to_dense(), expected, rtol=1e-6)


def test_rows_are_views_of_their_entries():
    dense = np.array([[1, 0, 3], [0, 0, 0], [2, 0, 2], [0, 9, 0]], dtype=np.float32)
    rows = SparseRows.from_scipy(sp.csr_matrix(dense))
    for start, stop in ((0, 4), (0, 2), (1, 3), (2, 4), (3, 3)):
        part = rows.between(start, stop)
        np.testing.assert_array_equal(part.to_dense(), dense[start:stop])
        assert part.value.untyped_storage().data_ptr() == rows.value.untyped_storage().data_ptr()


def thinned_counts(counts, size, seed=0):
    """The counts of which the encoder sees thinned features: exp(feature) - 1 over that of one molecule."""
    depth = np.full(counts.shape[0], float(size))
    rows, rng = SparseRows.from_scipy(counts), np.random.default_rng(seed)
    shown = np.expm1(encoder_features(rows, thinned_size=depth, rng=rng).to_dense().numpy())
    one = np.where(shown > 0, shown, np.inf).min(axis=1, keepdims=True)
    return shown / one


def test_thinning_is_binomial():
    # One row of 1,000 entries of 8 molecules, thinned to a quarter: each entry is Binomial(8, 1/4).
    counts = sp.csr_matrix(np.full((1, 1000), 8, dtype=np.float32))
    kept = thinned_counts(counts, 2000).ravel()
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-3)
    observed = np.bincount(np.rint(kept).astype(int), minlength=9)
    expected = 1000 * stats.binom.pmf(np.arange(9), 8, 0.25)
    tail = slice(6, None)
    pooled = [np.append(v[:6], v[tail].sum()) for v in (observed, expected)]
    assert stats.chisquare(pooled[0], pooled[1] / pooled[1].sum() * pooled[0].sum()).pvalue > 1e-3


def test_thinning_differs_between_rows_and_draws():
    counts = sp.csr_matrix(np.full((2, 200), 8, dtype=np.float32))
    first, second = thinned_counts(counts, 400, seed=0), thinned_counts(counts, 400, seed=1)
    assert (np.abs(first[0] - first[1]) > 0.5).sum() > 50 and (np.abs(first - second) > 0.5).sum() > 100
    np.testing.assert_array_equal(first, thinned_counts(counts, 400, seed=0))


def test_thinning_leaves_shallow_rows_alone():
    counts = sp.csr_matrix(np.array([[1, 0, 2], [50, 50, 0]], dtype=np.float32))
    rows, rng = SparseRows.from_scipy(counts), np.random.default_rng(0)
    shown = encoder_features(rows, thinned_size=np.full(2, 10.0), rng=rng).to_dense().numpy()
    np.testing.assert_allclose(shown[0], np.log1p([1.0, 0, 2.0]), rtol=1e-6)
    # Rows are scaled to their mean, so that of the second only its ratio can have changed.
    assert shown[1, 2] == 0 and shown[1, 0] != shown[1, 1]


def test_thinned_features_are_relative_to_the_mean_of_what_is_left():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(4, (30, 50)).astype(np.float32))
    rng = np.random.default_rng(1)
    shown = encoder_features(SparseRows.from_scipy(counts), thinned_size=np.full(30, 40.0), rng=rng).to_dense()
    np.testing.assert_allclose(np.expm1(shown.numpy()).mean(axis=1), 1, rtol=1e-4)


def test_molecules_are_kept_with_the_probability_of_their_entry():
    # 1,000 entries of 8 molecules, of which every second entry keeps a quarter; then all are thinned by half.
    rows = SparseRows.from_scipy(sp.csr_matrix(np.full((1, 1000), 8, dtype=np.float32)))
    kept = np.where(np.arange(1000) % 2 == 0, 0.25, 1).astype(np.float32)
    for size, factor in ((None, 1.0), ([2500.0], 0.5)):
        size = None if size is None else np.array(size)
        features = encoder_features(rows, thinned_size=size, kept=kept, rng=np.random.default_rng(0)).to_dense().numpy()
        shown = np.expm1(features) / np.expm1(features[features > 0].min())
        np.testing.assert_allclose(shown, np.rint(shown), atol=1e-3)
        for part in (slice(0, None, 2), slice(1, None, 2)):
            probability = factor * kept[part][0]
            mean, spread = 8 * probability, np.sqrt(8 * probability * (1 - probability))
            assert shown[0, part].mean() == pytest.approx(mean, abs=4 * spread / np.sqrt(500) + 1e-3)
    with pytest.raises(ValueError, match="`rng` together with"):
        encoder_features(rows, kept=kept)


def test_only_core_cells_are_thinned():
    tissue = tissue_of(60)
    thin = cut_minibatch(tissue, np.arange(20), thinned_size=2.0, rng=np.random.default_rng(0))
    whole = cut_minibatch(tissue, np.arange(20))
    np.testing.assert_array_equal(thin.halo_features.to_dense(), whole.halo_features.to_dense())
    assert (thin.core_features.to_dense() != whole.core_features.to_dense()).any()
    # The encoder of the shares reads all molecules in training, too.
    np.testing.assert_array_equal(thin.unthinned_features.to_dense(), whole.features.to_dense())
