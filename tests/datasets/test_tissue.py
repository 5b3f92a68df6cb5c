"""Simulated tissues: conservation laws, truth, determinism, stores."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
import spatialdata as sd
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

import resolvi_sd as rsd
from resolvi_sd.datasets import TissueRegime, simulate_tissue
from resolvi_sd.datasets._molecules import _displacement

SHARES = ["true_own_share", "true_leaked_share", "true_background_share"]


@pytest.fixture(scope="module")
def tissue() -> sd.SpatialData:
    return simulate_tissue(1500, 80, rng=11)


@pytest.fixture(scope="module")
def samples() -> sd.SpatialData:
    return simulate_tissue(601, 40, n_samples=3, n_batches=2, rng=12)


@pytest.fixture(params=["tissue", "samples"])
def sdata(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def _rows(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1)).ravel()


def _points(sdata: sd.SpatialData) -> pd.DataFrame:
    return pd.concat([points.compute() for points in sdata.points.values()], ignore_index=True)


def test_every_entry_is_own_plus_leaked_plus_background(sdata: sd.SpatialData) -> None:
    table = sdata.tables["table"]
    parts = [table.layers[f"true_{source}"] for source in ("own", "leaked", "background")]
    for matrix in (table.X, *parts):
        assert sp.issparse(matrix)
        assert matrix.format == "csr"
        assert matrix.dtype == np.float32
        assert (matrix.data > 0).all()
        np.testing.assert_array_equal(matrix.data, np.round(matrix.data))
    assert (table.X != parts[0] + parts[1] + parts[2]).nnz == 0


def test_shares_are_those_of_the_layers(sdata: sd.SpatialData) -> None:
    table = sdata.tables["table"]
    np.testing.assert_allclose(table.obs[SHARES].sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(table.obs["true_own_share"], _rows(table.layers["true_own"]) / _rows(table.X), rtol=1e-6)


def test_cells_without_counts_have_no_shares() -> None:
    table = simulate_tissue(200, 30, regime="sparse", rng=0, transcripts=False).tables["table"]
    assert table.obs[SHARES].notna().all(axis=None)
    table = simulate_tissue(200, 30, regime=TissueRegime(counts=1.0), rng=0, transcripts=False).tables["table"]
    empty = _rows(table.X) == 0
    assert 0 < empty.sum() < 200
    np.testing.assert_array_equal(table.obs[SHARES].isna().all(axis=1), empty)
    np.testing.assert_array_equal(table.obs[SHARES].isna().any(axis=1), empty)


def test_flow_accounts_for_all_leaked_molecules(sdata: sd.SpatialData) -> None:
    table = sdata.tables["table"]
    flow = table.obsp["true_flow"]
    assert flow.format == "csr"
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(_rows(flow), _rows(table.layers["true_leaked"]))
    assert flow.diagonal().sum() == 0
    pairs = flow.tocoo()
    sample = table.obs["sample"].cat.codes.to_numpy()
    assert (sample[pairs.row] == sample[pairs.col]).all(), "molecules never leave their section"
    distance = np.linalg.norm(table.obsm["spatial"][pairs.row] - table.obsm["spatial"][pairs.col], axis=1)
    assert np.median(distance) < 20


def test_points_recount_to_the_table(sdata: sd.SpatialData) -> None:
    table = sdata.tables["table"]
    points = _points(sdata)
    assigned = points[points["cell_id"] != ""]
    rows = pd.Index(table.obs["cell_id"]).get_indexer(assigned["cell_id"])
    columns = table.var_names.get_indexer(assigned["gene"])
    ones = np.ones(len(assigned), dtype=np.float32)
    recount = sp.csr_matrix((ones, (rows, columns)), shape=table.shape)
    assert (recount != table.X).nnz == 0
    own = (assigned["cell_id"] == assigned["true_cell_id"]).to_numpy()
    recount = sp.csr_matrix((ones[own], (rows[own], columns[own])), shape=table.shape)
    assert (recount != table.layers["true_own"]).nnz == 0
    background = (assigned["true_cell_id"] == "").to_numpy()
    recount = sp.csr_matrix((ones[background], (rows[background], columns[background])), shape=table.shape)
    assert (recount != table.layers["true_background"]).nnz == 0


def test_emitted_molecules_are_all_among_the_points(sdata: sd.SpatialData) -> None:
    table = sdata.tables["table"]
    points = _points(sdata)
    made = points["true_cell_id"].value_counts().reindex(table.obs["cell_id"].astype(str)).fillna(0)
    np.testing.assert_array_equal(made.to_numpy(), table.obs["true_emitted"])
    kept = _rows(table.layers["true_own"]) + np.asarray(table.obsp["true_flow"].sum(axis=0)).ravel()
    assert (kept <= table.obs["true_emitted"]).all()


def test_points_lie_in_the_outlines_that_count_them(tissue: sd.SpatialData) -> None:
    points = _points(tissue).sample(5000, random_state=0)
    outlines = tissue.shapes["cells"]
    tree = outlines.sindex
    hit, cell = tree.query(shapely.points(points[["x", "y"]].to_numpy(dtype=float)), predicate="within")
    inside = pd.Series("", index=range(len(points)))
    inside.iloc[hit] = outlines.index[cell]
    # Corners are computed twice, once per polygon and once per distance: allow for rounding at the outlines.
    assert (inside.to_numpy() == points["cell_id"].to_numpy()).mean() > 0.999


def test_centroids_and_areas_are_those_of_the_shapes(sdata: sd.SpatialData) -> None:
    table = sdata.tables["table"]
    for name, outlines in sdata.shapes.items():
        rows = (table.obs["region"] == name).to_numpy()
        assert list(outlines.index) == list(table.obs["cell_id"][rows])
        centroids = sd.get_centroids(outlines).compute().to_numpy()
        np.testing.assert_allclose(table.obsm["spatial"][rows], centroids)
        np.testing.assert_allclose(table.obs["area"][rows], outlines.area)
        assert (np.diff(outlines.bounds.to_numpy()[:, [0, 2]]) > 0).all()


def test_contract_of_the_table(tissue: sd.SpatialData) -> None:
    table = tissue.tables["table"]
    assert table.shape == (1500, 80)
    assert next(column for column in table.obs if "type" in column) == "cell_type"
    for column in ("cell_type", "sample", "batch", "region", "domain"):
        assert isinstance(table.obs[column].dtype, pd.CategoricalDtype)
    profile = table.layers["true_profile"]
    assert isinstance(profile, np.ndarray)
    assert profile.dtype == np.float32
    np.testing.assert_allclose(profile.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(table.varm["true_background"].sum(axis=0), 1.0)
    assert list(tissue.shapes) == ["cells"]
    assert list(tissue.points) == ["transcripts"]
    assert table.uns["spatialdata_attrs"] == {"region": "cells", "region_key": "region", "instance_key": "cell_id"}


def test_several_samples_have_their_own_elements_and_overlap(samples: sd.SpatialData) -> None:
    table = samples.tables["table"]
    assert sorted(samples.shapes) == ["cells_0", "cells_1", "cells_2"]
    assert sorted(samples.points) == ["transcripts_0", "transcripts_1", "transcripts_2"]
    assert table.uns["spatialdata_attrs"]["region"] == ["cells_0", "cells_1", "cells_2"]
    assert table.obs["sample"].value_counts().to_dict() == {"sample_0": 201, "sample_1": 200, "sample_2": 200}
    assert table.obs_names.is_unique
    batches = table.obs.groupby("sample", observed=True)["batch"].unique()
    assert [list(batch) for batch in batches] == [["batch_0"], ["batch_1"], ["batch_0"]]
    corners = [outlines.total_bounds for outlines in samples.shapes.values()]
    assert max(corner[0] for corner in corners) < min(corner[2] for corner in corners)
    background = table.varm["true_background"]
    assert background.shape == (40, 3)
    distance = 0.5 * np.abs(background[:, 0] - background[:, 1]).sum()
    assert 0.05 < distance < 0.4


def test_batches_change_the_profiles(samples: sd.SpatialData) -> None:
    table = simulate_tissue(400, 40, n_samples=2, gradient=0.0, batch_effect=0.5, transcripts=False).tables["table"]
    profile = pd.DataFrame(table.layers["true_profile"])
    groups = [table.obs["cell_type"].astype(str).to_numpy(), table.obs["batch"].astype(str).to_numpy()]
    assert profile.groupby(groups).std().max(axis=None) < 1e-6
    means = profile.groupby(groups).mean().loc["type_0"]
    assert 0.5 * np.abs(means.loc["batch_0"] - means.loc["batch_1"]).sum() > 0.1


def test_own_counts_follow_the_true_profile() -> None:
    """Where hardly anything leaks, a type's own molecules are distributed as its cells' profiles say."""
    table = simulate_tissue(3000, 60, regime="clean", rng=5, transcripts=False).tables["table"]
    for label in ("type_0", "type_1"):
        rows = np.flatnonzero(table.obs["cell_type"] == label)
        own = np.asarray(table.layers["true_own"][rows].sum(axis=0)).ravel()
        weight = table.obs["true_emitted"].to_numpy()[rows]
        expected = weight @ table.layers["true_profile"][rows]
        assert 0.5 * np.abs(own / own.sum() - expected / expected.sum()).sum() < 0.03


def test_crowded_and_shallow_cells_own_less(tissue: sd.SpatialData) -> None:
    table = tissue.tables["table"]
    gap = cKDTree(table.obsm["spatial"]).query(table.obsm["spatial"], k=4)[0][:, 1:].mean(axis=1)
    own = table.obs["true_own_share"]
    assert spearmanr(gap, own).statistic > 0.1
    assert spearmanr(table.obs["true_emitted"], own).statistic > 0.4
    assert own.std() > 0.08


def test_neighbors_are_of_the_same_type_more_often_than_by_chance(tissue: sd.SpatialData) -> None:
    table = tissue.tables["table"]
    label = table.obs["cell_type"].cat.codes.to_numpy()
    neighbors = cKDTree(table.obsm["spatial"]).query(table.obsm["spatial"], k=7)[1][:, 1:]
    frequency = np.bincount(label) / len(label)
    assert (label[neighbors] == label[:, None]).mean() > 1.2 * (frequency**2).sum()


def test_leaky_genes_leak_more() -> None:
    table = simulate_tissue(2000, 60, gene_leakage=0.8, rng=2, transcripts=False).tables["table"]
    leaked = np.asarray(table.layers["true_leaked"].sum(axis=0)).ravel()
    own = np.asarray(table.layers["true_own"].sum(axis=0)).ravel()
    assert spearmanr(table.var["true_leakage"], leaked / (own + leaked)).statistic > 0.8
    assert table.var["true_leakage"].mean() == pytest.approx(1.0)


def test_overlapping_cells_are_mixed() -> None:
    table = simulate_tissue(1500, 40, overlap=0.2, rng=4, transcripts=False).tables["table"]
    overlapping = table.obs["overlapping"]
    assert overlapping.sum() == 300
    own = table.obs["true_own_share"]
    assert own[overlapping].mean() < own[~overlapping].mean() - 0.1


def _assert_same(first: sd.SpatialData, second: sd.SpatialData) -> None:
    a, b = first.tables["table"], second.tables["table"]
    assert (a.X != b.X).nnz == 0
    for key in ("true_own", "true_leaked", "true_background"):
        assert (a.layers[key] != b.layers[key]).nnz == 0
    assert (a.obsp["true_flow"] != b.obsp["true_flow"]).nnz == 0
    np.testing.assert_array_equal(a.layers["true_profile"], b.layers["true_profile"])
    pd.testing.assert_frame_equal(a.obs, b.obs)
    np.testing.assert_array_equal(a.obsm["spatial"], b.obsm["spatial"])


def test_same_seed_same_tissue() -> None:
    first = simulate_tissue(300, 30, n_samples=2, rng=7)
    state = np.random.get_state()[1].copy()
    _assert_same(first, simulate_tissue(300, 30, n_samples=2, rng=np.random.default_rng(7)))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    other = simulate_tissue(300, 30, n_samples=2, rng=8)
    assert (first.tables["table"].X != other.tables["table"].X).nnz > 0


def test_transcripts_are_optional_and_change_nothing_else() -> None:
    without = simulate_tissue(300, 30, rng=7, transcripts=False)
    assert len(without.points) == 0
    _assert_same(simulate_tissue(300, 30, rng=7), without)


@pytest.mark.parametrize(("n_cells", "n_genes"), [(1, 20), (2, 5), (30, 1)])
def test_tiny_tissues(n_cells: int, n_genes: int) -> None:
    table = simulate_tissue(n_cells, n_genes, rng=0).tables["table"]
    assert table.shape == (n_cells, n_genes)
    assert (table.X.sum() > 0) and np.isfinite(table.obsm["spatial"]).all()


def test_blocks_do_not_lose_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolvi_sd.datasets._molecules.BLOCK_SIZE", 7 * 30)
    sdata = simulate_tissue(100, 30, regime="sparse", rng=0)
    test_points_recount_to_the_table(sdata)
    test_emitted_molecules_are_all_among_the_points(sdata)


def test_store_round_trip(sdata: sd.SpatialData, tmp_path: Path) -> None:
    sdata.write(tmp_path / "tissue.zarr")
    read = sd.read_zarr(tmp_path / "tissue.zarr")
    table, before = read.tables["table"], sdata.tables["table"]
    _assert_same(sdata, read)
    assert table.uns["spatialdata_attrs"] == before.uns["spatialdata_attrs"]
    assert dict(table.uns["simulation"]["regime"]) == before.uns["simulation"]["regime"]
    assert list(table.uns["simulation"]["types"]) == list(before.uns["simulation"]["types"])
    np.testing.assert_array_equal(table.varm["true_background"], before.varm["true_background"])
    for name, outlines in sdata.shapes.items():
        assert list(read.shapes[name].index) == list(outlines.index)
        assert read.shapes[name].geometry.geom_equals_exact(outlines.geometry, 1e-9).all()
    test_points_recount_to_the_table(read)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_cells": 0}, ValueError, "`n_cells` must be at least 1"),
        ({"n_cells": 2, "n_samples": 3}, ValueError, "at least 3 .one cell per sample"),
        ({"n_cells": 10.5}, TypeError, "`n_cells` must be an integer"),
        ({"n_genes": 0}, ValueError, "`n_genes` must be at least 1"),
        ({"n_types": 0}, ValueError, "`n_types` must be at least 1"),
        ({"n_types": 3, "n_rare": 3}, ValueError, "`n_rare` must be from 0 to 2"),
        ({"n_domains": 0}, ValueError, "`n_domains`"),
        ({"n_samples": 2, "n_batches": 3}, ValueError, "no more batches than samples"),
        ({"batch_effect": -1.0}, ValueError, "`batch_effect` must be at least 0 and finite"),
        ({"gradient": "strong"}, TypeError, "`gradient` must be a number"),
        ({"overlap": 2.0}, ValueError, "`overlap` must be at least 0 and below 1"),
        ({"regime": "visium"}, ValueError, "Known regimes: xenium"),
        ({"rng": "seed"}, TypeError, "`rng`"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulate_tissue(**{"n_cells": 50, "n_genes": 20, **options})


def test_import_is_free_of_the_model_and_of_squidpy() -> None:
    code = "import sys, resolvi_sd.datasets; print(sorted({'torch', 'squidpy', 'pyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tails_widen_the_displacement():
    regime = replace(rsd.datasets.REGIMES["xenium"], diffusion=2.0, tail=0.1)
    moved = _displacement(400_000, regime, rng=np.random.default_rng(0))
    assert np.square(moved).mean() == pytest.approx(4 * (0.9 + 0.1 * 9), rel=0.02)


def test_cells_vary_in_depth_and_genes_are_overdispersed():
    def table(**settings):
        regime = replace(
            rsd.datasets.REGIMES["clean"], size_sd=0.0, crowding=0.0, vacancy=0.0, counts=500.0, **settings
        )
        plain = {"n_types": 1, "n_rare": 0, "gradient": 0.0, "transcripts": False, "rng": 0}
        return rsd.datasets.simulate_tissue(n_cells=1500, n_genes=60, regime=regime, **plain)["table"]

    variance = [np.log(table(depth_sd=sd, dispersion=1e6).obs["true_emitted"]).var() for sd in (0.0, 0.5)]
    assert variance[1] - variance[0] == pytest.approx(0.25, rel=0.15)
    noisy = table(depth_sd=0.0, dispersion=0.5)
    own = noisy.layers["true_own"].toarray()
    expressed = own.mean(axis=0) > 5
    excess = (own.var(axis=0) - own.mean(axis=0)) / own.mean(axis=0) ** 2
    assert np.median((excess * noisy.var["true_dispersion"].to_numpy())[expressed]) == pytest.approx(1, abs=0.2)
