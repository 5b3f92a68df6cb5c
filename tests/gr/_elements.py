"""Objects whose table annotates given outlines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import spatialdata as sd
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Affine

# Rotated by 30 degrees, three times as large, moved: gaps and borders are 3 times, areas 9 times what they were.
TURN = np.deg2rad(30)
MATRIX = np.array(
    [[3 * np.cos(TURN), -3 * np.sin(TURN), 7.0], [3 * np.sin(TURN), 3 * np.cos(TURN), -2.0], [0.0, 0.0, 1.0]]
)
SIMILAR = Affine(MATRIX, input_axes=("x", "y"), output_axes=("x", "y"))


def object_of(elements: Mapping[str, Any], ids: Mapping[str, Any]) -> sd.SpatialData:
    """Let a table annotate the instances `ids` of each element, in this order."""
    obs = pd.DataFrame(
        {
            "region": pd.Categorical([name for name, some in ids.items() for _ in some]),
            "cell": pd.Series([i for some in ids.values() for i in some]).to_numpy(),
        },
        index=[f"{name}-{i}" for name, some in ids.items() for i in some],
    )
    table = TableModel.parse(
        ad.AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs),
        region=list(ids),
        region_key="region",
        instance_key="cell",
    )
    return sd.SpatialData.init_from_elements({**elements, "table": table})


def shapes_of(geometry: Any, transformation: Any = None, **columns: Any) -> gpd.GeoDataFrame:
    """Shapes with ids 1, 2, ..."""
    frame = gpd.GeoDataFrame(columns, geometry=list(geometry), index=np.arange(1, len(geometry) + 1))
    return ShapesModel.parse(frame, transformations=None if transformation is None else {"global": transformation})


def grid(n: int, side: float, gap: float) -> list[Any]:
    """n × n squares, row by row."""
    pitch = side + gap
    return [shapely.box(x, y, x + side, y + side) for y in pitch * np.arange(n) for x in pitch * np.arange(n)]


def blobs() -> list[Any]:
    """80 outlines of any shape: round, elongated, overlapping, touching, with and without corners in common."""
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 60, (60, 2))
    angles = np.sort(rng.uniform(0, 2 * np.pi, (60, 12)), axis=1)
    reach = rng.uniform(1, 6, (60, 12))
    stars = [
        shapely.Polygon(place + length[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]))
        for place, length, angle in zip(places, reach, angles, strict=True)
    ]
    lines = [
        shapely.LineString(rng.uniform(0, 60, 2) + np.array([[0, 0], rng.uniform(-25, 25, 2)])).buffer(0.3)
        for _ in range(11)
    ]
    return [*(star.buffer(0) for star in stars if star.is_valid), *lines, *grid(3, 4, 0)]
