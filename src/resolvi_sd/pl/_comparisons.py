"""Tables of comparisons between groups, read back for drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from resolvi_sd._analysis import JOINT, REST
from resolvi_sd._tables import read_groups
from resolvi_sd._validation import check_key, check_result, group_names, listing, warn_user
from resolvi_sd.pl._colors import BLUE, VERMILION

__all__ = [
    "DOWN",
    "NOT_CALLED",
    "UP",
    "ComparisonResult",
    "choose_comparisons",
    "read_comparisons",
    "warn_of_lost_cells",
]

# Higher and lower in the first group, and neither.
UP, DOWN, NOT_CALLED = VERMILION, BLUE, "0.72"


@dataclass(frozen=True)
class ComparisonResult:
    """Comparison of one group with another or with the rest.

    Attributes
    ----------
    group1, group2
        The groups that were compared.
    rows
        One row per gene or label, in the order of the table.
    """

    group1: str
    group2: str
    rows: pd.DataFrame

    @property
    def name(self) -> str:
        """Title of a panel."""
        return f"{self.group1} vs {self.group2}"


def read_comparisons(adata: AnnData, key: str, *, columns: Iterable[str], tool: str) -> list[ComparisonResult]:
    """Return the comparisons in `uns[key]`, in the order of the table.

    Parameters
    ----------
    adata
        The table.
    key
        Name of the result.
    columns
        Columns that it must have besides those common to all comparisons.
    tool
        The call that writes the result, for the error message.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If it lacks a column.
    """
    check_result(key, adata.uns, where="table.uns", tool=tool)
    table = adata.uns[key]
    wanted = ("groupby", "group1", "group2", "n_cells1", "n_cells2", *columns)
    missing = [name for name in wanted if name not in getattr(table, "columns", ())]
    if missing:
        raise ValueError(f"`table.uns[{key!r}]` lacks the columns {listing(missing)}. Please run `{tool}` again.")
    return [
        ComparisonResult(str(group1), str(group2), rows)
        for (group1, group2), rows in table.groupby(["group1", "group2"], observed=True, sort=False)
    ]


def choose_comparisons(
    comparisons: Sequence[ComparisonResult], group1: str | Sequence[str] | None, *, where: str
) -> list[ComparisonResult]:
    """Return the comparisons of the requested first groups, in the requested order; None for all.

    Raises
    ------
    KeyError
        If a group was not compared.
    ValueError
        If `group1` is empty.
    """
    if group1 is None:
        return list(comparisons)
    names = group_names(group1)
    known = list(dict.fromkeys(comparison.group1 for comparison in comparisons))
    if not names:
        raise ValueError(f"`group1` is empty; the groups that were compared are: {listing(known)}.")
    for name in names:
        check_key(name, known, argument="group1", where=where)
    return [comparison for name in names for comparison in comparisons if comparison.group1 == name]


def warn_of_lost_cells(adata: AnnData, comparisons: Sequence[ComparisonResult], *, key: str, tool: str) -> None:
    """Warn if the table has fewer cells of a group than were compared; cells without counts were not compared."""
    column = str(comparisons[0].rows["groupby"].iloc[0])  # the same for all comparisons
    if column not in adata.obs:
        return
    groups = read_groups(adata.obs[column])
    sizes = dict(zip(groups.names, groups.sizes().tolist(), strict=True))
    for comparison in comparisons:
        first = comparison.rows.iloc[0]
        rest = sum(sizes.values()) - sizes.get(comparison.group1, 0)
        now = {comparison.group1: 0, **sizes} | ({REST: rest} if comparison.group2 == REST else {})
        for name, then in ((comparison.group1, first["n_cells1"]), (comparison.group2, first["n_cells2"])):
            # Groups that were compared as one have no size of their own, even if another has their joint name.
            is_joint = JOINT in name and all(part in sizes for part in name.split(JOINT))
            if not is_joint and now.get(name, then) < then:
                warn_user(
                    f"`table.uns[{key!r}]` compares {then:,} cells of {name!r}, but the table has {now[name]:,}: "
                    f"cells were removed, or obs[{column!r}] has changed. Please run `{tool}` again."
                )
                return
