"""spatialdata's operations after a fit: results follow their cells, by region and instance id."""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import resolvi_sd as rsd
from resolvi_sd._keys import Keys

KEYS = Keys()
pytestmark = pytest.mark.filterwarnings("ignore:The object has `points` element:UserWarning")


def _shuffled(sdata, rng):
    """The same study, the rows of its table in another order than those of its shapes."""
    order = rng.permutation(sdata["table"].n_obs)
    return sd.SpatialData(
        shapes=dict(sdata.shapes), points=dict(sdata.points), tables={"table": sdata["table"][order].copy()}
    )


@pytest.fixture(params=["as fitted", "shuffled"])
def study(request, fitted):
    return fitted if request.param == "as fitted" else _shuffled(fitted, np.random.default_rng(0))


def test_filter_by_coordinate_system(study, fitted, assert_follow):
    part = study.filter_by_coordinate_system("section_1")["table"]
    assert set(part.obs["region"]) == {"cells_1"}
    assert part.n_obs == (fitted["table"].obs["region"] == "cells_1").sum()
    assert_follow(part, fitted["table"])


def test_match_table_to_element(study, fitted, assert_follow):
    part = sd.match_table_to_element(study, "cells_0")
    assert list(part.obs["cell_id"].astype(str)) == list(fitted["cells_0"].index.astype(str))
    assert_follow(part, fitted["table"])


def test_bounding_box_query(study, fitted, assert_follow):
    low, high = np.zeros(2), fitted["cells_0"].total_bounds[2:] / 2
    part = sd.bounding_box_query(
        study, axes=("x", "y"), min_coordinate=low, max_coordinate=high, target_coordinate_system="global"
    )
    assert 0 < part["table"].n_obs < fitted["table"].n_obs
    assert_follow(part["table"], fitted["table"])
    again = rsd.tl.normalized_expression(part, copy=True, show_progress_bar=False)
    whole = rsd.tl.normalized_expression(fitted, copy=True, show_progress_bar=False)
    expected = whole[again.obs_names].layers["resolvi_expression"]
    np.testing.assert_allclose(again.layers["resolvi_expression"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("how", "match_rows"), [("left", "left"), ("inner", "right"), ("right", "right")])
def test_join_of_an_element_and_the_table(study, fitted, assert_follow, how, match_rows):
    elements, joined = sd.join_spatialelement_table(
        sdata=study, spatial_element_names="cells_1", table_name="table", how=how, match_rows=match_rows
    )
    here = joined[joined.obs["region"] == "cells_1"]
    assert list(here.obs["cell_id"]) == list(elements["cells_1"].index)
    assert set(here.obs["cell_id"]) == set(fitted["cells_1"].index)
    assert_follow(here, fitted["table"])


def test_get_values_are_those_of_the_cell_with_that_id(study, fitted):
    table = fitted["table"][fitted["table"].obs["region"] == "cells_0"]
    by_id = table.obs["cell_id"].to_numpy()
    shares = sd.get_values(list(KEYS.shares), sdata=study, element_name="cells_0", table_name="table")
    np.testing.assert_array_equal(shares.loc[by_id], table.obs[list(KEYS.shares)])

    gene = table.var_names[3]
    counts = sd.get_values(gene, sdata=study, element_name="cells_0", table_name="table", table_layer="resolvi_counts")
    np.testing.assert_array_equal(counts.loc[by_id, gene], table[:, gene].layers["resolvi_counts"].toarray().ravel())

    latent = sd.get_values("X_resolvi", sdata=study, element_name="cells_0", table_name="table")
    np.testing.assert_array_equal(latent.loc[by_id], table.obsm["X_resolvi"])


def test_filter_by_table_query_on_a_share(study, fitted, assert_follow):
    from annsel import col  # a dependency of spatialdata

    median = float(fitted["table"].obs["resolvi_true"].median())
    part = sd.filter_by_table_query(study, "table", obs_expr=col("resolvi_true") > median)
    assert (part["table"].obs["resolvi_true"] > median).all()
    assert part["table"].n_obs == (fitted["table"].obs["resolvi_true"] > median).sum()
    assert_follow(part["table"], fitted["table"])


def test_concatenation_of_studies_that_were_fitted_apart(fitted):
    other = rsd.datasets.simulate_tissue(n_cells=120, n_genes=30, n_types=4, rng=1, transcripts=False)
    rsd.tl.fit(other, max_epochs=1, show_progress_bar=False)
    first = sd.SpatialData(shapes=dict(fitted.shapes), tables={"table": fitted["table"].copy()})
    both = sd.concatenate({"a": first, "b": other}, concatenate_tables=True)["table"]
    for suffix, source in (("a", fitted["table"]), ("b", other["table"])):
        part = both[both.obs["region"].str.endswith(f"-{suffix}")]
        keys = pd.MultiIndex.from_arrays([part.obs["region"].str.removesuffix(f"-{suffix}"), part.obs["cell_id"]])
        expected = pd.MultiIndex.from_frame(source.obs[["region", "cell_id"]].astype(str)).get_indexer(keys)
        assert sorted(expected) == list(range(source.n_obs))
        np.testing.assert_array_equal(part.obsm["X_resolvi"], source.obsm["X_resolvi"][expected])
        np.testing.assert_array_equal(part.obs[list(KEYS.shares)], source.obs[list(KEYS.shares)].iloc[expected])
        np.testing.assert_array_equal(
            part.layers["resolvi_counts"].toarray(), source.layers["resolvi_counts"].toarray()[expected]
        )
    # two fits are no one model, and it is said so
    with pytest.raises(KeyError, match=r"resolvi_sd\.tl\.fit"):
        rsd.tl.normalized_expression(both, copy=True, show_progress_bar=False)


def test_a_fit_of_a_part_is_joined_back_onto_the_whole(tmp_path):
    sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=30, rng=2, transcripts=False)
    sdata["table"] = sdata["table"][np.random.default_rng(0).permutation(200)].copy()
    sdata.write(tmp_path / "section.zarr")
    sdata = sd.read_zarr(tmp_path / "section.zarr")
    half = sdata["cells"].total_bounds[2:] * [0.5, 1]
    box = {"axes": ("x", "y"), "min_coordinate": [0, 0], "max_coordinate": half, "target_coordinate_system": "global"}
    part = sd.bounding_box_query(sdata, **box)
    rsd.tl.fit(part, max_epochs=2, show_progress_bar=False)

    whole, found = sdata["table"], part["table"]
    assert 10 < found.n_obs < whole.n_obs
    whole.obs[list(KEYS.shares)] = found.obs[list(KEYS.shares)]
    latent = pd.DataFrame(found.obsm["X_resolvi"], index=found.obs_names).reindex(whole.obs_names)
    whole.obsm["X_resolvi"] = latent.to_numpy()
    whole.uns["resolvi"] = found.uns["resolvi"]
    rsd.io.write_results(sdata)

    stored = sd.read_zarr(tmp_path / "section.zarr")["table"]
    inside = stored.obs_names.isin(found.obs_names)
    by_id = found.obs.set_index("cell_id")["resolvi_true"]
    ids = stored.obs["cell_id"]
    np.testing.assert_array_equal(stored.obs["resolvi_true"][inside], by_id.loc[ids[inside]])
    assert stored.obs["resolvi_true"][~inside].isna().all()
    np.testing.assert_array_equal(np.isnan(stored.obsm["X_resolvi"]).any(axis=1), ~inside)
    rows = found.obs_names.get_indexer(stored.obs_names[inside])
    np.testing.assert_array_equal(stored.obsm["X_resolvi"][inside], found.obsm["X_resolvi"][rows])


def test_a_fit_of_a_part_is_kept_as_a_table_of_its_own(tmp_path, assert_follow):
    sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=30, rng=2, transcripts=False)
    sdata.write(tmp_path / "section.zarr")
    sdata["part"] = sdata["table"][::2].copy()
    rsd.tl.fit(sdata, table_key="part", max_epochs=1, show_progress_bar=False)
    sdata.write_element("part")
    again = sd.read_zarr(tmp_path / "section.zarr")
    assert_follow(again["part"], sdata["part"])
    assert rsd.io.results_state(sdata, "part") == "complete"
    assert "X_resolvi" not in again["table"].obsm


def test_a_region_that_is_left_out_leaves_no_trace():
    sdata = rsd.datasets.simulate_tissue(n_cells=240, n_genes=30, n_samples=2, rng=3, transcripts=False)
    table = sdata["table"][np.random.default_rng(0).permutation(sdata["table"].n_obs)]
    kept = table[table.obs["region"] != "cells_0"].copy()
    sdata["kept"] = sd.SpatialData.update_annotated_regions_metadata(kept)
    alone = sd.SpatialData(shapes={"cells_1": sdata["cells_1"]}, tables={"kept": sdata["kept"].copy()})
    for data in (sdata, alone):
        rsd.tl.fit(data, table_key="kept", n_neighbors=6, max_epochs=2, show_progress_bar=False)

    found = sdata["kept"]
    assert set(found.obs["region"]) == {"cells_1"}
    places = sdata["cells_1"].centroid.loc[found.obs["cell_id"]].get_coordinates().to_numpy()
    nearest = np.sort(np.linalg.norm(places[:, None] - places[None], axis=2), axis=1)[:, 1:7]
    distances = found.obsp[KEYS.distances]
    np.testing.assert_allclose(np.sort(distances.data.reshape(-1, 6), axis=1), nearest, rtol=1e-5)
    np.testing.assert_array_equal(found.obsm[KEYS.latent], alone["kept"].obsm[KEYS.latent])
    np.testing.assert_array_equal(found.layers[KEYS.counts].toarray(), alone["kept"].layers[KEYS.counts].toarray())
    assert KEYS.latent not in sdata["table"].obsm
