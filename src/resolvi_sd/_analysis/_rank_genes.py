"""Differential expression in the layout of `scanpy.tl.rank_genes_groups`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from resolvi_sd._ratio import ratio

__all__ = ["rank_genes_groups"]

_METHOD = "posterior of group means, decision rule of lvm-DE"
_TYPES = {
    "names": "O",
    "scores": "float32",
    "logfoldchanges": "float32",
    "pvals": "float64",
    "pvals_adj": "float64",
}


def rank_genes_groups(table: pd.DataFrame, *, groupby: str, layer: str | None) -> dict[str, Any]:
    """Return the entry that scanpy's plots and getters read, with the genes sorted by decreasing score.

    Parameters
    ----------
    table
        Result of :func:`resolvi_sd.tl.differential_expression`.
    groupby
        Column of `obs` with the groups.
    layer
        Layer shown in plots of expression; None means X.

    Returns
    -------
    `params`, and record arrays with one field per group: `names`, `scores` (mean of the log fold change divided by its
    standard deviation), `logfoldchanges` (mean), `pvals` (1 - `proba_de`) and `pvals_adj` (`expected_fdr`).
    """
    columns: dict[str, dict[str, Any]] = {name: {} for name in _TYPES}
    for group, rows in table.groupby("group1", observed=True, sort=False):
        spread = rows["lfc_std"].to_numpy()
        mean = rows["lfc_mean"].to_numpy()
        score = ratio(mean, spread, otherwise=0.0)
        order = np.argsort(-score, kind="stable")
        values = {
            "names": rows["gene"].astype(str).to_numpy(dtype=object),
            "scores": score,
            "logfoldchanges": mean,
            "pvals": 1 - rows["proba_de"].to_numpy(),
            "pvals_adj": rows["expected_fdr"].to_numpy(),
        }
        for name, value in values.items():
            columns[name][str(group)] = value[order]
    reference = str(table["group2"].iloc[0])
    params: dict[str, Any] = {"groupby": groupby, "reference": reference, "method": _METHOD, "use_raw": False}
    params |= {"corr_method": "posterior expected FDR"} | ({} if layer is None else {"layer": layer})
    return {"params": params} | {name: _records(columns[name], kind) for name, kind in _TYPES.items()}


def _records(columns: dict[str, Any], kind: str) -> Any:
    return np.rec.fromarrays(
        [np.asarray(column, dtype=kind) for column in columns.values()],
        dtype=np.dtype([(name, kind) for name in columns]),
    )
