"""A fit on what outlines tell: gaps between cells, areas; and its way into the store."""

import numpy as np
import pytest
import spatialdata as sd

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}


def test_gaps_between_outlines_as_distances(tissue):
    rsd.tl.fit(tissue, distance="boundary", n_neighbors=12, max_epochs=2, **QUIET)
    table = tissue.tables["table"]
    expected = rsd.gr.neighbors(tissue, distance="boundary", n_neighbors=12, copy=True)
    np.testing.assert_allclose(table.obsp["resolvi_distances"].toarray(), expected.distances.toarray(), rtol=1e-6)
    assert table.uns["resolvi"]["setup"]["distance"] == "boundary"
    # Neighbors that touch get more weight than those that do not.
    weights, distances = table.obsp["resolvi_weights"].tocoo(), table.obsp["resolvi_distances"].tocsr()
    gap = np.asarray(distances[weights.row, weights.col]).ravel()
    assert 0.2 < (gap == 0).mean() < 0.8
    assert weights.data[gap == 0].mean() > 1.2 * weights.data[gap > np.median(gap[gap > 0])].mean()


def test_areas_are_measured_and_come_back_from_the_store(tissue, tmp_path):
    tissue.write(tmp_path / "tissue.zarr")
    table = tissue.tables["table"]
    table.obs = table.obs.drop(columns=[c for c in table.obs if c == "area"])
    rsd.tl.fit(tissue, size_factor_key="area", max_epochs=2, write=True, **QUIET)
    shapes = tissue["cells"].loc[table.obs[table.uns["spatialdata_attrs"]["instance_key"]]]
    np.testing.assert_allclose(table.obs["resolvi_size"], shapes.geometry.area, rtol=1e-5)
    assert table.uns["resolvi"]["setup"]["size_unit"].endswith("^2")

    again = sd.read_zarr(tmp_path / "tissue.zarr")
    assert rsd.io.results_state(again, "table") == "complete"
    draws = [
        rsd.tl.sample_posterior(data, sites=["corrected_rate"], n_samples=1, rng=0, **QUIET)["corrected_rate"].values
        for data in (tissue, again)
    ]
    np.testing.assert_allclose(draws[1], draws[0], rtol=1e-4, atol=1e-6)
    model = rsd.ResolVI.from_table(again)
    np.testing.assert_allclose(model.posterior.own.toarray(), table.layers["resolvi_counts"].toarray(), atol=1e-4)
    # Trained on and written anew, the measured sizes stay among the results.
    before = dict(again["table"].uns["resolvi"]["setup"])
    model.train(max_epochs=1, show_progress_bar=False)
    model.write()
    np.testing.assert_allclose(again["table"].obs["resolvi_size"], table.obs["resolvi_size"])
    assert again["table"].uns["resolvi"]["setup"] == before


def test_the_unit_of_measured_sizes_goes_along_into_the_store(tissue, tmp_path):
    """The column of `gr.cell_sizes` stays in memory; its sizes and their unit are among the results."""
    tissue.write(tmp_path / "tissue.zarr")
    rsd.gr.cell_sizes(tissue, unit="micrometer", key_added="outline_area")
    rsd.tl.fit(tissue, size_factor_key="outline_area", max_epochs=2, write=True, **QUIET)

    again = sd.read_zarr(tmp_path / "tissue.zarr")
    table, stored = tissue["table"], again["table"]
    assert stored.uns["resolvi"]["setup"]["size_unit"] == "micrometer^2"
    assert "outline_area" not in stored.obs
    np.testing.assert_allclose(stored.obs["resolvi_size"], table.obs["outline_area"], rtol=1e-6)
    expected, found = (
        rsd.tl.normalized_expression(data, library_size="latent", size_scaling=True, copy=True, **QUIET)
        for data in (tissue, again)
    )
    np.testing.assert_allclose(
        found.layers["resolvi_expression"], expected.layers["resolvi_expression"], rtol=1e-4, atol=1e-6
    )


def test_a_column_of_sizes_without_a_unit_has_none(tissue):
    tissue["table"].obs["size"] = np.linspace(1, 2, 300)
    rsd.tl.fit(tissue, size_factor_key="size", max_epochs=1, **QUIET)
    assert "size_unit" not in tissue["table"].uns["resolvi"]["setup"]
    assert "resolvi_size" not in tissue["table"].obs


SETUPS = [
    {"size_factor_key": "mine"},
    {"batch_key": "mine"},
    {"library_key": "mine"},
    {"labels_key": "mine"},
    {"categorical_covariate_keys": ["mine"]},
]


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: next(iter(setup)))
def test_a_fit_whose_columns_the_store_lacks_is_not_begun(tissue, tmp_path, monkeypatch, setup):
    tissue.write(tmp_path / "tissue.zarr")
    tissue["table"].obs["mine"] = np.resize([1, 2], 300)
    monkeypatch.setattr("resolvi_sd.tl._fit.read_input", None)
    with pytest.raises(ValueError, match=r"columns of `obs`.*in memory only: 'mine'.*write_element\('table_new'\)"):
        rsd.tl.fit(tissue, write=True, **setup, **QUIET)


def test_the_way_out_for_columns_that_the_store_lacks(tissue, tmp_path):
    tissue.write(tmp_path / "tissue.zarr")
    tissue["table"].obs["slide"] = np.resize(["a", "b"], 300)
    rsd.tl.fit(tissue, batch_key="slide", max_epochs=1, **QUIET)
    for refuse in (rsd.io.write_results, rsd.io.check_writable):
        with pytest.raises(ValueError, match=r"in memory only: 'slide'"):
            refuse(tissue)
    assert rsd.io.results_state(tissue) == "absent"

    tissue.tables["table_new"] = tissue.tables["table"]
    tissue.write_element("table_new")
    rsd.tl.fit(tissue, table_key="table_new", batch_key="slide", max_epochs=1, write=True, **QUIET)
    again = sd.read_zarr(tmp_path / "tissue.zarr")
    expected, found = (
        rsd.tl.normalized_expression(data, table_key="table_new", copy=True, **QUIET).layers["resolvi_expression"]
        for data in (tissue, again)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_query_is_measured_as_the_reference_was(tissue):
    reference = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=1, transcripts=False)
    for data in (reference, tissue):
        data.tables["table"].obs = data.tables["table"].obs.drop(columns=["area"], errors="ignore")
    rsd.tl.fit(reference, size_factor_key="area", max_epochs=2, **QUIET)
    table = tissue.tables["table"]
    rsd.tl.map_query(tissue, reference, **QUIET)
    assert (table.obs["resolvi_size"] > 0).all()
    table.obs["area"] = 1.0
    with pytest.raises(ValueError, match=r"query's cells are in unknown units.*provide both in the same way"):
        rsd.tl.map_query(tissue, reference, **QUIET)


def test_whether_it_can_be_written_is_asked_first(tissue, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the fit was begun")

    monkeypatch.setattr("resolvi_sd.tl._fit.fit_model", never)
    with pytest.raises(ValueError, match="not backed by a store"):
        rsd.tl.fit(tissue, write=True, **QUIET)
    with pytest.raises(TypeError, match=r"write=True.*AnnData.*write_zarr"):
        rsd.tl.fit(tissue.tables["table"], write=True, **QUIET)
    with pytest.raises(ValueError, match="copy=True"):
        rsd.tl.fit(tissue, write=True, copy=True, **QUIET)


def test_bad_outlines(tissue):
    table = tissue.tables["table"]
    with pytest.raises(ValueError, match=r"distance='edge' is not known.*'centroid', 'boundary'"):
        rsd.tl.fit(tissue, distance="edge", **QUIET)
    with pytest.raises(KeyError, match="size_factor_key='volume2'"):
        rsd.tl.fit(tissue, size_factor_key="volume2", **QUIET)
    with pytest.raises(ValueError, match="no volume"):
        rsd.tl.fit(tissue, size_factor_key="volume", **QUIET)
    assert "resolvi" not in table.uns
