"""Small fitted-looking objects: hand-made results under the keys that a fit writes, on cells whose places are known."""

from __future__ import annotations

from typing import Any

import anndata as ad
import geopandas as gpd
import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
import spatialdata as sd
from spatialdata.models import Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale

from resolvi_sd._keys import Keys

GENES = ("KRT8", "PTPRC", "COL1A1", "PECAM1")
SIDE = 8  # cells per side of a square tissue
CELL = 10.0  # edge of a cell
EMPTY = 5  # the row of the one cell without counts


@pytest.fixture(autouse=True)
def close_figures() -> Any:
    """Draw off screen, and leave no figure open for the next test."""
    import matplotlib.pyplot as plt

    with matplotlib.rc_context():
        matplotlib.use("Agg")
        yield
        plt.close("all")


def write_results(adata: ad.AnnData, *, layer: str | None = None, prefix: str = "resolvi", **setup: str) -> None:
    """Write results that a fit could have written: shares that vary over the rows, and counts scaled by the own one."""
    keys = Keys(prefix)
    counts = sp.csr_matrix(adata.X if layer is None else adata.layers[layer], dtype=np.float32)
    depth = np.asarray(counts.sum(axis=1)).ravel()
    row = np.arange(adata.n_obs)
    own = 0.6 + 0.39 * (row % 17) / 16
    shares = np.column_stack([own, 0.8 * (1 - own), 0.2 * (1 - own)])
    shares[depth == 0] = np.nan
    adata.obs[list(keys.shares)] = shares
    corrected = counts.copy()
    corrected.data *= np.repeat(np.nan_to_num(own), np.diff(counts.indptr)).astype(np.float32)
    adata.layers[keys.counts] = corrected
    epoch = np.arange(1, 31)
    adata.uns[keys.model] = {
        "setup": setup if layer is None else {"layer": layer, **setup},
        "history": {
            "epoch": epoch,
            "elbo": -80.0 - 60.0 * np.exp(-epoch / 6),
            "learning_rate": 3e-3 * 0.9**epoch,
        },
    }


def make_squares(n_sections: int = 1) -> ad.AnnData:
    """Return a table of squares on a grid, section by section, `obsm["spatial"]` at their centers."""
    n_cells = SIDE * SIDE * n_sections
    rng = np.random.default_rng(0)
    x = rng.poisson(3.0, size=(n_cells, len(GENES))).astype(np.float32)
    x[EMPTY] = 0
    column, row = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    centers = CELL * (np.column_stack([column.ravel(), row.ravel()]) + 0.5)
    obs = pd.DataFrame(
        {"sample": np.repeat([f"s{i}" for i in range(n_sections)], SIDE * SIDE)},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    table = ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=list(GENES)))
    table.obsm["spatial"] = np.tile(centers, (n_sections, 1))
    return table


@pytest.fixture(name="add_results")
def add_results_fixture() -> Any:
    """The function that writes hand-made results into a table."""
    return write_results


@pytest.fixture(name="square_table")
def square_table_fixture() -> Any:
    """The function that makes a table of squares, without results."""
    return make_squares


@pytest.fixture
def adata() -> ad.AnnData:
    table = make_squares()
    write_results(table)
    return table


def square_shapes(factor: float = 1.0, scale: float = 1.0) -> gpd.GeoDataFrame:
    """Return the squares as polygons with ids 100, 101, ...; stored at `1 / scale` and transformed back by `scale`."""
    centers = make_squares().obsm["spatial"] * factor
    half = CELL * factor / 2
    boxes = shapely.box(
        (centers[:, 0] - half) / scale,
        (centers[:, 1] - half) / scale,
        (centers[:, 0] + half) / scale,
        (centers[:, 1] + half) / scale,
    )
    transform = Scale([scale, scale], axes=("x", "y"))
    return ShapesModel.parse(
        gpd.GeoDataFrame(geometry=boxes, index=np.arange(100, 100 + len(boxes))),
        transformations={"global": transform, "microns": transform},
    )


def annotate(table: ad.AnnData, regions: list[str], ids: np.ndarray) -> ad.AnnData:
    """Return the table annotating `regions`, its rows divided evenly among them."""
    table.obs["region"] = pd.Categorical(np.repeat(regions, table.n_obs // len(regions)))
    table.obs["cell_id"] = ids
    return TableModel.parse(table, region=regions, region_key="region", instance_key="cell_id")


@pytest.fixture
def sdata() -> sd.SpatialData:
    """Squares as polygons, stored at half size; the table is re-ordered, and lacks the last of the shapes."""
    table = annotate(make_squares(), ["cells"], np.arange(100, 100 + SIDE * SIDE))
    table = table[np.random.default_rng(1).permutation(SIDE * SIDE - 1)].copy()
    write_results(table)
    return sd.SpatialData.init_from_elements({"cells": square_shapes(scale=2.0), "table": table})


@pytest.fixture
def sdata_regions() -> sd.SpatialData:
    """Two regions, the second twice as large, annotated by one table."""
    table = annotate(make_squares(2), ["left", "right"], np.tile(np.arange(100, 100 + SIDE * SIDE), 2))
    write_results(table)
    return sd.SpatialData.init_from_elements(
        {"left": square_shapes(), "right": square_shapes(factor=2.0), "table": table}
    )


@pytest.fixture
def sdata_labels() -> sd.SpatialData:
    """Squares as labels 1, 2, ... row by row; the table is in the reverse order and lacks the last label."""
    labels = np.kron(np.arange(1, SIDE * SIDE + 1).reshape(SIDE, SIDE), np.ones((10, 10), dtype=int)).astype(np.uint16)
    table = annotate(make_squares(), ["mask"], np.arange(1, SIDE * SIDE + 1))
    table = table[np.arange(SIDE * SIDE - 1)[::-1]].copy()
    write_results(table)
    element = Labels2DModel.parse(labels, dims=("y", "x"), transformations={"global": Identity()})
    return sd.SpatialData.init_from_elements({"mask": element, "table": table})
