"""Simulated sections as one SpatialData object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.dataframe as dd
import geopandas as gpd
import numpy as np
import pandas as pd
import scipy.sparse as sp
import shapely
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import PointsModel, ShapesModel, TableModel

from resolvi_sd._ratio import ratio
from resolvi_sd.datasets._molecules import Molecules
from resolvi_sd.datasets._profiles import TypeProfiles, exclusive_type
from resolvi_sd.datasets._regimes import TissueRegime
from resolvi_sd.datasets._section import GeneTraits, Section

__all__ = ["Study", "to_spatialdata"]

POINTS_PER_PARTITION = 2_000_000


@dataclass(frozen=True)
class Study:
    """Everything that was simulated.

    Attributes
    ----------
    sections
        One per sample.
    batches
        Code of each sample's batch.
    profiles, genes
        Cell types and genes.
    background
        Samples × genes, rows sum to 1.
    regime
        Physical settings.
    """

    sections: list[Section]
    batches: NDArray[np.intp]
    profiles: TypeProfiles
    genes: GeneTraits
    background: NDArray[np.float64]
    regime: TissueRegime

    def element_name(self, kind: str, sample: int) -> str:
        """Return the name of a sample's element: `kind` itself if there is only one sample."""
        return kind if len(self.sections) == 1 else f"{kind}_{sample}"


def to_spatialdata(study: Study) -> SpatialData:
    """Return the study as a SpatialData object; see :func:`resolvi_sd.datasets.simulate_tissue`."""
    sizes = [len(section.polygons) for section in study.sections]
    cell_ids = np.split(_cell_ids(sizes), np.cumsum(sizes)[:-1])
    shapes, points = {}, {}
    for sample, (section, ids) in enumerate(zip(study.sections, cell_ids, strict=True)):
        outlines = gpd.GeoDataFrame({"geometry": section.polygons}, index=pd.Index(ids))
        shapes[study.element_name("cells", sample)] = ShapesModel.parse(outlines)
        if section.molecules is not None:
            name = study.element_name("transcripts", sample)
            points[name] = _points(section.molecules, ids, study.profiles.genes)
    table = _table(study, np.concatenate(cell_ids))
    regions = list(shapes)
    table = TableModel.parse(
        table, region=regions if len(regions) > 1 else regions[0], region_key="region", instance_key="cell_id"
    )
    return SpatialData(shapes=shapes, points=points, tables={"table": table})


def _cell_ids(sizes: list[int]) -> NDArray[np.object_]:
    """Return the names of all cells, unique over samples."""
    width = len(str(max(sizes) - 1))
    prefix = ["cell_"] if len(sizes) == 1 else [f"s{sample}_cell_" for sample in range(len(sizes))]
    names = [f"{start}{cell:0{width}d}" for start, size in zip(prefix, sizes, strict=True) for cell in range(size)]
    return np.array(names, dtype=object)


def _categorical(codes: NDArray[np.integer[Any]], names: list[str]) -> pd.Categorical[str]:
    """Return codes as a categorical of names without unused categories, as in a table that was read or subset."""
    return pd.Categorical.from_codes(codes, categories=pd.Index(names)).remove_unused_categories()


def _points(molecules: Molecules, cell_ids: NDArray[np.object_], genes: list[str]) -> dd.DataFrame:
    """Return the molecules as a points element; unassigned ones and background have an empty cell id."""
    # A code of -1 selects the last name.
    names = np.append(cell_ids, "")
    frame = pd.DataFrame(
        {
            "x": molecules.positions[:, 0],
            "y": molecules.positions[:, 1],
            "gene": pd.Categorical.from_codes(molecules.gene, categories=pd.Index(genes)),
            "cell_id": names[molecules.counted_by],
            "true_cell_id": names[molecules.origin],
        }
    )
    partitioned = dd.from_pandas(frame, npartitions=max(1, len(frame) // POINTS_PER_PARTITION))
    return PointsModel.parse(partitioned, feature_key="gene", instance_key="cell_id", sort=True)


def _table(study: Study, cell_ids: NDArray[np.object_]) -> AnnData:
    """Return the table of all samples with its truth."""
    counts = [section.counts for section in study.sections]
    own, leaked, background = (
        sp.vstack([getattr(section, source) for section in counts], format="csr")
        for source in ("own", "leaked", "background")
    )
    observed = own + leaked + background
    obs = _obs(study, cell_ids)
    total = np.asarray(observed.sum(axis=1), dtype=np.float64).ravel()
    for source, matrix in (("own", own), ("leaked", leaked), ("background", background)):
        molecules = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
        obs[f"true_{source}_share"] = ratio(molecules, total)
    centroids = shapely.centroid(np.concatenate([section.polygons for section in study.sections]))
    return AnnData(
        X=observed,
        obs=obs,
        var=_var(study),
        layers={
            "true_own": own,
            "true_leaked": leaked,
            "true_background": background,
            "true_profile": np.concatenate([section.expression for section in study.sections]),
        },
        obsm={"spatial": shapely.get_coordinates(centroids)},
        obsp={"true_flow": sp.block_diag([section.flow for section in counts], format="csr")},
        varm={"true_background": study.background.T.copy(), "true_type_profiles": study.profiles.expression.T.copy()},
        uns={
            "simulation": {
                "regime": study.regime.as_dict(),
                "samples": np.array([_sample_name(sample) for sample in range(len(counts))], dtype=object),
                "types": np.array(study.profiles.types, dtype=object),
            }
        },
    )


def _sample_name(sample: int) -> str:
    return f"sample_{sample}"


def _obs(study: Study, cell_ids: NDArray[np.object_]) -> pd.DataFrame:
    """Return what is known about each cell; the first column with "type" in its name is the cell type."""
    sections = study.sections
    sample = np.repeat(np.arange(len(sections)), [len(section.polygons) for section in sections])
    batches = [f"batch_{batch}" for batch in range(int(study.batches.max()) + 1)]
    regions = [study.element_name("cells", code) for code in range(len(sections))]
    domain = np.concatenate([section.layout.domains for section in sections])
    return pd.DataFrame(
        {
            "cell_id": cell_ids,
            "region": _categorical(sample, regions),
            "sample": _categorical(sample, [_sample_name(code) for code in range(len(sections))]),
            "batch": _categorical(study.batches[sample], batches),
            "cell_type": _categorical(
                np.concatenate([section.layout.types for section in sections]), study.profiles.types
            ),
            "domain": _categorical(domain, [f"domain_{code}" for code in range(int(domain.max()) + 1)]),
            "area": np.concatenate([shapely.area(section.polygons) for section in sections]),
            "gradient": np.concatenate([section.layout.gradient for section in sections]),
            "overlapping": np.concatenate([section.layout.partners >= 0 for section in sections]),
            "true_emitted": np.concatenate([section.counts.emitted for section in sections]),
        },
        index=pd.Index(cell_ids),
    )


def _var(study: Study) -> pd.DataFrame:
    """Return what is known about each gene."""
    marked = np.append(np.array(study.profiles.types, dtype=object), "")[exclusive_type(study.profiles)]
    return pd.DataFrame(
        {
            "marker_of": pd.Categorical(marked, categories=[*study.profiles.types, ""]),
            "true_dispersion": study.genes.dispersion,
            "true_leakage": study.genes.leakage,
        },
        index=pd.Index(study.profiles.genes),
    )
