"""Results of several comparisons as one long table that can be stored."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from resolvi_sd._analysis._groups import Comparison

__all__ = ["stack_comparisons"]


def stack_comparisons(
    tables: Sequence[pd.DataFrame],
    comparisons: Sequence[Comparison],
    *,
    groupby: str,
    feature: str,
    names: Sequence[str],
) -> pd.DataFrame:
    """Stack one table per comparison, each with a row per feature.

    Parameters
    ----------
    tables
        Results, with features in the order of `names`.
    comparisons
        The comparisons.
    groupby
        Column of `obs` with the groups.
    feature
        Name of the column with the names of the features.
    names
        Names of the features.

    Returns
    -------
    Table with the columns `group1`, `group2` and `feature`, all categorical with text, those of the tables, and
    `groupby`, which is the same in all rows. The index is text.
    """
    stacked = pd.concat(tables, ignore_index=True)
    labels = {
        "group1": [c.name1 for c in comparisons for _ in names],
        "group2": [c.name2 for c in comparisons for _ in names],
        feature: [name for _ in comparisons for name in names],
    }
    for place, (column, values) in enumerate(labels.items()):
        stacked.insert(place, column, pd.Series(pd.Categorical(values, categories=list(dict.fromkeys(values)))))
    stacked["groupby"] = pd.Categorical([groupby] * len(stacked))
    return stacked.set_index(stacked.index.astype(str))
