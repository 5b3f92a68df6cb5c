"""Stores laid out as the readers of spatialdata-io 0.7 lay them out: names, types and transformations of each.

The cells are squares of pixels at known places, so that distances are known without any of the libraries.
"""

from dataclasses import dataclass

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from geopandas import GeoDataFrame
from scipy import sparse
from shapely import MultiPolygon, box
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale

import resolvi_sd as rsd
from resolvi_sd._keys import Keys

KEYS = Keys()
GENES = [f"Gene{i}" for i in range(12)]
XENIUM_PIXEL = 0.2125  # micrometres
MERSCOPE_PIXELS = 9.259  # per micrometre
SIDE, HALF = 5, 2.5  # pixels of a cell
SIZE = 96  # pixels of a field


@dataclass
class Cells:
    """Cells of one field: middles in pixels `(n, 2)` as x and y, and counts `(n, genes)`."""

    middles: np.ndarray
    counts: np.ndarray

    def labels(self):
        """Image of the cells, numbered from 1."""
        image = np.zeros((SIZE, SIZE), dtype=np.uint32)
        for number, (x, y) in enumerate((self.middles - HALF).astype(int), start=1):
            image[y : y + SIDE, x : x + SIDE] = number
        return image

    def squares(self, scale=1.0):
        """Outlines, in pixels times `scale`."""
        return [box(*(corner * scale), *((corner + SIDE) * scale)) for corner in self.middles - HALF]


def make_cells(rng):
    """An irregular field of 64 cells of two kinds."""
    corners = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2) * 12
    corners = corners + rng.integers(0, 6, corners.shape)
    rates = np.where(rng.random(64)[:, None] < 0.5, np.linspace(0.2, 4, 12), np.linspace(4, 0.2, 12))
    return Cells(corners + HALF, rng.poisson(rates))


def transcripts(cells, columns, scale, feature_key, **options):
    """One molecule in the middle of each cell, of one gene after the other; `columns` say which cell it is."""
    x, y = (cells.middles * scale).T
    genes = pd.Categorical(np.resize(GENES, len(x)), categories=GENES)
    frame = pd.DataFrame({"x": x, "y": y, "z": np.ones(len(x)), feature_key: genes, **columns})
    return PointsModel.parse(dd.from_pandas(frame, npartitions=1), feature_key=feature_key, **options)


def xenium(rng):
    """Labels and polygons; the table annotates the labels, by their numbers; micrometres to pixels by a scale.

    Points have the names of cells. Two thirds of them are on a nucleus, and a fifth is of too low a quality to count.
    """
    cells = make_cells(rng)
    names = pd.Index([f"aaaa{i:04d}-1" for i in range(64)])
    obs = pd.DataFrame({"cell_id": names.to_numpy(), "transcript_counts": cells.counts.sum(axis=1)}, index=names)
    obs["cell_area"] = (SIDE * XENIUM_PIXEL) ** 2
    obs["region"] = pd.Categorical(["cell_labels"] * 64)
    obs["z_level"], obs["nucleus_count"] = 0.0, 1.0
    obs["cell_labels"] = np.arange(1, 65, dtype=np.int64)
    table = AnnData(sparse.csr_matrix(cells.counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES))
    table.obsm["spatial"] = cells.middles * XENIUM_PIXEL
    table = TableModel.parse(table, region="cell_labels", region_key="region", instance_key="cell_labels")
    to_pixels = {"global": Scale([1 / XENIUM_PIXEL] * 2, axes=("x", "y"))}
    squares = GeoDataFrame({"geometry": cells.squares(XENIUM_PIXEL)}, index=names.rename("cell_id"))
    polygons = ShapesModel.parse(squares, transformations=to_pixels)
    labels = Labels2DModel.parse(
        cells.labels(), dims=("y", "x"), scale_factors=[2], transformations={"global": Identity()}
    )
    molecules = {
        "cell_id": names.to_numpy(),
        "overlaps_nucleus": (np.arange(64) % 3 > 0).astype(np.uint8),
        "qv": np.where(np.arange(64) % 5 > 0, 40, 19).astype(np.float32),
    }
    to_pixels_3d = {"global": Scale([1 / XENIUM_PIXEL, 1 / XENIUM_PIXEL, 1], axes=("x", "y", "z"))}
    points = transcripts(
        cells, molecules, XENIUM_PIXEL, "feature_name", instance_key="cell_id", transformations=to_pixels_3d
    )
    sdata = sd.SpatialData(
        labels={"cell_labels": labels},
        shapes={"cell_boundaries": polygons},
        points={"transcripts": points},
        tables={"table": table},
        attrs={"spatialdata_io_reader": "xenium"},
    )
    return sdata, [cells]


def xenium_circles(rng):
    """The same with `cells_as_circles=True`: the table annotates circles, by text ids."""
    sdata, cells = xenium(rng)
    circles = ShapesModel.parse(
        sdata["table"].obsm["spatial"],
        geometry=0,
        radius=np.full(64, 0.6),
        index=sdata["table"].obs["cell_id"].copy(),
        transformations={"global": Scale([1 / XENIUM_PIXEL] * 2, axes=("x", "y"))},
    )
    sdata["cell_circles"] = circles
    sdata["table"].obs["region"] = pd.Categorical(["cell_circles"] * 64)
    sdata.set_table_annotates_spatialelement("table", "cell_circles", region_key="region", instance_key="cell_id")
    return sdata, cells


def merscope(rng):
    """Multi-polygons in micrometres with an affine; integers in `X`; an index named like the id column."""
    cells = make_cells(rng)
    ids = pd.Index([str(10**15 + i) for i in range(64)], name="EntityID")
    x, y = (cells.middles / MERSCOPE_PIXELS).T
    obs = pd.DataFrame({"fov": 0, "volume": 100.0, "center_x": x, "center_y": y}, index=ids)
    dataset = "202305010900_slide_region_0"
    table = AnnData(cells.counts, obs=obs, var=pd.DataFrame(index=GENES))
    table.obsm["blank"] = pd.DataFrame({"Blank-1": np.zeros(64, dtype=int)}, index=ids)
    table.obsm["spatial"] = obs[["center_x", "center_y"]].to_numpy()
    table.obs["region"] = pd.Categorical(["region_0"] * 64)
    table.obs["slide"] = pd.Categorical(["202305010900_slide"] * 64)
    table.obs["dataset_id"] = pd.Categorical([dataset] * 64)
    table.obs["cells_region"] = pd.Categorical([f"{dataset}_polygons"] * 64)
    table.obs["EntityID"] = table.obs.index
    table = TableModel.parse(table, region_key="cells_region", region=f"{dataset}_polygons", instance_key="EntityID")
    matrix = np.array([[MERSCOPE_PIXELS, 0, -3], [0, MERSCOPE_PIXELS, 40], [0, 0, 1]])
    to_pixels = {"global": Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))}
    squares = [MultiPolygon([square]) for square in cells.squares(1 / MERSCOPE_PIXELS)]
    points = transcripts(cells, {"cell": ids}, 1 / MERSCOPE_PIXELS, "gene", transformations=to_pixels)
    frame = GeoDataFrame({"geometry": squares, "EntityID": ids.to_numpy(), "ZIndex": 0}, index=ids)
    sdata = sd.SpatialData(
        shapes={f"{dataset}_polygons": ShapesModel.parse(frame, transformations=to_pixels)},
        points={f"{dataset}_transcripts": points},
        tables={"table": table},
        attrs={"spatialdata_io_reader": "merscope"},
    )
    return sdata, [cells]


def cosmx(rng):
    """Labels per field of view, whose ids start anew in each; one table for all; each field with its place."""
    fields = [make_cells(rng), make_cells(rng)]
    offsets = [np.zeros(2), np.array([SIZE, 0.0])]
    obs = []
    for fov, (field, offset) in enumerate(zip(fields, offsets, strict=True), start=1):
        frame = pd.DataFrame({"fov": str(fov), "fov_labels": f"{fov}_labels", "cell_ID": np.arange(1, 65)})
        frame[["x", "y"]], frame[["X", "Y"]] = field.middles, field.middles + offset
        obs.append(frame.set_index(frame["cell_ID"].astype(str) + f"_{fov}").rename_axis(None))
    obs = pd.concat(obs).astype({"fov": "category", "fov_labels": "category", "cell_ID": np.int64})
    counts = sparse.csr_matrix(np.concatenate([field.counts for field in fields]))
    table = AnnData(counts, obs=obs.drop(columns=["x", "y", "X", "Y"]), var=pd.DataFrame(index=GENES))
    table.obsm["global"], table.obsm["spatial"] = obs[["X", "Y"]].to_numpy(), obs[["x", "y"]].to_numpy()
    table = TableModel.parse(table, region=["1_labels", "2_labels"], region_key="fov_labels", instance_key="cell_ID")
    labels = {}
    for fov, (field, offset) in enumerate(zip(fields, offsets, strict=True), start=1):
        matrix = np.eye(3)
        matrix[:2, 2] = offset
        place = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
        systems = {str(fov): Identity(), "global": place, "global_only_labels": place}
        labels[f"{fov}_labels"] = Labels2DModel.parse(field.labels(), dims=("y", "x"), transformations=systems)
    sdata = sd.SpatialData(labels=labels, tables={"table": table}, attrs={"spatialdata_io_reader": "cosmx"})
    return sdata, fields


LAYOUTS = {"xenium": xenium, "xenium_circles": xenium_circles, "merscope": merscope, "cosmx": cosmx}


@pytest.fixture(params=LAYOUTS)
def stored(request, tmp_path):
    """A store in the layout of a reader, rows shuffled; the middle and the field of the cell of each row."""
    sdata, fields = LAYOUTS[request.param](np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(sdata["table"].n_obs)
    sdata.tables["table"] = sdata["table"][order].copy()
    sdata.write(tmp_path / "section.zarr")
    middles = np.concatenate([field.middles for field in fields])[order]
    return sd.read_zarr(tmp_path / "section.zarr"), middles, order // len(fields[0].middles)


def nearest(middles, field, k):
    """Sorted distances to the nearest cells of the same field, by brute force."""
    distance = np.linalg.norm(middles[:, None] - middles[None], axis=2)
    distance[field[:, None] != field[None]] = np.inf
    np.fill_diagonal(distance, np.inf)
    return np.sort(distance, axis=1)[:, :k]


def test_a_fit_of_what_a_reader_reads(stored, tmp_path):
    sdata, middles, field = stored
    table = sdata["table"]
    user = table.copy()
    rsd.io.check_writable(sdata, "table")
    rsd.tl.fit(sdata, n_neighbors=5, max_epochs=2, show_progress_bar=False)
    rsd.io.write_results(sdata, "table")

    # Distances are in the units of the coordinate system, which the readers make pixels.
    found = np.sort(table.obsp[KEYS.distances].toarray(), axis=1)[:, -5:]
    np.testing.assert_allclose(found, nearest(middles, field, 5), rtol=1e-4)

    again = sd.read_zarr(tmp_path / "section.zarr")["table"]
    assert rsd.io.results_state(sdata) == "complete"
    assert list(again.obs_names) == list(user.obs_names)
    np.testing.assert_array_equal(again.obsm[KEYS.latent], table.obsm[KEYS.latent])
    np.testing.assert_array_equal(again.layers[KEYS.counts].toarray(), table.layers[KEYS.counts].toarray())
    np.testing.assert_array_equal(again.obs[list(KEYS.shares)], table.obs[list(KEYS.shares)])
    assert again.uns["spatialdata_attrs"] == user.uns["spatialdata_attrs"]
    assert list(again.obs.columns) == [*user.obs.columns, *KEYS.shares]
    for key, column in user.obs.items():
        assert list(again.obs[key].astype(str)) == list(column.astype(str)), key
    # what was read back is whole: the model in it still works
    expected, found = (
        rsd.tl.normalized_expression(data, copy=True, show_progress_bar=False).layers[KEYS.expression]
        for data in (table, again)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_distances_of_a_reader_in_micrometres(tmp_path):
    """The same outlines in their own units: a second coordinate system without the reader's scale."""
    sdata, (cells,) = xenium_circles(np.random.default_rng(0))
    sd.transformations.set_transformation(sdata["cell_circles"], Identity(), "micrometres")
    rsd.gr.neighbors(sdata, n_neighbors=3, coordinate_system="micrometres")
    found = np.sort(sdata["table"].obsp[KEYS.distances].toarray(), axis=1)[:, -3:]
    expected = nearest(cells.middles * XENIUM_PIXEL, np.zeros(64, dtype=int), 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fields_of_view_are_sections_unless_the_table_names_others():
    sdata, _ = cosmx(np.random.default_rng(0))
    table = sdata["table"]
    across = (table.obs["fov"].to_numpy()[:, None] != table.obs["fov"].to_numpy()[None]).astype(bool)
    rsd.gr.neighbors(sdata, n_neighbors=5)
    assert not table.obsp[KEYS.connectivities].toarray()[across].any()
    # So they are in the table alone, whose coordinates may be those of each field.
    rsd.gr.neighbors(table, n_neighbors=5, spatial_key="global")
    assert not table.obsp[KEYS.connectivities].toarray()[across].any()
    table.obs["slide"] = "one"
    rsd.gr.neighbors(table, n_neighbors=5, spatial_key="global", library_key="slide")
    assert table.obsp[KEYS.connectivities].toarray()[across].any()
    found = np.sort(table.obsp[KEYS.distances].toarray(), axis=1)[:, -5:]
    np.testing.assert_allclose(found, nearest(table.obsm["global"], np.zeros(128, dtype=int), 5), rtol=1e-5)


@pytest.mark.parametrize("layout", [xenium, xenium_circles])
def test_molecules_of_xenium_find_their_cells(layout):
    """Whether the table annotates labels, by their numbers, or circles, by the names that the points have."""
    sdata, _ = layout(np.random.default_rng(0))
    sdata.tables["table"] = sdata["table"][np.random.default_rng(1).permutation(64)].copy()
    table, points = sdata["table"], sdata["transcripts"].compute()
    cell = table.obs_names.get_indexer(points["cell_id"].astype(str))
    gene = table.var_names.get_indexer(points["feature_name"].astype(str))
    rsd.tl.fit(sdata, n_neighbors=5, max_epochs=1, show_progress_bar=False)

    found = rsd.tl.assign_transcripts(sdata, scale=np.inf, copy=True).compute()
    counts, corrected = (np.asarray(matrix[cell, gene]).ravel() for matrix in (table.X, table.layers[KEYS.counts]))
    seen = counts > 0
    assert seen.sum() > 30
    # Without positions a molecule gets the shares of its entry of the counts.
    np.testing.assert_allclose(found[KEYS.true][seen], (corrected / np.maximum(counts, 1))[seen], atol=1e-3)
    with_outlines = rsd.tl.assign_transcripts(sdata, scale=1.0, reassign=True, copy=True).compute()
    np.testing.assert_allclose(with_outlines[list(KEYS.shares)].sum(axis=1), 1, rtol=1e-5)
    assert set(with_outlines["resolvi_cell_id"]) <= set(points["cell_id"]) | {""}

    expected = np.zeros(table.shape)
    expected[cell, gene] = (points["overlaps_nucleus"] == 1) & (points["qv"] >= 20)
    np.testing.assert_array_equal(rsd.metrics.nuclear_counts(sdata, quality_key="qv").toarray(), expected)


def test_molecules_of_no_cell_of_the_table_are_told_so():
    sdata, _ = xenium(np.random.default_rng(0))
    rsd.tl.fit(sdata, n_neighbors=5, max_epochs=1, show_progress_bar=False)
    sides = r"column 'cell_id' has, for example, 'aaaa0000-1'.*`table\.obs\['cell_labels'\]` has 1, 2, 3.*cell_id_key"
    del sdata["table"].obs["cell_id"]
    with pytest.raises(ValueError, match=sides):
        rsd.tl.assign_transcripts(sdata)
    with pytest.raises(ValueError, match=sides):
        rsd.metrics.nuclear_counts(sdata)


def test_objects_that_were_concatenated(tmp_path):
    """Each brings its coordinate system, under a name of its own; cells of different objects are never neighbors."""
    parts = {name: rsd.datasets.simulate_tissue(n_cells=150, n_genes=20, rng=i) for i, name in enumerate("AB")}
    expected = [rsd.gr.neighbors(part, copy=True).distances for part in parts.values()]
    both = sd.concatenate(parts, concatenate_tables=True)
    assert set(both.coordinate_systems) == {"global-A", "global-B"}
    both.write(tmp_path / "both.zarr")
    both = sd.read_zarr(tmp_path / "both.zarr")
    rsd.tl.fit(both, size_factor_key="area", distance="boundary", max_epochs=1, write=True, show_progress_bar=False)
    graph = rsd.gr.neighbors(sd.read_zarr(tmp_path / "both.zarr"), copy=True).distances
    assert abs(graph - sparse.block_diag(expected, format="csr")).max() < 1e-4
    assert len(rsd.pl.sources(both, return_ax=True)) == 6
    rsd.pl.flow(both, cell=both["table"].obs_names[0])
    assigned = rsd.tl.assign_transcripts(both, points_key="transcripts-B", region="cells-B", scale=2.0, copy=True)
    assert len(assigned) == len(both["transcripts-B"])
    with pytest.raises(KeyError, match="coordinate_system='microns' is not in the coordinate systems of element"):
        rsd.gr.neighbors(both, coordinate_system="microns", copy=True)
