"""Every bad input is told what was given, what exists and what to do."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from shapely import Point
from spatialdata.models import ShapesModel

from resolvi_sd._tables import table_view


def with_value(table: ad.AnnData, value: float) -> ad.AnnData:
    table.X = table.X.copy()
    table.X.data[7] = value
    return table


def test_no_data():
    with pytest.raises(TypeError, match=r"SpatialData or an AnnData, not str. Read a store with"):
        table_view("tissue.zarr")


def test_missing_table(known):
    with pytest.raises(KeyError, match=r"table_key='cells' is not in `sdata.tables`; it has: 'table'"):
        table_view(known.sdata, table_key="cells")


def test_missing_layer(table):
    table.layers["raw"] = table.X
    with pytest.raises(KeyError, match=r"layer='counts' is not in `table.layers`; it has: 'raw'"):
        table_view(table, layer="counts")


def test_no_x(table):
    del table.X
    with pytest.raises(ValueError, match="has no X. Name the layer"):
        table_view(table)


@pytest.mark.parametrize("argument", ["batch_key", "library_key"])
def test_missing_column(table, argument):
    with pytest.raises(KeyError, match=rf"{argument}='slide' is not in `table.obs`; it has: 'sample'"):
        table_view(table, **{argument: "slide"})


@pytest.mark.parametrize("argument", ["batch_key", "library_key"])
def test_cells_without_batch(table, argument):
    table.obs["slide"] = [None, np.nan, *["a"] * 58]
    with pytest.raises(ValueError, match=rf"{argument}='slide': 2 of 60 cells have no value"):
        table_view(table, **{argument: "slide"})


def test_missing_coordinates(table):
    with pytest.raises(KeyError, match=r"spatial_key='X_umap' is not in `table.obsm`; it has: 'spatial'"):
        table_view(table, spatial_key="X_umap")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_coordinates(table, value):
    table.obsm["spatial"][[2, 9], 1] = value
    with pytest.raises(ValueError, match="2 of 60 cells have NaN or infinite coordinates"):
        table_view(table)


@pytest.mark.parametrize(
    ("stored", "error", "message"),
    [(np.zeros((60, 1)), ValueError, r"2 or 3 columns.*\(60, 1\)"), (np.full((60, 2), "1"), TypeError, "numbers")],
)
def test_strange_coordinates(table, stored, error, message):
    table.obsm["spatial"] = stored
    with pytest.raises(error, match=message):
        table_view(table)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "1 entries are NaN or infinite"),
        (np.inf, "1 entries are NaN or infinite"),
        (-1.0, "smallest value is -1"),
        (0.5, "not integers, such as 0.5"),
        (2e7, r"largest value is 2e\+07, more molecules than a cell has"),
    ],
)
def test_no_counts_name_where_counts_are(table, value, message):
    table.layers["counts"] = table.X.copy()
    table.layers["log"] = np.log1p(table.X)
    with pytest.raises(ValueError, match=rf"`table.X` must hold .*{message}.* in: layer='counts'\.$"):
        table_view(with_value(table, value))


def test_log_normalized_layer_names_x_and_raw(table):
    table.raw = table.copy()
    table.layers["log"] = np.log1p(table.X)
    with pytest.raises(ValueError, match=r"layer='log' must .* in: layer=None \(X\), `table.raw` \(copy it into"):
        table_view(table, layer="log")


def test_no_counts_anywhere(table):
    table.X = np.log1p(table.X)
    with pytest.raises(ValueError, match="No layer, X or raw of this table holds non-negative integers"):
        table_view(table)


def test_words_are_no_counts(table):
    table.layers["words"] = np.full(table.shape, "x", dtype=object)
    with pytest.raises(TypeError, match="layer='words' must hold molecule counts, but its type is object"):
        table_view(table, layer="words")


@pytest.mark.parametrize("n_cells", [0, 1])
def test_too_few_cells(table, n_cells):
    with pytest.raises(ValueError, match=rf"The table has {n_cells} cells?; at least 2"):
        table_view(table[:n_cells].copy())


def test_panel_of_one_gene(table):
    with pytest.raises(ValueError, match="The table has 1 gene; at least 2"):
        table_view(table[:, :1].copy())


def test_repeated_gene_names(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata's own
        table.var_names = ["Actb", "Actb", "c", "d", "d", "e"]
    with pytest.raises(ValueError, match=r"2 occur more than once: 'Actb', 'd'. Call `table.var_names_make_unique"):
        table_view(table)


def test_nothing_but_empty_cells(table):
    table.X = sp.csr_matrix(table.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="None of the 60 cells has any count in `table.X`"):
        table_view(table)


def test_missing_element(known):
    del known.sdata.shapes["cells1"]
    with pytest.raises(KeyError, match=r"region='cells1' is not in `sdata`; it has: 'cells0'"):
        table_view(known.sdata, coordinate_system="um")


def test_missing_coordinate_system(known):
    with pytest.raises(KeyError, match=r"coordinate_system='global' .* element 'cells0'; it has: 'um'"):
        table_view(known.sdata)


def test_ids_that_are_not_in_the_element(known):
    shapes = known.sdata.shapes["cells0"]
    used = known.sdata["table"].obs.query("region == 'cells0'")["cell"]
    gone = shapes.index.astype(str).isin(used.astype(str)[:3])
    known.sdata.shapes["cells0"] = ShapesModel.parse(shapes[~gone])
    with pytest.raises(ValueError, match=rf"3 of {len(used)} cells of region 'cells0' have an instance id that is not"):
        table_view(known.sdata, coordinate_system="um")


def test_repeated_instance_ids(known):
    table = known.sdata["table"]
    rows = np.flatnonzero(known.regions == "cells1")
    table.obs.iloc[rows[1], table.obs.columns.get_loc("cell")] = table.obs["cell"].iloc[rows[0]]
    with pytest.raises(ValueError, match=r"Instance ids \(`table.obs\['cell'\]`\) of region 'cells1' must be unique"):
        table_view(known.sdata, coordinate_system="um")


def test_repeated_ids_of_the_element(known):
    shapes = known.sdata.shapes["cells0"]
    known.sdata.shapes["cells0"] = ShapesModel.parse(pd.concat([shapes, shapes[:1]]))
    with pytest.raises(ValueError, match="Instance ids of element 'cells0' must be unique"):
        table_view(known.sdata, coordinate_system="um")


def test_missing_instance_id(known):
    known.sdata["table"].obs["cell"] = known.sdata["table"].obs["cell"].astype(object)
    known.sdata["table"].obs.iloc[4, known.sdata["table"].obs.columns.get_loc("cell")] = None
    with pytest.raises(ValueError, match=r"instance_key='cell': 1 of \d+ cells have no value"):
        table_view(known.sdata, coordinate_system="um")


def test_missing_annotation_column(known):
    del known.sdata["table"].obs["cell"]
    with pytest.raises(KeyError, match=r"instance_key.*='cell' is not in `table.obs`; it has: 'region'"):
        table_view(known.sdata, coordinate_system="um")


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
def test_regions_of_different_dimension(known):
    shapes = known.sdata.shapes["cells0"].copy()
    shapes["geometry"] = [Point(p.x, p.y, 1.0) for p in shapes.geometry]
    known.sdata.shapes["cells0"] = ShapesModel.parse(shapes)
    with pytest.raises(ValueError, match=r"\{'cells0': 3, 'cells1': 2\}"):
        table_view(known.sdata, coordinate_system="um")


def lattice(n: int) -> np.ndarray:
    """Hexagonal lattice of n × n spots with a pitch of 100, rounded to pixels, turned by ten degrees."""
    row, column = np.divmod(np.arange(n * n), n)
    places = np.c_[100.0 * (column + 0.5 * (row % 2)), 100.0 * np.sqrt(0.75) * row]
    turn = np.deg2rad(10)
    return np.rint(places @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def test_spots_on_a_lattice_warn(table):
    # A third of the spots is not under tissue.
    table.obsm["spatial"] = lattice(10)[np.random.default_rng(0).permutation(100)[:60]]
    with pytest.warns(UserWarning, match="spot data.*regular lattice.*single segmented cell"):
        table_view(table)


def test_spots_of_space_ranger_warn(table):
    table.obs[["array_row", "array_col"]] = 1
    with pytest.warns(UserWarning, match="`array_row` and `array_col`"):
        table_view(table)


def test_beads_of_slide_seq_warn(table):
    """Beads lie anywhere, but their names are barcodes; Xenium's names are letters from a to p."""
    rng = np.random.default_rng(0)
    table.obs_names = ["".join(rng.choice(list("ACGT"), 14)) for _ in range(table.n_obs)]
    with pytest.warns(UserWarning, match="spot data.*DNA barcodes.*single segmented cell"):
        table_view(table)
    table.obs_names = ["".join(rng.choice(list("abcdefghijklmnop"), 8)) + "-1" for _ in range(table.n_obs)]
    table_view(table)


@pytest.mark.parametrize("name", ["xenium_breast", "merfish_mpoa", "cosmx_nsclc", "iss_ca1"])
def test_real_cells_do_not_warn(real_data, name):
    view = table_view(ad.read_h5ad(real_data(f"{name}.h5ad")), batch_key="sample")
    assert view.has_counts.mean() > 0.9
