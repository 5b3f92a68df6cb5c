"""Small stores, results put in by hand, and what must not change."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import spatialdata as sd
import zarr
from scipy import sparse
from spatialdata.models import ShapesModel, TableModel

from resolvi_sd._keys import Keys
from resolvi_sd.io import _files

N_CELLS, N_GENES = 30, 8


def make_sdata(rng):
    table = ad.AnnData(sparse.csr_matrix(rng.poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32)))
    table.obs_names = [f"cell{i}" for i in range(N_CELLS)]
    table.var_names = [f"gene{i}" for i in range(N_GENES)]
    table.obs["cell_type"] = pd.Categorical(rng.choice(["T", "B"], N_CELLS))
    table.obs["region"] = pd.Categorical(["cells"] * N_CELLS)
    table.obs["cell_id"] = np.arange(N_CELLS) + 100
    table.obsm["spatial"] = rng.random((N_CELLS, 2))
    table.uns["mine"] = {"a": np.arange(3)}
    shapes = ShapesModel.parse(table.obsm["spatial"], geometry=0, radius=0.1, index=table.obs["cell_id"].to_numpy())
    parsed = TableModel.parse(table, region="cells", region_key="region", instance_key="cell_id")
    return sd.SpatialData(shapes={"cells": shapes}, tables={"table": parsed})


def add_results(table, rng, prefix="resolvi"):
    """Every kind of result under the names that a fit gives them; the values are arbitrary."""
    keys = Keys(prefix)
    n, g = table.shape
    add_few_results(table, rng, prefix, expression=True)
    pairs = sparse.random(n, n, density=0.2, format="csr", dtype=np.float32, random_state=rng)
    for name in (keys.distances, keys.weights):
        table.obsp[name] = (pairs * rng.random()).astype(np.float32)
    table.varm[keys.background] = rng.random((g, 2))
    table.uns[keys.neighbors] = {"params": {"n_neighbors": 10}}
    table.uns[keys.model]["model_config"] = {"likelihood": "nb", "n_latent": 3, "background_ratio": 0.1}
    table.uns[keys.model]["batches"] = np.array(["a", "b"])


def add_few_results(table, rng, prefix="resolvi", *, expression):
    """Results in four slots, for tests of many writes; `expression` is what not every fit has."""
    keys = Keys(prefix)
    n, g = table.shape
    table.layers[keys.counts] = table.X.multiply(rng.random((n, g))).tocsr().astype(np.float32)
    table.obsm[keys.latent] = rng.normal(size=(n, 3)).astype(np.float32)
    for name in keys.shares:
        table.obs[name] = rng.random(n)
    table.uns[keys.model] = {"weights": {"decoder.0.weight": rng.normal(size=(4, 3)).astype(np.float32)}}
    if expression:
        frame = pd.DataFrame(rng.random((n, 2)), index=table.obs_names, columns=["gene0", "gene1"])
        table.obsm[keys.expression] = frame.astype(np.float32)
    else:
        table.obsm.pop(keys.expression, None)


def without_results(table, prefix="resolvi"):
    """The user's own part of a table."""
    rest = table.copy()
    for slot, names in Keys(prefix).owned().items():
        for name in names:
            if name in getattr(rest, slot):
                del getattr(rest, slot)[name]
    return rest


def results_of(table, prefix="resolvi"):
    """The results in a table: {(slot, key): value}."""
    owned = ((slot, name) for slot, names in Keys(prefix).owned().items() for name in names)
    return {(slot, name): getattr(table, slot)[name] for slot, name in owned if name in getattr(table, slot)}


def assert_same(actual, expected):
    """Equal in value and kind, and in dtype where there is one; strings by their content."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif sparse.issparse(expected):
        assert sparse.issparse(actual) and actual.format == expected.format and actual.dtype == expected.dtype
        assert actual.shape == expected.shape and abs(actual - expected).nnz == 0
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(
            actual, expected, check_index_type=False, check_column_type=False, check_categorical=False
        )
    elif isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(actual, expected, check_index_type=False, check_categorical=False)
    elif isinstance(expected, np.ndarray) and expected.dtype.kind in "US":
        assert list(actual) == list(expected)
    else:
        np.testing.assert_array_equal(actual, expected)
        assert getattr(actual, "dtype", None) == getattr(expected, "dtype", None)


def assert_same_table(actual, expected):
    assert list(actual.obs_names) == list(expected.obs_names)
    assert list(actual.var_names) == list(expected.var_names)
    assert_same(actual.X, expected.X)
    assert_same(actual.obs, expected.obs)
    for slot in ("layers", "obsm", "obsp", "varm", "uns"):
        assert_same(_mapping(actual, slot), _mapping(expected, slot))


def _mapping(table, slot):
    return {key: value for key, value in dict(getattr(table, slot)).items() if key not in (None, "spatialdata_attrs")}


def read_table(path, table_key="table"):
    return sd.read_zarr(path).tables[table_key]


def digests(root):
    """Every file of a store, and a digest of its bytes."""
    files = (path for path in Path(root).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def owned_path(path, prefix="resolvi", table_key="table"):
    """Whether a file belongs to the results under the prefix."""
    owned = [f"tables/{table_key}/{slot}/{name}/" for slot, names in Keys(prefix).owned().items() for name in names]
    return any(path.startswith(name) for name in owned)


def consolidate(path):
    """Consolidate a group as zarr does; it warns of parquet files, and that v3 does not specify this."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        zarr.consolidate_metadata(zarr.storage.LocalStore(path))


def consolidated_nodes(path):
    """Every node of the group as its consolidated metadata has it: {path: metadata}."""
    group = zarr.open_group(path, mode="r", use_consolidated=True)
    return {name: _plain(node) for name, node in group.members(max_depth=None)}


def nodes_on_disk(path):
    """Every node of the group as it is on disk."""
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # parquet files are no zarr nodes
        members = group.members(max_depth=None, use_consolidated_for_children=False)
    return {name: _plain(node) for name, node in members}


def _plain(node):
    content = json.loads(json.dumps(node.metadata.to_dict(), default=str))
    content.pop("consolidated_metadata", None)
    return content


def every_state(monkeypatch, write, root, folder):
    """Run a writer, and return copies of the store as a kill at any moment would have left it.

    There is a copy before every operation and one half-way through those that are not atomic, without repetitions.
    """
    states = {}

    def keep(change=lambda copy: None):
        copy = folder / f"{len(states):03d}.zarr"
        shutil.copytree(root, copy)
        change(copy)
        if states.setdefault(tuple(sorted(digests(copy).items())), copy) is not copy:
            shutil.rmtree(copy)

    def instrument(name, original):
        def operation(*args, **kwargs):
            keep()
            if name == "remove_tree":
                keep(lambda copy: _delete_half(copy / args[0].relative_to(root)))
            if name == "replace_json":
                partial = (kwargs["hidden"] / f"{args[0].name}.partial").relative_to(root)
                keep(lambda copy: (copy / partial).write_text('{"half'))
            original(*args, **kwargs)
            if name == "write_element":
                group, key, _ = args
                path = (Path(group.store.root) / group.path / key).relative_to(root)
                keep(lambda copy: _delete_half(copy / path))

        return operation

    with monkeypatch.context() as patch:
        for name in ("move", "remove_file", "remove_tree", "replace_json", "write_element"):
            patch.setattr(_files, name, instrument(name, getattr(_files, name)))
        write()
    keep()
    return list(states.values())


def _delete_half(path):
    for i, file in enumerate(sorted(path.rglob("*"))):
        if file.is_file() and i % 2 == 0:
            file.unlink()
