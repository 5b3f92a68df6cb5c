"""Audit the default fit of real sections, and scvi-tools' RESOLVI by the same metrics; writes docs/audit_results.md.

RESOLVI_SD_DATA=folder python benchmarks/audit.py --peer-python .venv-scvi/bin/python
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from exchange import MIN_COUNTS, load

import resolvi_sd as rsd

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# Farther apart than any neighbors are, so that a method without sections cannot join them.
_APART = 10.0
LAYERS = ("raw", "depth_matched", "resolvi_sd", "scvi")
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


def mpoa(folder: Path) -> tuple[ad.AnnData, dict[str, Any], dict[str, Any]]:
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
    return table, {"batch_key": "sample"}, audit


def cosmx(folder: Path) -> tuple[ad.AnnData, dict[str, Any], dict[str, Any]]:
    """CosMx of a non-small-cell lung cancer, two fields of view (NanoString)."""
    return ad.read_h5ad(folder / "cosmx_nsclc.h5ad"), {"library_key": "fov"}, {}


DATA = {"MERFISH, mouse preoptic area": mpoa, "CosMx, lung cancer": cosmx}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter with scvi-tools; left out without")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = Path(os.environ["RESOLVI_SD_DATA"])
    sections = []
    for number, (title, read) in enumerate(DATA.items()):
        table, keys, settings = read(folder)
        table = prepared(table, next(iter(keys.values())))
        rsd.tl.fit(table, **keys)
        rsd.tl.audit(table, "cell_type", **settings)
        name = f"audit_{read.__name__}.png"
        rsd.pl.audit(table, save=DOCS / "_static" / name)
        result = table.uns["resolvi_audit"].assign(
            layer=lambda rows: rows["layer"].astype(str).replace("corrected", "resolvi_sd")
        )
        if options.peer_python is not None:
            result = pd.concat([result, peer_audit(table, settings, options, number)])
        sections.append(section(title, table, result, name))
    (DOCS / "audit_results.md").write_text("\n\n".join(sections) + "\n")


def prepared(table: ad.AnnData, sections: str) -> ad.AnnData:
    """Return the cells with enough molecules, with the sections side by side."""
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS].copy()
    codes = pd.Categorical(table.obs[sections].astype(str)).codes.astype(float)
    spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)
    spatial[:, 0] += codes * _APART * np.ptp(spatial[:, 0])
    table.obsm["spatial"] = spatial
    return table


def peer_audit(table: ad.AnnData, settings: dict[str, Any], options: argparse.Namespace, number: int) -> pd.DataFrame:
    """Fit scvi-tools' RESOLVI to the same counts, and audit its corrected counts on the same neighbors."""
    home = HERE / "_runs"
    home.mkdir(exist_ok=True)
    data, out = home / f"audit-{number}.h5ad", home / f"audit-{number}.npz"
    ad.AnnData(table.X, obs=table.obs[[]], obsm={"spatial": table.obsm["spatial"]}).write_h5ad(data)
    command = [options.peer_python, HERE / "peer_scvi.py", data, out, "--threads", options.threads]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    _, corrected, arrays = load(out)
    other = table.copy()
    counts = corrected["default"]
    counts.sort_indices()
    other.layers["resolvi_counts"], other.obsm["X_resolvi"] = counts, arrays["latent"]
    result = rsd.tl.audit(other, "cell_type", **settings, copy=True)
    result = result[result["layer"] == "corrected"]
    return result.assign(layer="scvi")


def section(title: str, table: ad.AnnData, result: pd.DataFrame, picture: str) -> str:
    wide = result[result["note"] == ""].pivot_table(index="metric", columns="layer", values="value", sort=False)
    better = result.drop_duplicates("metric").set_index("metric")["better"]
    layers = [layer for layer in LAYERS if layer in wide.columns]
    head = ["metric", "better", *(layer.replace("_", " ") if layer == "depth_matched" else layer for layer in layers)]
    rows = [
        [TITLES[metric], better[metric], *("" if np.isnan(v) else f"{v:.3f}" for v in wide.loc[metric, layers])]
        for metric in TITLES
        if metric in wide.index
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    note = f"{table.n_obs:,} cells × {table.n_vars} genes, {len(table.uns['resolvi']['history']['epoch'])} epochs."
    return f"## {title}\n\n{note}\n\n" + "\n".join(lines) + f"\n\n![Audit of {title}](_static/{picture})"


if __name__ == "__main__":
    sys.exit(main())
