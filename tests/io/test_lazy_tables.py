"""Counts that are a dask array: anndata and spatialdata take them, and a fit leaves them as they are."""

import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from scipy import sparse

import resolvi_sd as rsd
from resolvi_sd._keys import Keys
from resolvi_sd._tables import table_counts

KEYS = Keys()


@pytest.fixture(scope="module")
def tissue():
    return rsd.datasets.simulate_tissue(n_cells=150, n_genes=30, rng=0, transcripts=False)


@pytest.fixture
def on_disk(tissue, tmp_path):
    """A store, and the counts in it as anndata reads them lazily."""
    path = tmp_path / "section.zarr"
    sd.deepcopy(tissue).write(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata, of what it calls experimental and of pandas
        return path, ad.experimental.read_lazy(path / "tables/table").X


@pytest.mark.parametrize("blocks", ["csr", "csr in both directions", "csc", "dense", "csr_array"])
def test_counts_come_out_of_blocks_of_any_kind(tissue, blocks):
    counts = tissue["table"].X
    lazy = {
        "csr": lambda: da.from_array(counts, chunks=(40, 30)),
        "csr in both directions": lambda: da.from_array(counts, chunks=(40, 7)),
        "csc": lambda: da.from_array(sparse.csc_matrix(counts), chunks=(150, 7)),
        "dense": lambda: da.from_array(counts.toarray(), chunks=(40, 7)),
        "csr_array": lambda: da.from_array(sparse.csr_array(counts), chunks=(40, 30)),
    }[blocks]()
    found = table_counts(ad.AnnData(lazy), None)
    assert sparse.issparse(found) and found.format == "csr" and found.dtype == counts.dtype
    assert abs(found - counts).nnz == 0


@pytest.mark.parametrize("where", ["X", "layer"])
def test_a_fit_of_lazy_counts_is_that_of_counts_in_memory(tissue, on_disk, tmp_path, where):
    path, lazy = on_disk
    expected = rsd.tl.fit(tissue, max_epochs=1, copy=True, show_progress_bar=False)
    sdata = sd.read_zarr(path)
    layer = None if where == "X" else "raw"
    if layer is None:
        sdata["table"].X = lazy
    else:
        sdata["table"].layers[layer] = sdata["table"].X.copy()
        path = tmp_path / "with_layer.zarr"
        sdata.write(path)
        sdata = sd.read_zarr(path)
        sdata["table"].layers[layer] = lazy

    rsd.tl.fit(sdata, layer=layer, max_epochs=1, show_progress_bar=False)
    rsd.io.write_results(sdata)

    table = sdata["table"]
    assert isinstance(table.X if layer is None else table.layers[layer], da.Array)
    np.testing.assert_array_equal(table.obsm[KEYS.latent], expected.obsm[KEYS.latent])
    stored = sd.read_zarr(path)["table"]
    assert abs(stored.layers[KEYS.counts] - expected.layers[KEYS.counts]).nnz == 0
    assert abs(stored.X - tissue["table"].X).nnz == 0


def test_a_table_read_lazily_as_a_whole_has_to_be_loaded(tissue, on_disk):
    path, _ = on_disk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata, of what it calls experimental and of pandas
        lazy = ad.experimental.read_lazy(path / "tables/table")
        with pytest.raises(TypeError, match=r"read lazily: its `obs` is a Dataset2D.*table\.to_memory\(\)"):
            rsd.tl.fit(lazy, max_epochs=1, show_progress_bar=False)
        loaded = lazy.to_memory()
    rsd.tl.fit(loaded, max_epochs=1, show_progress_bar=False)
    assert loaded.obsm[KEYS.latent].shape[0] == tissue["table"].n_obs


def test_lazy_values_that_are_no_counts_are_refused(tissue):
    table = tissue["table"].copy()
    table.X = da.from_array(table.X.astype(np.float32) * 0.5, chunks=(40, 30))
    with pytest.raises(ValueError, match="not integers"):
        rsd.tl.fit(table, max_epochs=1, show_progress_bar=False)
