"""A store of two overlapping regions, whose rows are filtered and shuffled and whose coordinates go through a map."""

from __future__ import annotations

from dataclasses import dataclass

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from shapely import Point
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Affine

# x' = 0.5 x + 0.1 y + 3, y' = 2 y - 7
MAP = np.array([[0.5, 0.1, 3.0], [0.0, 2.0, -7.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Known:
    """A store and what must come out of it."""

    sdata: sd.SpatialData
    coordinates: np.ndarray
    regions: np.ndarray


def make_counts(n_cells: int, n_genes: int = 6) -> sp.csr_matrix:
    rng = np.random.default_rng(5)
    return sp.csr_matrix(rng.poisson(1.0, (n_cells, n_genes)).astype(np.float32))


@pytest.fixture
def table() -> ad.AnnData:
    """60 cells at random places, with coordinates of their own and two samples."""
    rng = np.random.default_rng(1)
    adata = ad.AnnData(make_counts(60), obsm={"spatial": rng.uniform(0, 100, (60, 2))})
    adata.obs["sample"] = pd.Categorical(np.repeat(["b", "a", "c"], 20), categories=["b", "a", "unused", "c"])
    return adata


@pytest.fixture(params=["string ids", "integer ids", "ids of two types"])
def known(request: pytest.FixtureRequest) -> Known:
    """Two regions at the same place; the table has 80 % of their cells, in random order."""
    rng = np.random.default_rng(0)
    shapes, rows = {}, []
    for j, n in enumerate((50, 40)):
        places = rng.uniform(0, 100, (n, 2))
        # The same ids in both regions, in an order that is not that of the table.
        ids = rng.permutation(np.arange(1, n + 1))
        index = pd.Index([f"cell-{i}" for i in ids] if request.param == "string ids" else ids)
        frame = gpd.GeoDataFrame({"radius": np.ones(n)}, geometry=[Point(*p) for p in places], index=index)
        shapes[f"cells{j}"] = ShapesModel.parse(
            frame, transformations={"um": Affine(MAP, input_axes=("x", "y"), output_axes=("x", "y"))}
        )
        rows += [(f"cells{j}", i, *p) for i, p in zip(index, places, strict=True)]
    obs = pd.DataFrame(rows, columns=["region", "cell", "x", "y"]).sample(frac=0.8, random_state=1)
    if request.param == "ids of two types":
        obs["cell"] = obs["cell"].astype(str)
    places = obs[["x", "y"]].to_numpy() @ MAP[:2, :2].T + MAP[:2, 2]
    regions = obs["region"].to_numpy(dtype=object)
    obs.index = [f"row{i}" for i in range(len(obs))]
    obs["region"] = obs["region"].astype("category")
    adata = TableModel.parse(
        ad.AnnData(make_counts(len(obs)), obs=obs[["region", "cell"]]),
        region=["cells0", "cells1"],
        region_key="region",
        instance_key="cell",
    )
    return Known(sd.SpatialData(shapes=shapes, tables={"table": adata}), places, regions)
