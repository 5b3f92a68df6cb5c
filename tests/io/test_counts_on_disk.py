"""Counts that are a dask array or in a file: they are read block by block, and a fit leaves them as they are."""

import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from scipy import sparse

import resolvi_sd as rsd
from resolvi_sd import _csr
from resolvi_sd._keys import Keys
from resolvi_sd._scratch import is_in_file
from resolvi_sd._tables import _matrices, table_counts

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


def stored(table, tmp_path, how):
    """A table whose counts are in a file, as `how` says."""
    table = table.copy()
    if how == "h5ad, dense":
        table.X = table.X.toarray()
    if how == "h5ad, by columns":
        table.X = sparse.csc_matrix(table.X)
    if how.startswith("h5ad"):
        table.write_h5ad(tmp_path / "cells.h5ad")
        return ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    sd.SpatialData(tables={"table": table}).write(tmp_path / "cells.zarr")
    table.X = ad.io.sparse_dataset(zarr.open_group(tmp_path / "cells.zarr/tables/table", mode="r")["X"])
    return table


@pytest.fixture(scope="module")
def cells(tissue):
    table = tissue["table"].copy()
    del table.uns["spatialdata_attrs"]
    return table


@pytest.mark.parametrize("integer_counts", [False, True])
@pytest.mark.parametrize("how", ["h5ad", "h5ad, dense", "zarr"])
def test_a_fit_of_a_backed_table_is_that_of_one_in_memory(cells, tmp_path, how, integer_counts, monkeypatch):
    monkeypatch.setattr(_matrices, "_ROWS", 40)
    settings = {"max_epochs": 2, "integer_counts": integer_counts, "show_progress_bar": False}
    expected = rsd.tl.fit(cells, copy=True, **settings)
    backed = stored(cells, tmp_path, how)
    before = type(backed.X)

    rsd.tl.fit(backed, **settings)

    assert type(backed.X) is before
    corrected = backed.layers[KEYS.counts]
    assert is_in_file(corrected.data) and is_in_file(corrected.indices)
    assert corrected.dtype == (np.int32 if integer_counts else np.float32)
    assert abs(corrected - expected.layers[KEYS.counts]).nnz == 0
    np.testing.assert_array_equal(backed.obsm[KEYS.latent], expected.obsm[KEYS.latent])
    backed.write_h5ad(tmp_path / "fitted.h5ad")
    read = ad.read_h5ad(tmp_path / "fitted.h5ad")
    assert abs(read.layers[KEYS.counts] - corrected).nnz == 0 and abs(read.X - cells.X).max() == 0


def audited(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # after one epoch it is told that too much goes
        return rsd.tl.audit(table, "cell_type", copy=True, show_progress_bar=False)


def decontaminated(table):
    rsd.tl.decontaminated_counts(table, fpr=0.1, show_progress_bar=False)
    counts = table.layers[KEYS.decontaminated]
    assert is_in_file(counts.data) == table.isbacked
    return counts


def test_everything_after_a_fit_works_on_a_backed_table(cells, tmp_path):
    backed, memory = stored(cells, tmp_path, "h5ad"), cells.copy()
    for table in (backed, memory):
        rsd.tl.fit(table, max_epochs=1, show_progress_bar=False)
    quiet = {"copy": True, "show_progress_bar": False}
    for call in (
        lambda table: rsd.tl.differential_expression(table, groupby="cell_type", n_samples=20, **quiet)["lfc_mean"],
        lambda table: rsd.tl.leakage(table, "cell_type", **quiet)["pairs"]["molecules"],
        lambda table: audited(table)["value"],
        lambda table: rsd.tl.pseudobulk(table, groupby="cell_type", min_cells=1).X,
        lambda table: (
            rsd.tl.sample_posterior(table, sites="own_counts", n_samples=2, show_progress_bar=False).own_counts
        ),
        lambda table: rsd.ResolVI.from_table(table).get_normalized_expression(),
        lambda table: decontaminated(table).toarray(),
    ):
        np.testing.assert_allclose(np.asarray(call(backed)), np.asarray(call(memory)), rtol=1e-6)
    rsd.tl.normalized_expression(backed, library_size="latent", show_progress_bar=False)
    assert backed.layers[KEYS.expression].shape == backed.shape


def test_corrected_counts_may_be_lazy_too(cells):
    table = cells.copy()
    rsd.tl.fit(table, max_epochs=1, show_progress_bar=False)
    expected = rsd.tl.pseudobulk(table, groupby="cell_type", min_cells=1, integer_counts=False).X
    compared = rsd.tl.differential_expression(
        table, groupby="cell_type", n_samples=20, copy=True, show_progress_bar=False
    )
    table.layers[KEYS.counts] = da.from_array(table.layers[KEYS.counts], chunks=(40, 30))
    np.testing.assert_allclose(
        rsd.tl.pseudobulk(table, groupby="cell_type", min_cells=1, integer_counts=False).X, expected, rtol=1e-6
    )
    lazy = rsd.tl.differential_expression(table, groupby="cell_type", n_samples=20, copy=True, show_progress_bar=False)
    np.testing.assert_allclose(lazy["lfc_mean"], compared["lfc_mean"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("blocks", ["dask", "zarr"])
def test_no_more_than_a_block_is_in_memory(cells, tmp_path, monkeypatch, blocks):
    monkeypatch.setattr(_matrices, "_ROWS", 40)
    monkeypatch.setattr(_matrices, "_MOST_TASKS", 4)
    read, canonical = [], _matrices.canonical
    monkeypatch.setattr(_matrices, "canonical", lambda block: read.append(block.shape) or canonical(block))
    table = cells.copy() if blocks == "dask" else stored(cells, tmp_path, blocks)
    if blocks == "dask":
        table.X = da.from_array(table.X, chunks=(10, 30))
    counts = table_counts(table, None)
    assert abs(counts - cells.X).nnz == 0 and is_in_file(counts.data)
    assert read == [(40, 30), (40, 30), (40, 30), (30, 30)]


def test_more_entries_than_the_small_type_counts(cells, monkeypatch):
    monkeypatch.setattr(_csr, "_COLUMN", np.int8)
    table = cells.copy()
    table.X = da.from_array(table.X, chunks=(40, 30))
    counts = table_counts(table, None)
    assert counts.nnz > np.iinfo(np.int8).max and abs(counts - cells.X).nnz == 0


def test_an_empty_matrix_has_no_file(cells):
    table = cells.copy()
    table.X = da.zeros(table.shape, chunks=(40, 30), dtype=np.float32)
    assert table_counts(table, None).nnz == 0


def test_counts_stored_by_columns_have_to_be_loaded(cells, tmp_path):
    backed = stored(cells, tmp_path, "h5ad, by columns")
    with pytest.raises(NotImplementedError, match=r"stored by rows .*table\.to_memory\(\)"):
        rsd.tl.fit(backed, show_progress_bar=False)
    backed.file.close()


def test_what_anndata_cannot_copy_is_refused_before_the_fit(cells, tmp_path):
    backed = stored(cells, tmp_path, "h5ad")
    with pytest.raises(ValueError, match=r"`copy=True` needs a table in memory.*table\.to_memory\(\)"):
        rsd.tl.fit(backed, copy=True, show_progress_bar=False)
    with pytest.raises(ValueError, match="This piece of a table is in a file"):
        rsd.tl.fit(backed[:100], show_progress_bar=False)
    assert not backed.uns.get(KEYS.model)
    rsd.tl.fit(backed, max_epochs=1, show_progress_bar=False)
    for call in (
        lambda: rsd.tl.leakage(backed[:100], "cell_type", show_progress_bar=False),
        lambda: rsd.tl.differential_expression(backed[:100], groupby="cell_type", show_progress_bar=False),
        lambda: rsd.tl.niche_abundance(backed[:100], labels_key="cell_type"),
        lambda: rsd.tl.audit(backed[:100], "cell_type", show_progress_bar=False),
    ):
        with pytest.raises(ValueError, match="This piece of a table is in a file"):
            call()
    with pytest.raises(ValueError, match=r"`copy=True` needs a table in memory"):
        rsd.tl.normalized_expression(backed, copy=True, show_progress_bar=False)
    with pytest.raises(ValueError, match=r"`copy=True` needs a table in memory"):
        rsd.tl.map_query(backed, backed, copy=True, show_progress_bar=False)


@pytest.mark.parametrize("n_samples", [1, 2])
def test_a_store_is_read_without_its_counts(tmp_path, n_samples):
    path = tmp_path / "tissue.zarr"
    sdata = rsd.datasets.simulate_tissue(n_cells=150, n_genes=30, n_samples=n_samples, rng=0, transcripts=False)
    sdata["table"].layers["dense"] = sdata["table"].X.toarray()
    sdata["table"].raw = sdata["table"].copy()
    sdata.write(path)
    memory = sd.read_zarr(path)
    rsd.tl.fit(memory, max_epochs=1, show_progress_bar=False)

    backed = rsd.io.read_backed(path)
    table = backed["table"]
    assert isinstance(table.X, ad.abc.CSRDataset) and isinstance(table.layers["dense"], zarr.Array)
    assert set(backed.shapes) == set(sdata.shapes) and backed.path == path
    assert abs(table.raw.X - sdata["table"].X).nnz == 0
    for name in ("true_own", "dense"):
        np.testing.assert_array_equal(
            np.asarray(sparse.csr_matrix(table.layers[name][:]).toarray()),
            sparse.csr_matrix(sdata["table"].layers[name]).toarray(),
        )
    sd.models.TableModel().validate(table)

    rsd.tl.fit(backed, max_epochs=1, write=True, show_progress_bar=False)
    stored = sd.read_zarr(path)["table"]
    assert abs(stored.layers[KEYS.counts] - memory["table"].layers[KEYS.counts]).nnz == 0
    assert abs(stored.X - sdata["table"].X).nnz == 0
    with pytest.raises(ValueError, match="`copy=True` needs a table in memory"):
        rsd.tl.fit(backed, copy=True, show_progress_bar=False)
    again = rsd.io.read_backed(path)
    assert isinstance(again["table"].layers[KEYS.counts], ad.abc.CSRDataset)
    quiet = {"copy": True, "show_progress_bar": False, "n_samples": 20}
    found, expected = (
        rsd.tl.differential_expression(data, groupby="cell_type", **quiet)["lfc_mean"] for data in (again, memory)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_table_that_is_not_there_is_named(tissue, tmp_path):
    sd.deepcopy(tissue).write(tmp_path / "tissue.zarr")
    with pytest.raises(KeyError, match="table_key='cells' is not in `tissue.zarr/tables`; it has: 'table'"):
        rsd.io.read_backed(tmp_path / "tissue.zarr", "cells")
    with pytest.raises(ValueError, match="does not exist"):
        rsd.io.read_backed(tmp_path / "other.zarr")


def folder_of(path, element):
    """Names and times of change of the files of an element of the table."""
    files = sorted((path / "tables/table" / element).rglob("*"))
    return [(file.name, file.stat().st_mtime_ns) for file in files]


def test_what_a_store_has_already_is_not_written_again(tissue, tmp_path):
    path = tmp_path / "tissue.zarr"
    sd.deepcopy(tissue).write(path)
    rsd.tl.fit(rsd.io.read_backed(path), max_epochs=1, write=True, show_progress_bar=False)
    backed = rsd.io.read_backed(path)
    before = folder_of(path, "layers/resolvi_counts"), folder_of(path, "obsm/X_resolvi")
    rsd.tl.leakage(backed, "cell_type", show_progress_bar=False)
    rsd.io.write_results(backed)
    after = folder_of(path, "layers/resolvi_counts"), folder_of(path, "obsm/X_resolvi")
    assert after[0] == before[0] and after[1] != before[1]
    stored = sd.read_zarr(path)["table"]
    assert (
        KEYS.leakage in stored.uns and abs(stored.layers[KEYS.counts] - backed["table"].layers[KEYS.counts][:]).nnz == 0
    )


def test_results_of_two_fits_are_not_mixed(tissue, tmp_path):
    path = tmp_path / "tissue.zarr"
    sd.deepcopy(tissue).write(path)
    rsd.tl.fit(rsd.io.read_backed(path), max_epochs=1, write=True, show_progress_bar=False)
    first = rsd.io.read_backed(path)
    rsd.tl.fit(rsd.io.read_backed(path), max_epochs=2, write=True, show_progress_bar=False)
    with pytest.raises(ValueError, match=r"layers/resolvi_counts.*results of another fit.*read_backed\(path\)"):
        rsd.io.write_results(first)
    assert len(sd.read_zarr(path)["table"].uns[KEYS.model]["history"]["epoch"]) == 2


def test_the_layer_that_holds_counts_is_found_on_disk_too(tissue, tmp_path):
    sdata = sd.deepcopy(tissue)
    sdata["table"].layers["counts"] = sdata["table"].X.copy()
    sdata["table"].X = sdata["table"].X * np.float32(0.5)
    sdata.write(tmp_path / "tissue.zarr")
    backed = rsd.io.read_backed(tmp_path / "tissue.zarr")
    with pytest.raises(ValueError, match="not integers.*Non-negative integers are in: .*layer='counts'"):
        rsd.tl.fit(backed, show_progress_bar=False)
    backed["table"].layers["counts"] = da.from_array(tissue["table"].X, chunks=(40, 30))
    with pytest.raises(ValueError, match="not integers.*Non-negative integers are in: .*layer='counts'"):
        rsd.tl.fit(backed, show_progress_bar=False)


def test_a_query_on_disk_stays_there_when_its_genes_are_put_in_order(cells, tmp_path):
    reference = cells.copy()
    rsd.tl.fit(reference, max_epochs=1, show_progress_bar=False)
    query = cells[:, ::-1].copy()
    expected = rsd.tl.map_query(query, reference, max_epochs=1, copy=True, show_progress_bar=False)
    found = rsd.tl.map_query(
        stored(query, tmp_path, "h5ad"), reference, max_epochs=1, copy=True, show_progress_bar=False
    )
    assert is_in_file(found.X.data) and is_in_file(found.layers[KEYS.counts].data)
    assert abs(found.X - cells.X).nnz == 0
    assert abs(found.layers[KEYS.counts] - expected.layers[KEYS.counts]).nnz == 0


def test_metrics_ask_for_matrices_in_memory(cells, tmp_path):
    backed = stored(cells, tmp_path, "h5ad")
    with pytest.raises(TypeError, match="`counts` must be a numpy array or a scipy sparse matrix"):
        rsd.metrics.removal(backed.X, cells.layers["true_own"], cells.layers["true_own"])


def test_an_audit_of_a_backed_table_knows_the_truth(tmp_path):
    """That of simulated tissue is a layer, and stays on disk as the others do."""
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0, transcripts=False)
    rsd.tl.fit(sdata, max_epochs=30, show_progress_bar=False)
    expected = rsd.tl.audit(sdata, "cell_type", copy=True, show_progress_bar=False)
    sdata.write(tmp_path / "tissue.zarr")
    backed = rsd.io.read_backed(tmp_path / "tissue.zarr")
    found = rsd.tl.audit(backed, "cell_type", copy=True, show_progress_bar=False)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


def test_a_store_that_is_gone_is_not_read_as_zeros(tissue, tmp_path):
    path = tmp_path / "section.zarr"
    sd.deepcopy(tissue).write(path)
    sdata = rsd.io.read_backed(path)
    rsd.tl.fit(sdata, max_epochs=1, write=True, show_progress_bar=False)
    again = rsd.io.read_backed(path)
    path.rename(tmp_path / "elsewhere.zarr")
    for call in (
        lambda: rsd.tl.latent(again, copy=True, show_progress_bar=False),
        lambda: rsd.tl.decontaminated_counts(again, show_progress_bar=False),
        lambda: rsd.tl.pseudobulk(again, "cell_type"),
        lambda: rsd.tl.fit(again, max_epochs=1, show_progress_bar=False),
    ):
        with pytest.raises(FileNotFoundError, match=r"is read from '.*section.zarr/.*', which no longer exists"):
            call()
