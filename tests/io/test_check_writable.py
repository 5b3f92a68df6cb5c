"""What is refused before a fit, so that no result is computed that cannot be written."""

import os
from pathlib import Path

import pytest
import spatialdata as sd
from _stores import add_results, digests

from resolvi_sd.io import check_writable, results_state, write_results


def test_a_store_that_can_be_written_passes_with_and_without_results_and_is_left_alone(store, rng):
    sdata = sd.read_zarr(store)
    before = digests(store)
    check_writable(sdata)
    add_results(sdata["table"], rng)
    check_writable(sdata, "table", key_added="resolvi")
    assert digests(store) == before
    write_results(sdata)
    before = digests(store)
    check_writable(sdata)
    assert digests(store) == before


def test_an_object_in_memory_is_refused(v3):
    backed = sd.read_zarr(v3)
    with pytest.raises(ValueError, match=r"not backed.*sdata\.write\(path\)"):
        check_writable(sd.SpatialData(shapes=backed.shapes, tables=backed.tables))
    with pytest.raises(TypeError, match=r"AnnData.*has no store"):
        check_writable(backed["table"])


def test_a_table_that_is_not_in_the_store_is_refused(v3):
    sdata = sd.read_zarr(v3)
    sdata["other"] = sdata["table"].copy()
    with pytest.raises(KeyError, match=r"'other'.*write_element\('other'\)"):
        check_writable(sdata, "other")
    with pytest.raises(KeyError, match=r"'nothing'.*it has"):
        check_writable(sdata, "nothing")


def test_other_rows_than_on_disk_are_refused(v3):
    sdata = sd.read_zarr(v3)
    sdata.tables["table"] = sdata["table"][::2].copy()
    with pytest.raises(ValueError, match=r"(?s)rows.*15 in memory, 30 in the store.*table_new"):
        check_writable(sdata)


def test_columns_of_the_fit_that_the_store_lacks_are_refused(store, rng):
    sdata = sd.read_zarr(store)
    table = sdata["table"]
    table.obs["mine"], table.obs["resolvi_predicted"] = "a", "T"
    check_writable(sdata)
    check_writable(sdata, columns=["cell_type", "measured_at_the_fit", "resolvi_predicted"])
    with pytest.raises(ValueError, match=r"in memory only: 'mine'\..*write_element\('table_new'\).*sdata\.write"):
        check_writable(sdata, columns=["cell_type", "mine"])
    with pytest.raises(TypeError, match=r"`columns` must be a list"):
        check_writable(sdata, columns="mine")

    add_results(table, rng)
    table.uns["resolvi"]["setup"] = {"n_neighbors": 10, "batch_key": "cell_type", "labels_key": "mine"}
    before = digests(store)
    for refuse in (check_writable, write_results):
        with pytest.raises(ValueError, match=r"in memory only: 'mine'"):
            refuse(sdata)
    assert digests(store) == before
    check_writable(sdata, columns=["cell_type"])  # those of the next fit


def test_a_layer_of_counts_that_the_store_lacks_is_refused(store, rng):
    sdata = sd.read_zarr(store)
    table = sdata["table"]
    check_writable(sdata, layer="absent")  # which the fit says more of
    table.layers["mine"] = table.X.copy()
    check_writable(sdata)
    with pytest.raises(ValueError, match=r"the layer 'mine', which is not in the table.*write_element\('table_new'\)"):
        check_writable(sdata, layer="mine")

    add_results(table, rng)
    table.uns["resolvi"]["setup"] = {"n_neighbors": 10, "layer": "mine"}
    before = digests(store)
    with pytest.raises(ValueError, match=r"the layer 'mine'"):
        write_results(sdata)
    assert digests(store) == before


def test_a_remote_store_is_refused(v3, monkeypatch):
    sdata = sd.read_zarr(v3)
    monkeypatch.setattr(sd.SpatialData, "path", "s3://bucket/section.zarr")
    with pytest.raises(ValueError, match=r"remote.*sdata\.write"):
        check_writable(sdata)


def test_a_read_only_store_is_refused(v3, monkeypatch):
    sdata = sd.read_zarr(v3)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "obsm")
    with pytest.raises(PermissionError, match=r"read-only.*obsm.*sdata\.write\(path\)"):
        check_writable(sdata)


def test_a_prefix_that_is_no_name_is_refused(v3):
    for name in ("T cells", "__fit"):
        with pytest.raises(ValueError, match="key_added"):
            check_writable(sd.read_zarr(v3), key_added=name)


@pytest.mark.parametrize("key", ["RESOLVI", "Resolvi", "fit", "FIT"])
def test_names_that_differ_in_case_only_are_refused(store, rng, key):
    """spatialdata cannot open a table with such names."""
    sdata = sd.read_zarr(store)
    sdata["table"].obs["Fit_true"] = 1.0
    add_results(sdata["table"], rng)
    sdata["other"] = sdata["table"]
    sdata.write_element("other")
    with pytest.raises(ValueError, match="(?i)(resolvi|fit)_?.* in upper and lower case only"):
        check_writable(sdata, "other", key_added=key)
    check_writable(sdata, "other", key_added="resolvi")


@pytest.mark.parametrize("name", [".", "..", "..."])
def test_a_name_is_no_path(store, name):
    with pytest.raises(ValueError, match="key_added"):
        results_state(store, key_added=name)


def test_columns_that_were_changed_after_reading_are_refused(store):
    sdata = sd.read_zarr(store)
    obs = sdata["table"].obs
    check_writable(sdata, columns=["cell_type", "cell_id"])
    obs["cell_id2"] = obs["cell_id"]
    obs["cell_type"] = obs["cell_type"].astype(str)
    check_writable(sdata, columns=["cell_type", "cell_id"])
    obs["some"] = obs["cell_type"].mask(obs["cell_type"] == "T")  # missing values have several forms
    sdata["some"] = sdata["table"].copy()
    sdata.write_element("some")
    check_writable(sdata, "some", columns=["some"])
    obs["cell_type"] = obs["cell_type"].to_numpy()[::-1]
    with pytest.raises(ValueError, match=r"other values in memory than in .*: 'cell_type'\..*write_element"):
        check_writable(sdata, columns=["cell_type", "cell_id"])


def test_coordinates_that_the_store_lacks_are_refused(store):
    """They are read where the table annotates nothing."""
    sdata = sd.read_zarr(store)
    sdata["table"].obsm["moved"] = 2 * sdata["table"].obsm["spatial"]
    check_writable(sdata, spatial_key="moved")
    free = sdata["table"].copy()
    del free.uns["spatialdata_attrs"]
    sdata["free"] = free
    sdata.write_element("free")
    check_writable(sdata, "free", spatial_key="spatial")
    check_writable(sdata, "free", spatial_key="moved")
    sdata["free"].obsm["moved"] += 1
    sdata["free"].obsm["new"] = sdata["free"].obsm["spatial"]
    for key in ("moved", "new"):
        with pytest.raises(ValueError, match=rf"coordinates obsm\['{key}'\], which differ or are missing"):
            check_writable(sdata, "free", spatial_key=key)


def test_entries_of_the_user_in_a_store_are_not_replaced(store, rng):
    """A column with the name of a result, from elsewhere, is in the store only: the user has renamed it in memory."""
    sdata = sd.read_zarr(store)
    sdata["table"].obs["resolvi_predicted"] = "T"
    sdata["other"] = sdata["table"]
    sdata.write_element("other")
    del sdata["other"].obs["resolvi_predicted"]
    before = digests(store)
    assert results_state(sdata, "other") == "incomplete"
    add_results(sdata["other"], rng)
    for refuse in (check_writable, write_results):
        with pytest.raises(ValueError, match=r"obs/resolvi_predicted.*no fit of that name.*delete_element_from_disk"):
            refuse(sdata, "other")
    assert digests(store) == before
    # What the message advises.
    sdata.delete_element_from_disk("other")
    sdata.write_element("other")
    assert results_state(store, "other") == "complete"
