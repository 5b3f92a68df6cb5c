"""Audit the default fit of real sections, and scvi-tools' RESOLVI by the same metrics; writes docs/audit_results.md.

RESOLVI_SD_DATA=folder python benchmarks/audit.py --peer-python .venv-scvi/bin/python
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from exchange import BATCH, MIN_COUNTS, load
from score import HIGHEST_POWER, by_level, by_power, strength_where
from sections import real_data_folder

import resolvi_sd as rsd

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# Farther apart than any neighbors are, so that a method without sections cannot join them.
_APART = 10.0
# Layers of the table, and what they are called there.
LAYERS = {
    "raw": "raw",
    "depth_matched": "depth matched",
    "resolvi_sd": "resolvi_sd",
    "fpr_10": "resolvi_sd, whole, fpr 10%",
    "resolvi_sd/whole": "resolvi_sd, whole",
    "default": "scvi RESOLVI",
    "default/whole": "scvi RESOLVI, whole",
    "weighted": "scvi RESOLVI, own-share recipe",
    "weighted/whole": "own-share recipe, whole",
}
FPR = 0.1
# Share of own markers' molecules, in cells that cannot have received any, at which corrections are compared.
OWN_REMOVED = 0.05
_PIECE = 6000
# Of the table in the documentation; the rest is in `tl.audit`.
TITLES = {
    "molecules_removed": "molecules removed",
    "leak_sensitivity": "leaked markers removed (exposure audit)",
    "own_markers_removed": "own markers removed",
    "own_markers_removed_unexposed": "own markers removed, unexposed cells",
    "coexpression_rate": "co-expression rate of exclusive genes",
    "coexpression_odds_ratio": "odds ratio of exclusive genes",
    "neighbor_contamination": "neighbor contamination",
    "leakage_predictability": "AUC of what is nearby, above permuted",
    "negative_marker_purity_reads": "negative marker purity, reads",
    "negative_marker_purity_cells": "negative marker purity, cells",
    "reference_cosine": "cosine with scRNA-seq",
    "reference_correlation_difference": "difference of correlations from scRNA-seq",
    "latent_knn_accuracy": "label accuracy of nearest cells in the latent",
    "latent_silhouette": "silhouette of labels in the latent",
    "latent_batch_mixing": "batch mixing in the latent",
}


class Section(NamedTuple):
    """A table with cell types or clusters in `cell_type`, its sections or batches, and what its audit takes beside."""

    table: ad.AnnData
    keys: dict[str, str]
    audit: dict[str, Any]


def mpoa(folder: Path) -> Section:
    """MERFISH of the mouse preoptic area, with its single-cell reference (Moffitt et al. 2018)."""
    table = ad.read_h5ad(folder / "merfish_mpoa.h5ad")
    reference = ad.read_h5ad(folder / "merfish_mpoa_scrna.h5ad")
    names = {
        "Astrocyte": "Astrocytes",
        "Pericytes": "Mural",
        **{f"Endothelial {i}": "Endothelial" for i in (1, 2, 3)},
        **{f"OD Mature {i}": "Mature oligodendrocyte" for i in (1, 2, 3, 4)},
        **{f"OD Immature {i}": "Immature oligodendrocyte" for i in (1, 2)},
    }
    names = {name: other for name, other in names.items() if name in set(table.obs["cell_type"])}
    audit = {"reference": reference, "reference_labels_key": "cell_type", "label_map": names}
    return Section(table, {"batch_key": "sample"}, audit)


def cosmx(folder: Path) -> Section:
    """CosMx of a non-small-cell lung cancer, two fields of view (NanoString)."""
    return Section(ad.read_h5ad(folder / "cosmx_nsclc.h5ad"), {"library_key": "fov"}, {})


def pancreas(folder: Path) -> Section:
    """A piece of a Xenium section of the human pancreas (10x Genomics), by the clusters of the release."""
    table = ad.read_h5ad(folder / "xenium_pancreas.h5ad")
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS]
    from_middle = np.linalg.norm(table.obsm["spatial"] - np.median(table.obsm["spatial"], axis=0), axis=1)
    table = table[np.sort(np.argsort(from_middle)[:_PIECE])].copy()
    table.obs["cell_type"], table.obs["piece"] = table.obs["cluster"].astype(str), "middle"
    return Section(table, {"library_key": "piece"}, {})


DATA = {
    "MERFISH, mouse preoptic area": mpoa,
    "CosMx, lung cancer": cosmx,
    "Xenium, human pancreas": pancreas,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter with scvi-tools; left out without")
    parser.add_argument("--reuse-peer", action="store_true", help="take what scvi-tools found the last time")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = real_data_folder()
    sections = []
    for title, read in DATA.items():
        table, keys, settings = read(folder)
        table = prepared(table, next(iter(keys.values())))
        rsd.tl.fit(table, **keys)
        corrections = {"resolvi_sd": (table.layers["resolvi_counts"], table.obsm["X_resolvi"])}
        if options.peer_python is not None:
            corrections |= peer_corrections(table, keys.get("batch_key"), options, read.__name__)
        as_they_are, at_equal_own = [], []
        for layer, (counts, latent) in corrections.items():
            as_they_are.append(audited(table, counts, latent, settings, layer))
            for name, equal in where_own_are_removed(table, counts).items():
                at_equal_own.append(audited(table, equal, latent, settings, layer + name))
        rsd.tl.decontaminated_counts(table, fpr=FPR, show_progress_bar=False)
        whole = audited(table, table.layers["resolvi_decontaminated"], table.obsm["X_resolvi"], settings, "fpr_10")
        as_they_are.insert(1, whole)
        rsd.tl.audit(table, "cell_type", **settings)
        name = f"audit_{read.__name__}.png"
        rsd.pl.audit(table, save=DOCS / "_static" / name)
        sections.append(section(title, table, pd.concat(as_they_are), pd.concat(at_equal_own), name))
    (DOCS / "audit_results.md").write_text("\n\n".join(sections) + "\n")


def prepared(table: ad.AnnData, sections: str) -> ad.AnnData:
    """Return the cells with enough molecules, with the sections side by side."""
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS].copy()
    codes = pd.Categorical(table.obs[sections].astype(str)).codes.astype(float)
    spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)
    spatial[:, 0] += codes * _APART * np.ptp(spatial[:, 0])
    table.obsm["spatial"] = spatial
    return table


def peer_corrections(
    table: ad.AnnData, batch_key: str | None, options: argparse.Namespace, name: str
) -> dict[str, tuple[Any, Any]]:
    """Fit scvi-tools' RESOLVI to the same counts; corrected counts and latent by recipe."""
    home = HERE / "_runs"
    home.mkdir(exist_ok=True)
    data, out = home / f"audit-{name}.h5ad", home / f"audit-{name}.npz"
    batch = {} if batch_key is None else {BATCH: table.obs[batch_key].astype(str).to_numpy()}
    obs = pd.DataFrame(batch, index=table.obs_names)
    ad.AnnData(table.X, obs=obs, obsm={"spatial": table.obsm["spatial"]}).write_h5ad(data)
    if not (options.reuse_peer and out.exists()):
        command = [options.peer_python, HERE / "peer_scvi.py", data, out, "--threads", options.threads]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    _, corrected, arrays = load(out)
    for counts in corrected.values():
        counts.sort_indices()
    return {recipe: (counts, arrays["latent"]) for recipe, counts in corrected.items()}


def audited(table: ad.AnnData, counts: Any, latent: Any, settings: dict[str, Any], layer: str) -> pd.DataFrame:
    """Audit corrected counts on the neighbors of the table; raw counts and those of equal depth only for ours."""
    other = table.copy()
    other.layers["other"], other.obsm["X_resolvi"] = counts, latent
    result = rsd.tl.audit(other, "cell_type", corrected_layer="other", **settings, copy=True)
    result["layer"] = result["layer"].astype(str)
    wanted = result["layer"] == "corrected"
    if layer == "resolvi_sd":
        wanted |= result["layer"].isin(["raw", "depth_matched"])
    elif layer != "default":
        # The latent is one, whatever the counts.
        wanted &= ~result["metric"].str.startswith("latent")
    return result[wanted].replace({"layer": {"corrected": layer}})


def where_own_are_removed(table: ad.AnnData, corrected: Any) -> dict[str, Any]:
    """Return a correction made weaker or stronger until it removes `OWN_REMOVED` of own markers where none leaked.

    By a power of what it keeps, and by whole molecules; without those that never get there.
    """
    graph, genes = table.obsp["resolvi_connectivities"], list(table.var_names)
    found = {}
    for name, at, highest in (
        ("", by_power(table.X, corrected), HIGHEST_POWER),
        ("/whole", by_level(table.X, corrected), 1.0),
    ):

        def own_removed(strength: float, at: Any = at) -> float:
            audit = rsd.metrics.exposure_audit(table.X, at(strength), table.obs["cell_type"], graph, gene_names=genes)
            return audit.own_removed_unexposed

        strength = strength_where(own_removed, OWN_REMOVED, highest=highest)
        if strength is not None:
            found[name] = at(strength)
    return found


def section(title: str, table: ad.AnnData, result: pd.DataFrame, at_equal_own: pd.DataFrame, picture: str) -> str:
    """Return the part of the page on one data set."""
    note = f"{table.n_obs:,} cells × {table.n_vars} genes, {len(table.uns['resolvi']['history']['epoch'])} epochs."
    of_counts = at_equal_own[
        ~at_equal_own["metric"].str.startswith("latent") & (at_equal_own["layer"] != "depth_matched")
    ]
    parts = [
        f"## {title}",
        note,
        markdown(result),
        f"The same, with each correction made weaker or stronger until it removes {OWN_REMOVED:.0%} of own markers in "
        "unexposed cells, by a power of what it keeps or by whole molecules:",
        markdown(of_counts),
        f"![Audit of {title}](_static/{picture})",
    ]
    return "\n\n".join(parts)


def markdown(result: pd.DataFrame) -> str:
    """Return a table of the metrics, one column for each layer."""
    wide = result[result["note"] == ""].pivot_table(index="metric", columns="layer", values="value", sort=False)
    better = result.drop_duplicates("metric").set_index("metric")["better"]
    layers = [layer for layer in LAYERS if layer in wide.columns]
    head = ["metric", "better", *(LAYERS[layer] for layer in layers)]
    rows = [
        [
            TITLES[metric],
            better[metric],
            *("" if np.isnan(v) else f"{v:.3f}" for v in wide.loc[metric, layers].to_numpy(float)),
        ]
        for metric in TITLES
        if metric in wide.index
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    main()
