"""Audit the settings that docs/own_data.md suggests for results that are not satisfactory; prints a table per section.

RESOLVI_SD_DATA=folder python benchmarks/alternatives.py
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from audit import Section, audited, cosmx, mpoa, prepared
from sections import real_data_folder

import resolvi_sd as rsd

# Arguments of a fit.
FITS: dict[str, dict[str, Any]] = {
    "default": {},
    "poisson": {"likelihood": "poisson"},
    "profile_sparsity 0.02": {"config": rsd.ModelConfig(profile_sparsity=0.02)},
    "profile_sparsity 0.04": {"config": rsd.ModelConfig(profile_sparsity=0.04)},
}
# Costs in own molecules of integer counts of the default fit.
LEVELS = (0.1, 0.15, 0.2, 0.25)
METRICS = (
    "molecules_removed",
    "leak_sensitivity",
    "own_markers_removed",
    "own_markers_removed_unexposed",
    "coexpression_rate",
    "neighbor_contamination",
    "negative_marker_purity_reads",
    "negative_marker_purity_cells",
)


def main() -> None:
    for read in (mpoa, cosmx):
        section = read(real_data_folder())
        section = section._replace(table=prepared(section.table, next(iter(section.keys.values()))))
        print(f"\n{read.__name__}\n{measured(section).to_string()}", flush=True)


def measured(section: Section) -> pd.DataFrame:
    """Return the metrics of each alternative, one row each."""
    rows = {}
    for name, settings in FITS.items():
        table = section.table.copy()
        rsd.tl.fit(table, **section.keys, **settings, show_progress_bar=False)
        rows[name] = _metrics(table, "resolvi_counts", section)
        if name == "default":
            for level in LEVELS:
                rsd.tl.decontaminated_counts(table, fpr=level, show_progress_bar=False)
                rows[f"whole, fpr {level}"] = _metrics(table, "resolvi_decontaminated", section)
    return pd.DataFrame(rows).T.round(3)


def _metrics(table: Any, layer: str, section: Section) -> pd.Series:
    result = audited(table, table.layers[layer], table.obsm["X_resolvi"], section.audit, layer)
    values = result.set_index("metric")["value"]
    return values[values.index.isin(METRICS)]


if __name__ == "__main__":
    main()
