"""Transcripts: what they must add up to, what is known of simulated ones, and cases by hand."""

import warnings

import anndata as ad
import dask.dataframe as dd
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
import spatialdata as sd
from scipy import stats
from spatialdata.models import PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, get_transformation, set_transformation

import resolvi_sd as rsd
from resolvi_sd._analysis import _transcript_columns
from resolvi_sd._analysis._transcripts import (
    Placement,
    estimate_scale,
    log_survival,
    posterior_sources,
    signed_distance,
)

SOURCES = ["resolvi_true", "resolvi_diffusion", "resolvi_background"]


@pytest.fixture(scope="module")
def _fitted():
    sdata = rsd.datasets.simulate_tissue(n_cells=400, n_genes=60, rng=0)
    rsd.tl.fit(sdata, max_epochs=40, show_progress_bar=False)
    return sdata


@pytest.fixture
def fitted(_fitted):
    """A fitted tissue of its own for each test."""
    return sd.SpatialData(
        shapes=dict(_fitted.shapes), points=dict(_fitted.points), tables={"table": _fitted.tables["table"].copy()}
    )


def with_points(sdata, frame, *, npartitions=1, feature_key="gene"):
    """The same object with other transcripts."""
    frame = frame.copy()
    frame.attrs = {}  # a store cannot hold those of spatialdata twice
    points = PointsModel.parse(dd.from_pandas(frame, npartitions=npartitions), feature_key=feature_key)
    return sd.SpatialData(shapes=dict(sdata.shapes), points={"transcripts": points}, tables=dict(sdata.tables))


def frame_of(sdata):
    return sdata.points["transcripts"].compute()


def assigned(sdata, **settings):
    return rsd.tl.assign_transcripts(sdata, copy=True, **settings).compute()


def auc(truth, score):
    """Area under the receiver operating characteristic: the Mann-Whitney statistic over the number of pairs."""
    return stats.mannwhitneyu(score[truth], score[~truth]).statistic / (truth.sum() * (~truth).sum())


def known(frame):
    return frame["resolvi_true"].notna().to_numpy()


# What they add up to


def test_without_positions_transcripts_sum_to_the_corrected_counts(fitted):
    table = fitted.tables["table"]
    frame = assigned(fitted, scale=np.inf)
    frame = frame[known(frame)]
    np.testing.assert_allclose(frame[SOURCES].sum(axis=1), 1, rtol=1e-5)
    row = table.obs["cell_id"].astype(str).reset_index(drop=True)
    row = pd.Index(row).get_indexer(frame["cell_id"].astype(str))
    gene = table.var_names.get_indexer(frame["gene"].astype(str))
    sums = sp.coo_matrix((frame["resolvi_true"].to_numpy(np.float64), (row, gene)), shape=table.shape).toarray()
    np.testing.assert_allclose(sums, table.layers["resolvi_counts"].toarray(), atol=1e-3)
    for name in SOURCES:
        share = frame.groupby(row)[name].mean()
        np.testing.assert_allclose(share, table.obs[name].to_numpy()[share.index], atol=1e-4)


def test_transcripts_without_a_cell_or_gene_of_the_table_are_unknown(fitted):
    frame = frame_of(fitted).astype({"gene": object})
    frame.loc[frame.index[:50], "gene"] = "NegControl"
    frame.loc[frame.index[50:100], "cell_id"] = "no such cell"
    found = assigned(with_points(fitted, frame), reassign=True)
    unknown = (frame["cell_id"] == "") | frame.index.isin(frame.index[:100])
    np.testing.assert_array_equal(~known(found), unknown)
    np.testing.assert_array_equal(found["resolvi_cell_id"][unknown.to_numpy()], frame["cell_id"][unknown])


def test_partitions_and_order_do_not_matter(fitted):
    frame = frame_of(fitted).reset_index(drop=True)
    order = np.random.default_rng(0).permutation(len(frame))
    mixed = frame.iloc[order].reset_index(drop=True)
    whole = assigned(with_points(fitted, frame), scale=1.5, reassign=True).iloc[order].reset_index(drop=True)
    parts = assigned(with_points(fitted, mixed, npartitions=5), scale=1.5, reassign=True)
    np.testing.assert_allclose(parts[SOURCES], whole[SOURCES], rtol=1e-4, atol=1e-6)
    assert (parts["resolvi_cell_id"] == whole["resolvi_cell_id"]).mean() > 0.9999


# Against the truth of the simulation


def test_positions_tell_own_from_foreign(fitted):
    """Areas under the curve here are 0.743 without positions and 0.812 with them, Brier scores 0.144 and 0.129."""
    quality = {}
    for name, scale in (("without", np.inf), ("with", None)):
        frame = assigned(fitted, scale=scale)
        frame = frame[known(frame)]
        own = (frame["cell_id"] == frame["true_cell_id"]).to_numpy()
        score = frame["resolvi_true"].to_numpy(np.float64)
        quality[name] = auc(own, score), np.mean((score - own) ** 2)
    assert quality["with"][0] > quality["without"][0] + 0.04
    assert quality["with"][1] < quality["without"][1] - 0.008


def test_reassigned_transcripts_are_more_often_right(fitted):
    """Of those that were moved, 14% were where they were made before, and 65% are now."""
    frame = assigned(fitted, reassign=True)
    frame = frame[known(frame)]
    moved = (frame["resolvi_cell_id"] != frame["cell_id"]).to_numpy()
    right_after = (frame["resolvi_cell_id"] == frame["true_cell_id"]).to_numpy()
    right_before = (frame["cell_id"] == frame["true_cell_id"]).to_numpy()
    assert moved.sum() > 100
    assert right_before[moved].mean() < 0.25
    assert right_after[moved].mean() > 0.5
    # Moved to background: the id that the simulation has for no cell. All others went to cells of the table.
    assert set(frame["resolvi_cell_id"]) <= set(fitted.tables["table"].obs["cell_id"].astype(str)) | {""}


# By hand


def square(x):
    return shapely.box(x, 0, x + 10, 10)


ROW = np.array([square(0), square(10), square(30)], dtype=object)


def test_signed_distance():
    places = shapely.points([[4.0, 5.0], [10.0, 5.0], [13.0, 14.0]])
    np.testing.assert_allclose(signed_distance(places, np.array([square(0)] * 3)), [-4, 0, 5])


def test_survival_is_that_of_the_laplace_distribution():
    distance = np.array([-700.0, -3.0, -1e-12, 0.0, 1e-12, 2.0, 700.0])
    np.testing.assert_allclose(log_survival(distance), stats.laplace.logsf(distance), rtol=1e-12)


def test_density_of_a_row_of_squares():
    """Foreign molecules fall off from the side that faces their cell, as exp(-x) / 0.1, however far that cell is.

    The mean over the 10 of width of exp(-x) is 0.1 (1 - exp(-10)).
    """
    candidates = np.array([[0, 1, 2]])
    places = np.array([[9.0, 5.0], [5.0, 5.0]])
    placement = Placement.measure(places, np.zeros(2, np.int64), ROW, candidates)
    density = np.exp(placement.log_density(1.0))
    np.testing.assert_allclose(density[:, 1], 10 * np.exp([-1.0, -5.0]), rtol=1e-3)
    np.testing.assert_allclose(density[:, 2], 10 * np.exp([-1.0, -5.0]), rtol=1e-3)
    # Own molecules are rarer near the border, by exp(-depth) / 2.
    assert density[0, 0] / density[1, 0] == pytest.approx((1 - np.exp(-1) / 2) / (1 - np.exp(-5) / 2))
    np.testing.assert_allclose(placement.log_density(np.inf), 0, atol=1e-12)


def test_bayes_by_hand():
    posterior, log_evidence = posterior_sources(np.array([[0.5, 0.3, 0.0, 0.2]]), np.log([[0.4, 2.0, 1e9]]))
    np.testing.assert_allclose(posterior, [[0.2, 0.6, 0.0, 0.2]])
    np.testing.assert_allclose(log_evidence, 0, atol=1e-12)


def test_a_cell_that_is_thinner_than_the_lattice():
    sliver = np.array([shapely.Polygon([(0, 0), (10, 10), (10, 10.001)]), square(20)], dtype=object)
    placement = Placement.measure(np.array([[5.0, 5.0]]), np.zeros(1, np.int64), sliver, np.array([[0, 1]]))
    assert np.isfinite(placement.log_density(1.0)).all()


def test_the_scale_is_found_again():
    """Positions drawn from the density itself: half of them own, half of the neighbor, displaced by 0.8."""
    rng = np.random.default_rng(0)
    n, scale = 20_000, 0.8
    # Uniform proposals over the square, taken with the probability that the density says.
    places = rng.uniform(0, 10, (20 * n, 2))
    depth = np.minimum(places, 10 - places).min(axis=1)
    own = places[rng.random(len(places)) < 1 - np.exp(-depth / scale) / 2][:n]
    foreign = places[rng.random(len(places)) < np.exp(-(10 - places[:, 0]) / scale)][:n]
    assert len(own) == len(foreign) == n
    both = np.concatenate([own, foreign])
    placement = Placement.measure(both, np.zeros(2 * n, np.int64), ROW, np.array([[0, 1]]))
    shares = np.tile([0.5, 0.5, 0.0], (2 * n, 1))
    assert estimate_scale(shares, placement, neighbor_distance=10.0) == pytest.approx(scale, rel=0.02)


@pytest.fixture
def three_cells(monkeypatch):
    """Cells a, b, c in a row; gene "g" is 40% own, "h" 90% background, the rest is from the nearer neighbor first."""
    table = ad.AnnData(
        sp.csr_matrix(np.full((3, 2), 4, np.float32)),
        obs=pd.DataFrame({"cell_id": list("abc"), "region": pd.Categorical(["cells"] * 3)}, index=list("abc")),
        var=pd.DataFrame(index=["g", "h"]),
    )
    rows = [
        ("a", "g", 5.0, 5.0),  # in the middle: own
        ("a", "g", 9.9, 5.0),  # at the border to b
        ("a", "h", 5.0, 5.0),  # background
        ("b", "g", 10.1, 5.0),  # at the border to a
        ("b", "g", 19.9, 5.0),  # at the border to c
        ("c", "g", 35.0, 5.0),  # own
        ("", "g", 25.0, 5.0),  # of no cell
    ]
    frame = pd.DataFrame(rows, columns=["cell_id", "gene", "x", "y"])
    sdata = sd.SpatialData(
        shapes={"cells": ShapesModel.parse(gpd.GeoDataFrame(geometry=list(ROW), index=pd.Index(list("abc"))))},
        points={
            "transcripts": PointsModel.parse(dd.from_pandas(frame, npartitions=2), feature_key="gene"),
            "others": PointsModel.parse(dd.from_pandas(frame[["x", "y"]], npartitions=1)),
        },
        tables={"table": TableModel.parse(table, region="cells", region_key="region", instance_key="cell_id")},
    )
    rsd.tl.fit(sdata, n_neighbors=2, max_epochs=1, show_progress_bar=False)

    def shares(module, tissue, rows, genes):
        return np.where(genes[:, None] == 0, [0.4, 0.35, 0.2, 0.05], [0.04, 0.04, 0.02, 0.9])

    monkeypatch.setattr(_transcript_columns, "entry_sources", shares)
    return sdata


def test_reassignment_of_three_cells(three_cells):
    frame = assigned(three_cells, scale=1.0, reassign=True)
    assert list(frame["resolvi_cell_id"]) == ["a", "b", "", "a", "c", "c", ""]
    assert frame["resolvi_true"].isna().to_list() == [False] * 6 + [True]


def test_elements_and_columns_of_before_stay(three_cells):
    before = three_cells.points["transcripts"]
    kept = before.compute()
    rsd.tl.assign_transcripts(three_cells, scale=1.0, reassign=True)
    rsd.tl.assign_transcripts(three_cells, scale=2.0)
    after = three_cells.points["transcripts"]
    # The id of the first call is gone: it is not that of the second.
    assert list(after.columns) == [*kept.columns, *SOURCES]
    pd.testing.assert_frame_equal(after.compute()[list(kept.columns)], kept)
    assert list(before.columns) == list(kept.columns)
    assert after.attrs["spatialdata_attrs"] == before.attrs["spatialdata_attrs"]
    set_transformation(after, Scale([2.0], axes=("x",)), "elsewhere")
    assert list(get_transformation(before, get_all=True)) == ["global"]


def test_other_columns_are_read_without_computing(three_cells, monkeypatch):
    rsd.tl.assign_transcripts(three_cells, scale=1.0)

    def never(self, frame):
        raise RuntimeError("computed")

    monkeypatch.setattr(_transcript_columns.SourceColumns, "__call__", never)
    assert len(three_cells.points["transcripts"][["x", "gene"]].compute()) == 7
    with pytest.raises(RuntimeError, match="computed"):
        three_cells.points["transcripts"]["resolvi_true"].compute()


# Types of ids


@pytest.mark.parametrize(
    ("of_table", "of_points", "nobody", "dtype"),
    [
        (int, "int32", -1, "int32"),
        (int, "uint32", 0, "uint32"),
        (int, "float64", np.nan, "float64"),
        (int, str, "UNASSIGNED", None),
        (str, "int64", -1, "int64"),
        (str, "category", "", None),
        (int, "category", 0, "Int64"),
    ],
)
def test_ids_of_any_type(three_cells, of_table, of_points, nobody, dtype):
    number = {"a": 11, "b": 12, "c": 13}
    ids = [of_table(value) for value in number.values()]
    table = three_cells.tables["table"].copy()
    table.obs["cell_id"] = ids
    shapes = three_cells.shapes["cells"].copy()
    shapes.index = pd.Index(ids)
    frame = frame_of(three_cells)
    values = frame["cell_id"].astype(object).map(number)
    kind = {"category": of_table}.get(of_points, of_points)
    column = values.astype("Int64").astype(object).where(values.notna(), nobody)
    column = column.astype(kind) if kind is not str else column.astype(str)
    frame["cell_id"] = column.astype("category") if of_points == "category" else column
    sdata = sd.SpatialData(shapes={"cells": shapes}, tables={"table": table})
    found = assigned(with_points(sdata, frame, npartitions=2), scale=1.0, reassign=True)["resolvi_cell_id"]
    expected = pd.Series([11, 12, nobody, 11, 13, 13, nobody], dtype=object)
    if dtype is None:
        assert pd.api.types.is_string_dtype(found.dtype)
        assert list(found) == list(expected.astype(str))
    else:
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.to_numpy(), expected.astype(dtype).to_numpy())


def test_ids_that_a_missing_value_made_floats_are_written_as_those_of_the_points(three_cells):
    number = {"a": 11, "b": 12, "c": 13}
    table, frame = three_cells.tables["table"], frame_of(three_cells)
    frame["cell_id"] = frame["cell_id"].astype(object).map(number).astype("Int64").astype("string").fillna("")
    table.obs["cell_id"], table.obs["instance"] = [float(value) for value in number.values()], list("abc")
    table.uns["spatialdata_attrs"]["instance_key"] = "instance"
    found = assigned(with_points(three_cells, frame, npartitions=2), scale=1.0, reassign=True)["resolvi_cell_id"]
    assert list(found) == ["11", "12", "", "11", "13", "13", ""]


def test_an_id_of_ones_own_for_background(three_cells):
    found = assigned(three_cells, scale=1.0, reassign=True, unassigned="nobody")
    assert found["resolvi_cell_id"].iloc[2] == "nobody"
    assert found["resolvi_cell_id"].iloc[6] == ""
    with pytest.raises(ValueError, match=r"unassigned='a'.*is the id of a cell"):
        assigned(three_cells, scale=1.0, reassign=True, unassigned="a")
    with pytest.raises(ValueError, match=r"unassigned=7 is not of the type of the ids, such as 'a'"):
        assigned(three_cells, scale=1.0, reassign=True, unassigned=7)
    with pytest.raises(ValueError, match="`unassigned` is the id of background.*pass both or neither"):
        assigned(three_cells, scale=1.0, unassigned="nobody")


# Coordinates, outlines, regions, stores


def test_positions_and_outlines_meet_in_the_coordinate_system(fitted):
    frame = frame_of(fitted)
    pixels = frame.assign(x=frame["x"] / 0.2, y=frame["y"] / 0.2)
    sdata = with_points(fitted, pixels)
    set_transformation(sdata.points["transcripts"], Scale([0.2, 0.2], axes=("x", "y")))
    expected, found = assigned(fitted, scale=1.5), assigned(sdata, scale=1.5)
    np.testing.assert_allclose(found["resolvi_true"], expected["resolvi_true"], atol=1e-3)


def test_transcripts_far_from_their_cells_are_told(fitted):
    points = frame_of(fitted)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Only .* of the transcripts")
        assigned(fitted)
        points["x"] += 10_000
        assigned(with_points(fitted, points), scale=np.inf)  # without positions, it does not matter
    with pytest.warns(
        UserWarning, match=r"Only 0% of the transcripts of 'transcripts' .* transformations of .* 'global'"
    ):
        assigned(with_points(fitted, points), scale=1.0)


def test_the_column_of_the_cells_may_be_declared(fitted):
    expected = assigned(fitted, reassign=True)
    points = frame_of(fitted).rename(columns={"cell_id": "cell_ID"})
    points.attrs = {}
    fitted.points["transcripts"] = PointsModel.parse(
        dd.from_pandas(points, npartitions=1), feature_key="gene", instance_key="cell_ID"
    )
    found = assigned(fitted, reassign=True)
    np.testing.assert_array_equal(found["resolvi_cell_ID"], expected["resolvi_cell_id"])
    fitted.points["transcripts"].attrs["spatialdata_attrs"].pop("instance_key")
    with pytest.raises(
        ValueError, match="0 of 1 points elements have a column 'cell_id', or declare another one, with"
    ):
        assigned(fitted)


def test_a_coordinate_system_may_be_renamed_after_the_fit(fitted):
    expected = assigned(fitted, scale=1.5)
    fitted.rename_coordinate_systems({"global": "slide"})
    try:
        with pytest.raises(KeyError, match="coordinate_system='global' is not in"):
            assigned(fitted, scale=1.5)
        found = assigned(fitted, scale=1.5, coordinate_system="slide")
    finally:
        fitted.rename_coordinate_systems({"slide": "global"})  # the elements are those of all tests
    np.testing.assert_allclose(found["resolvi_true"], expected["resolvi_true"])


def test_circles_are_outlines(fitted):
    polygons = fitted.shapes["cells"]
    circles = gpd.GeoDataFrame(
        {"radius": np.sqrt(polygons.area / np.pi)}, geometry=polygons.centroid, index=polygons.index
    )
    sdata = sd.SpatialData(
        shapes={"cells": ShapesModel.parse(circles)}, points=dict(fitted.points), tables=dict(fitted.tables)
    )
    frame = assigned(sdata)
    frame = frame[known(frame)]
    without = assigned(sdata, scale=np.inf)
    without = without[known(without)]
    own = (frame["cell_id"] == frame["true_cell_id"]).to_numpy()
    assert auc(own, frame["resolvi_true"].to_numpy()) > auc(own, without["resolvi_true"].to_numpy()) + 0.02


def test_two_regions_with_the_same_ids():
    sdata = rsd.datasets.simulate_tissue(n_cells=120, n_genes=20, n_samples=2, rng=0)
    # The ids of the second sample become those of the first.
    names = dict(zip(sdata.shapes["cells_1"].index, sdata.shapes["cells_0"].index, strict=True))
    sdata.shapes["cells_1"].index = sdata.shapes["cells_0"].index
    table = sdata.tables["table"]
    table.obs["cell_id"] = table.obs["cell_id"].astype(str).replace(names)
    rsd.tl.fit(sdata, max_epochs=1, show_progress_bar=False)
    of_second = {"points_key": "transcripts_0", "region": "cells_0", "scale": np.inf}
    frame = assigned(sdata, **of_second)
    assert known(frame).sum() == table.X[(table.obs["region"] == "cells_0").to_numpy()].sum()
    with pytest.raises(ValueError, match=r"must be unique.*region=\.\.\., one of: 'cells_0', 'cells_1'"):
        assigned(sdata, points_key="transcripts_0")
    with pytest.raises(ValueError, match=r"2 of 2 points elements have a column 'cell_id'.*points_key"):
        assigned(sdata)
    with pytest.raises(KeyError, match="region='nowhere'.*'cells_0'"):
        assigned(sdata, points_key="transcripts_0", region="nowhere")


def test_a_store(fitted, tmp_path):
    frame = frame_of(fitted).reset_index(drop=True)
    with_points(fitted, frame, npartitions=3).write(tmp_path / "in.zarr")
    sdata = sd.read_zarr(tmp_path / "in.zarr")
    rsd.tl.assign_transcripts(sdata, scale=1.5, reassign=True)
    assert sdata.points["transcripts"].npartitions == 3
    sdata["assigned"] = sdata.points["transcripts"]
    sdata.write_element("assigned")
    again = sd.read_zarr(tmp_path / "in.zarr")
    found = again.points["assigned"].compute()
    expected = assigned(fitted, scale=1.5, reassign=True)
    np.testing.assert_allclose(found["resolvi_true"], expected["resolvi_true"], rtol=1e-4, atol=1e-6)
    assert "resolvi_true" not in again.points["transcripts"].columns
    assert again.points["assigned"].attrs["spatialdata_attrs"]["feature_key"] == "gene"


# Bad input


def test_errors_say_what_to_do(three_cells):
    table = three_cells.tables["table"]
    with pytest.raises(ValueError, match="`scale` must be positive, not 0"):
        assigned(three_cells, scale=0)
    with pytest.raises(TypeError, match="needs points: pass a SpatialData"):
        rsd.tl.assign_transcripts(table)
    with pytest.raises(KeyError, match="no fit in"):
        assigned(three_cells, key_added="other")
    with pytest.raises(KeyError, match="points_key='nothing'.*'transcripts'"):
        assigned(three_cells, points_key="nothing")
    with pytest.raises(ValueError, match=r"0 of 2 points elements have a column 'id'.*cell_id_key"):
        assigned(three_cells, cell_id_key="id")
    with pytest.raises(KeyError, match="cell_id_key='cell_id'.*others"):
        assigned(three_cells, points_key="others")
    with pytest.raises(KeyError, match="gene_key='target'"):
        assigned(three_cells, gene_key="target")
    for column, what in (("x", "positions"), ("cell_id", "cells")):
        with pytest.raises(ValueError, match=f"gene_key='{column}' names a column with {what}"):
            assigned(three_cells, gene_key=column)
    strangers = frame_of(three_cells).assign(cell_id="x")
    with pytest.raises(ValueError, match=r"No transcript of 'transcripts'.*'x'.*'a', 'b', 'c'"):
        assigned(with_points(three_cells, strangers))
    without_feature = PointsModel.parse(dd.from_pandas(strangers, npartitions=1))
    three_cells.points["transcripts"] = without_feature
    with pytest.raises(ValueError, match="names no feature key: pass gene_key"):
        assigned(three_cells)


# Real data


def test_xenium_with_all_elements(real_data):
    """Pixels of 0.2125 micrometres, points in three dimensions, integer ids, -1 for no cell."""
    sdata = sd.read_zarr(real_data("xenium_breast_mini.zarr"))
    table = sdata.tables["table"]
    # This table came without names of its genes: they are the targets in alphabetical order.
    targets = sdata.points["transcripts"]["feature_name"].compute().cat.categories
    table.var_names = sorted(name for name in targets if not name.startswith(("BLANK", "NegControl", "antisense")))
    rsd.tl.fit(sdata, max_epochs=3, show_progress_bar=False)
    rsd.tl.assign_transcripts(sdata, reassign=True)
    frame = frame_of(sdata)
    in_table = frame["cell_id"].isin(table.obs["cell_id"]) & frame["feature_name"].isin(table.var_names)
    np.testing.assert_array_equal(known(frame), in_table)
    np.testing.assert_allclose(frame.loc[in_table, SOURCES].sum(axis=1), 1, rtol=1e-5)
    assert frame["resolvi_cell_id"].dtype == frame["cell_id"].dtype
    assert set(frame["resolvi_cell_id"]) <= set(frame["cell_id"]) | set(table.obs["cell_id"])


def test_partitions_without_transcripts_of_the_table(fitted):
    """As where points are in the order of places, and the table is of a part of them."""
    table = fitted.tables["table"]
    x = fitted.shapes["cells"].centroid.x.loc[table.obs["cell_id"].astype(str)].to_numpy()
    part = sd.SpatialData(
        shapes=dict(fitted.shapes),
        points=dict(fitted.points),
        tables={"table": table[x < np.quantile(x, 0.3)].copy()},
    )
    frame = frame_of(fitted).sort_values("x").reset_index(drop=True)
    with pytest.warns(UserWarning, match="had neighbors in the fit that are not in this table"):
        found = assigned(with_points(part, frame, npartitions=8), scale=2.0)
    known = frame["cell_id"].isin(part.tables["table"].obs["cell_id"])
    assert found.loc[known, "resolvi_true"].notna().all() and found.loc[~known, "resolvi_true"].isna().all()
    assert known.any() and not known.iloc[-len(known) // 8 :].any()


def test_a_cell_without_counts_says_nothing_of_its_transcripts(fitted):
    table = fitted.tables["table"]
    frame = frame_of(fitted)
    empty = table.obs["cell_id"].astype(str).iloc[7]
    counts = table.X.tocsr()
    counts.data[counts.indptr[7] : counts.indptr[8]] = 0
    counts.eliminate_zeros()
    table.X = counts
    found = assigned(fitted, scale=np.inf, reassign=True)
    of_it = (frame["cell_id"] == empty).to_numpy()
    assert of_it.any() and found.loc[of_it, SOURCES].isna().all().all()
    assert (found.loc[of_it, "resolvi_cell_id"].astype(str) == empty).all()
    np.testing.assert_allclose(found.loc[~of_it, SOURCES].dropna().sum(axis=1), 1, rtol=1e-5)


def test_a_table_is_no_tissue(fitted):
    with pytest.raises(TypeError, match="needs points: pass a SpatialData, not AnnData"):
        rsd.tl.assign_transcripts(fitted.tables["table"].copy())


def test_cells_are_known_by_the_column_that_more_transcripts_have(fitted):
    """Instance ids and names of cells may both be numbers from 0."""
    table, frame = fitted.tables["table"], frame_of(fitted)
    expected = assigned(fitted, scale=np.inf)["resolvi_true"]
    rng = np.random.default_rng(0)
    name, ids = table.obs["cell_id"].astype(str).to_numpy(), rng.permutation(table.n_obs)
    frame["cell"] = pd.Series(frame["cell_id"].astype(str).map(dict(zip(name, ids, strict=True))), frame.index).fillna(
        -1
    )
    shapes = fitted.shapes["cells"].loc[name].set_axis(np.arange(table.n_obs))
    table.obs["cell"], table.obs["instance"] = ids, np.arange(table.n_obs)
    table.uns["spatialdata_attrs"]["instance_key"] = "instance"
    both = sd.SpatialData(
        shapes={"cells": ShapesModel.parse(shapes)},
        points={
            "transcripts": PointsModel.parse(
                dd.from_pandas(frame.drop(columns="cell_id"), npartitions=2), feature_key="gene"
            )
        },
        tables={"table": table},
    )
    found = assigned(both, scale=np.inf, cell_id_key="cell")["resolvi_true"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["string", "Int64", "category", "category of integers"])
def test_ids_of_no_cell_may_be_missing(kind, tmp_path):
    """A comparison with pd.NA is neither true nor false, and the categories of a column lack its missing values."""
    sdata = rsd.datasets.simulate_tissue(n_cells=100, n_genes=20, rng=0)
    rsd.tl.fit(sdata, max_epochs=1, show_progress_bar=False)
    points = sdata.points["transcripts"].compute()
    missing = points["cell_id"].astype(str) == ""
    assert missing.any()
    if kind in ("Int64", "category of integers"):
        number = {name: i + 1 for i, name in enumerate(sdata["table"].obs["cell_id"])}
        ids = points["cell_id"].astype(str).map(number).astype("Int64")
        if kind != "Int64":
            ids = ids.astype(pd.CategoricalDtype(np.arange(1, 101)))
            assert pd.api.types.is_integer_dtype(ids.cat.categories.dtype)
        sdata["table"].obs["cell_id"] = np.arange(1, sdata["table"].n_obs + 1)
        sdata["cells"].index = sdata["cells"].index.map(number)
    else:
        ids = points["cell_id"].astype("string").mask(missing).astype(kind)
    points["cell_id"] = ids
    sdata.points["transcripts"] = PointsModel.parse(points, feature_key="gene", instance_key="cell_id")
    found = rsd.tl.assign_transcripts(sdata, reassign=True, copy=True).compute()
    ids = found["resolvi_cell_id"]
    assert ids.isna().to_numpy()[missing.to_numpy()].all()  # what no cell has counted stays without
    rsd.tl.assign_transcripts(sdata, reassign=True)
    sdata.write(tmp_path / "tissue.zarr")
    assert set(ids.dropna().astype(str)) <= set(sdata["table"].obs["cell_id"].astype(str))


def test_transcripts_and_cells_of_different_sections_are_refused():
    """Ids repeat in each of the objects that were put together, and each has a coordinate system of its own."""
    parts = {}
    for name, seed in (("A", 7), ("B", 8)):
        part = rsd.datasets.simulate_tissue(n_cells=60, n_genes=20, rng=seed)
        number = {cell: i for i, cell in enumerate(part["cells"].index, start=1)}
        part["cells"].index = pd.Index(range(1, 61))
        part["table"].obs["cell_id"] = np.arange(1, 61)
        frame = part["transcripts"].compute()
        frame["cell_id"] = frame["cell_id"].astype(str).map(number).fillna(0).astype(np.int64)
        part["transcripts"] = PointsModel.parse(frame, coordinates={"x": "x", "y": "y"}, feature_key="gene")
        parts[name] = part
    both = sd.concatenate(parts, concatenate_tables=True)
    rsd.tl.fit(both, max_epochs=1, show_progress_bar=False)
    assert known(assigned(both, points_key="transcripts-B", region="cells-B")).any()
    with pytest.raises(ValueError, match="'global-B'.*region='cells-A' are in 'global-A'.*different sections"):
        assigned(both, points_key="transcripts-B", region="cells-A")
