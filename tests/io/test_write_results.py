"""What a write puts into a store, what it leaves alone, and what it refuses."""

import os
import shutil
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from _stores import (
    add_results,
    assert_same,
    assert_same_table,
    consolidate,
    consolidated_nodes,
    digests,
    nodes_on_disk,
    owned_path,
    read_table,
    results_of,
    without_results,
)
from anndata._io.specs.registry import IORegistryError
from upath import UPath

from resolvi_sd.io import results_state, write_results


def test_a_store_read_back_holds_what_memory_holds(store, rng):
    sdata = sd.read_zarr(store)
    user = sdata["table"].copy()
    add_results(sdata["table"], rng)

    write_results(sdata)

    assert_same_table(read_table(store), sdata["table"])
    assert_same_table(without_results(read_table(store)), user)
    assert results_state(sdata) == results_state(store) == results_state(str(store)) == "complete"
    assert not list(store.glob(".resolvi*"))


def test_no_other_file_changes(store, rng):
    sdata = sd.read_zarr(store)
    add_results(sdata["table"], rng)
    before = digests(store)

    write_results(sdata)

    after = digests(store)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    expected = {"v2": {".zmetadata", "tables/table/obs/.zattrs"}, "v3": {"zarr.json", "tables/table/obs/zarr.json"}}
    assert {name for name in changed if not owned_path(name)} == expected[store.stem]


def test_elements_are_stored_in_the_format_of_their_table(store, rng):
    sdata = sd.read_zarr(store)
    add_results(sdata["table"], rng)
    write_results(sdata)
    formats = {zarr.open(node.parent, mode="r").metadata.zarr_format for node in store.rglob(".zgroup")}
    formats |= {zarr.open(node.parent, mode="r").metadata.zarr_format for node in store.rglob("zarr.json")}
    assert formats == {int(store.stem[1])}


def test_obs_columns_of_the_user_keep_their_order(v3, rng):
    sdata = sd.read_zarr(v3)
    columns = list(sdata["table"].obs)
    add_results(sdata["table"], rng)
    write_results(sdata)
    write_results(sdata)
    shares = ["resolvi_true", "resolvi_diffusion", "resolvi_background"]
    assert list(read_table(v3).obs) == columns + shares


def test_results_that_are_gone_from_memory_are_gone_from_disk(store, rng):
    sdata = sd.read_zarr(store)
    add_results(sdata["table"], rng)
    sdata["table"].layers["resolvi_expression"] = np.ones(sdata["table"].shape, dtype=np.float32)
    write_results(sdata)
    add_results(sdata["table"], rng)
    table = sdata["table"]
    del table.layers["resolvi_expression"], table.obsm["resolvi_expression"], table.obs["resolvi_true"]

    write_results(sdata)

    assert_same_table(read_table(store), sdata["table"])
    assert "resolvi_expression" not in read_table(store).layers


def test_results_under_two_prefixes_do_not_touch_each_other(v3, rng):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    write_results(sdata)
    before = digests(v3)
    add_results(sdata["table"], rng, "run2")
    sdata["table"].obsm["X_resolvi"] += 1  # not asked to be written

    assert results_state(sdata, key_added="run2") == "absent"
    write_results(sdata, key_added="run2")

    after = digests(v3)
    assert {k: v for k, v in before.items() if owned_path(k)} == {k: v for k, v in after.items() if owned_path(k)}
    assert_same(results_of(read_table(v3), "run2"), results_of(sdata["table"], "run2"))
    assert results_state(sdata) == results_state(sdata, key_added="run2") == "complete"


def test_a_table_without_a_slot_gets_one(store, rng):
    sdata = sd.read_zarr(store)
    for slot in ("obsp", "varm", "layers", "uns"):
        shutil.rmtree(store / "tables/table" / slot)
    add_results(sdata["table"], rng)
    write_results(sdata)
    assert_same(results_of(read_table(store)), results_of(sdata["table"]))


def test_a_lazy_layer_may_come_from_the_layer_that_it_replaces(v3, rng):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    dense = rng.random(sdata["table"].shape).astype(np.float32)
    sdata["table"].layers["resolvi_expression"] = da.from_array(dense, chunks=(7, 8))
    write_results(sdata)
    lazy = da.from_zarr(zarr.open(v3 / "tables/table/layers/resolvi_expression", mode="r"))
    sdata["table"].layers["resolvi_expression"] = lazy * 2

    write_results(sdata)

    assert_same(read_table(v3).layers["resolvi_expression"], dense * 2)


def test_record_arrays_stay_in_memory_and_no_store_keeps_those_of_before(v3, rng):
    """zarr 3.1 cannot open a table with the record arrays that zarr 3.4 writes; both are supported here."""
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    ranks = {"names": np.rec.fromarrays([["gene1", "gene0"]], dtype=[("T", "O")]), "params": {"groupby": "cell_type"}}
    sdata["table"].uns["resolvi_rank_genes_groups"] = ranks
    stored = v3.with_name("with_ranks.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(stored)

    write_results(sdata)

    assert "resolvi_rank_genes_groups" in sdata["table"].uns
    assert not (stored / "tables/table/uns/resolvi_rank_genes_groups").exists()
    assert results_state(stored) == "complete"


@pytest.mark.parametrize("group", ["", "tables/table", "tables/table/layers", "tables/table/obs"])
def test_consolidated_metadata_say_what_is_on_disk(store, rng, group):
    sdata = sd.read_zarr(store)
    add_results(sdata["table"], rng)
    write_results(sdata)
    consolidate(store / group)
    add_results(sdata["table"], rng)  # other numbers of stored entries
    del sdata["table"].obsm["resolvi_expression"]

    write_results(sdata)

    assert consolidated_nodes(store / group) == nodes_on_disk(store / group)
    assert_same_table(read_table(store), sdata["table"])


def test_consolidated_metadata_equal_those_that_zarr_makes(store, rng):
    consolidate(store)
    sdata = sd.read_zarr(store)
    add_results(sdata["table"], rng)
    write_results(sdata)
    ours = consolidated_nodes(store)
    consolidate(store)
    assert ours == consolidated_nodes(store)


def test_a_store_without_consolidated_metadata_gets_none(v3, rng):
    sdata = sd.read_zarr(v3)
    fresh = v3.with_name("fresh.zarr")
    sdata.write(fresh, consolidate_metadata=False)
    sdata = sd.read_zarr(fresh)
    add_results(sdata["table"], rng)
    write_results(sdata)
    assert zarr.open_group(sdata.path, mode="r").metadata.consolidated_metadata is None


def test_an_object_in_memory_is_refused(v3, rng):
    backed = sd.read_zarr(v3)
    sdata = sd.SpatialData(shapes=backed.shapes, tables=backed.tables)
    add_results(sdata["table"], rng)
    with pytest.raises(ValueError, match=r"not backed.*sdata\.write\(path\)"):
        write_results(sdata)
    with pytest.raises(ValueError, match="not backed"):
        results_state(sdata)
    with pytest.raises(TypeError, match="AnnData"):
        write_results(sdata["table"])


def test_a_table_that_is_not_in_the_store_is_refused(v3, rng):
    sdata = sd.read_zarr(v3)
    sdata["other"] = sdata["table"].copy()
    add_results(sdata["other"], rng)
    with pytest.raises(KeyError, match=r"'other'.*it has: 'table'.*write_element\('other'\)"):
        write_results(sdata, "other")
    with pytest.raises(KeyError, match=r"'nothing'.*it has"):
        write_results(sdata, "nothing")
    with pytest.raises(KeyError, match=r"'nothing'.*it has: 'table'"):
        results_state(v3, "nothing")


def test_a_table_without_results_is_refused(v3):
    with pytest.raises(KeyError, match=r"resolvi_sd\.tl\.fit"):
        write_results(sd.read_zarr(v3))


def _filtered(table):
    return table[::2].copy()


def _reordered(table):
    return table[::-1].copy()


def _renumbered(table):
    table = table[::-1].copy()
    table.obs_names = table.obs_names[::-1]
    return table


def _fewer_genes(table):
    return table[:, :-1].copy()


def _genes_reordered(table):
    return table[:, ::-1].copy()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_filtered, r"rows.*15 in memory, 30 in the store; only in the store: 15"),
        (_reordered, r"rows.*their order"),
        (_renumbered, r"cells \(`obs\['cell_id'\]`\).*their order"),
        (_fewer_genes, r"genes.*only in the store: 1 \('gene7'\)"),
        (_genes_reordered, r"genes.*their order"),
    ],
)
def test_other_rows_or_genes_than_on_disk_are_refused(v3, rng, change, message):
    sdata = sd.read_zarr(v3)
    sdata.tables["table"] = change(sdata["table"])
    add_results(sdata["table"], rng)
    before = digests(v3)
    with pytest.raises(ValueError, match=f"(?s){message}.*table_new.*sdata.write"):
        write_results(sdata)
    assert digests(v3) == before


@pytest.mark.parametrize(
    "url", ["s3://bucket/section.zarr", "https://example.org/section.zarr", "memory://section.zarr"]
)
def test_a_remote_store_is_refused(v3, url, monkeypatch):
    sdata = sd.read_zarr(v3)
    monkeypatch.setattr(sd.SpatialData, "path", url)
    with pytest.raises(ValueError, match=r"remote.*sdata\.write"):
        write_results(sdata)
    with pytest.raises(ValueError, match="remote"):
        results_state(url)
    assert results_state(v3.as_uri()) == "absent"


def test_paths_of_universal_pathlib(v3):
    with pytest.raises(ValueError, match=r"'memory://bucket/section\.zarr' is remote \(memory\).*sdata\.write"):
        results_state(UPath("memory://bucket/section.zarr"))
    assert results_state(UPath(v3)) == results_state(UPath(v3.as_uri())) == "absent"


def test_a_path_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        results_state(tmp_path / "nothing.zarr")
    (tmp_path / "packed.zarr.zip").touch()
    with pytest.raises(ValueError, match="is a file"):
        results_state(tmp_path / "packed.zarr.zip")
    with pytest.raises(TypeError, match="int"):
        results_state(3)


def test_a_read_only_store_is_refused(v3, rng, monkeypatch):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "layers")
    before = digests(v3)
    with pytest.raises(PermissionError, match=r"read-only.*layers.*sdata\.write\(path\)"):
        write_results(sdata)
    assert digests(v3) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_refused(v3, rng):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    (v3 / "tables/table/obsm").chmod(0o555)
    with pytest.raises(PermissionError, match="read-only"):
        write_results(sdata)


@pytest.mark.parametrize("key_added", ["a/b", "", "T cells", "../x"])
def test_a_prefix_that_is_no_name_is_refused(v3, key_added):
    with pytest.raises(ValueError, match="key_added"):
        write_results(sd.read_zarr(v3), key_added=key_added)
    with pytest.raises(ValueError, match="key_added"):
        results_state(v3, key_added=key_added)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"probabilities": {"T/NK": np.ones(3)}}, ValueError, r"\['probabilities'\].*'T/NK'"),
        ({"table": pd.DataFrame({"T/NK": [1.0]})}, ValueError, r"columns.*'T/NK'"),
        ({"numbered": {3: 1.0}}, ValueError, r"3"),
        ({"shape": (1, 2)}, TypeError, r"\['shape'\] is a tuple"),
        ({"steps": [{"elbo": 1.0}]}, TypeError, r"\['steps'\] holds dict"),
        ({"mixed": [1, "a", None]}, TypeError, "NoneType, int, str"),
    ],
)
def test_what_a_store_would_not_keep_is_refused(v3, rng, value, error, message):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    sdata["table"].uns["resolvi"].update(value)
    before = digests(v3)
    with pytest.raises(error, match=message):
        write_results(sdata)
    assert digests(v3) == before


def test_an_element_that_cannot_be_written_leaves_the_old_results(v3, rng):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    write_results(sdata)
    before = digests(v3)
    sdata["table"].uns["resolvi"]["object"] = object()
    with pytest.raises(IORegistryError):
        write_results(sdata)
    assert digests(v3) == before


def test_a_graph_alone_is_no_result_of_a_fit(v3, rng):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    distances = sdata["table"].obsp["resolvi_distances"]
    sdata.tables["table"] = without_results(sdata["table"])
    sdata["table"].obsp["resolvi_distances"] = distances
    sdata.write(v3.with_name("graph.zarr"))
    assert results_state(v3.with_name("graph.zarr")) == "absent"


def test_results_without_their_model_are_incomplete(v3, rng, caplog):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    del sdata["table"].uns["resolvi"]
    sdata.write(v3.with_name("partial.zarr"))
    assert results_state(v3.with_name("partial.zarr")) == "incomplete"
    assert "they lack the model" in caplog.text and "write_results" not in caplog.text


@pytest.mark.skipif("RESOLVI_SD_DATA" not in os.environ, reason="RESOLVI_SD_DATA does not name the folder of real data")
@pytest.mark.parametrize("name", ["xenium_breast_mini", "xenium_pancreas_roi"])
@pytest.mark.filterwarnings("ignore:no parent found", "ignore::zarr.errors.ZarrUserWarning")
def test_real_stores(name, tmp_path, rng):
    path = tmp_path / f"{name}.zarr"
    shutil.copytree(Path(os.environ["RESOLVI_SD_DATA"]) / f"{name}.zarr", path)
    sdata = sd.read_zarr(path)
    table = sdata["table"]
    user = table.copy()
    table.obsm["X_resolvi"] = rng.normal(size=(table.n_obs, 10)).astype(np.float32)
    table.layers["resolvi_counts"] = table.X.copy()
    table.obs["resolvi_true"] = rng.random(table.n_obs)
    table.varm["resolvi_dispersion"] = rng.random((table.n_vars, 1))
    table.uns["resolvi"] = {"weights": {"w": rng.random(3)}}
    before = digests(path)

    write_results(sdata)

    kept = {k: v for k, v in digests(path).items() if not owned_path(k)}
    assert {k for k in before if before[k] != kept[k]} <= {
        "zarr.json", "zmetadata", "tables/table/obs/zarr.json", "tables/table/obs/.zattrs"
    }  # fmt: skip
    assert kept.keys() == before.keys()
    assert_same_table(without_results(read_table(path)), user)
    assert_same(results_of(read_table(path)), results_of(table))
