"""Tables of comparisons between groups, read back for drawing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from resolvi_sd._tables import column_text
from resolvi_sd._validation import check_key, check_result, group_names, listing

__all__ = ["DOWN", "NOT_CALLED", "UP", "Comparison", "choose_comparisons", "read_comparisons"]

# Higher and lower in the first group: vermilion and blue of Okabe & Ito, which color-blind eyes tell apart.
UP, DOWN, NOT_CALLED = "#d55e00", "#0072b2", "0.72"


@dataclass(frozen=True)
class Comparison:
    """One group compared with others.

    Attributes
    ----------
    group1, group2
        What was compared.
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


def read_comparisons(adata: AnnData, key: str, *, columns: Iterable[str], tool: str) -> list[Comparison]:
    """Return the comparisons in `uns[key]`, in the order of the table.

    Parameters
    ----------
    adata
        The table.
    key
        Name of the result.
    columns
        Columns that it must have beside those of all comparisons.
    tool
        The call that writes it, for the message.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If it lacks a column.

    Warns
    -----
    UserWarning
        If cells that were compared are gone.
    """
    check_result(key, adata.uns, where="table.uns", tool=tool)
    table = adata.uns[key]
    wanted = ("groupby", "group1", "group2", "n_cells1", *columns)
    missing = [name for name in wanted if name not in getattr(table, "columns", ())]
    if missing:
        raise ValueError(f"`table.uns[{key!r}]` lacks the columns {listing(missing)}. Please run `{tool}` again.")
    comparisons = [
        Comparison(str(group1), str(group2), rows)
        for (group1, group2), rows in table.groupby(["group1", "group2"], observed=True, sort=False)
    ]
    _warn_of_lost_cells(adata, key, str(table["groupby"].iloc[0]), comparisons, tool)
    return comparisons


def _warn_of_lost_cells(adata: AnnData, key: str, groupby: str, comparisons: Iterable[Comparison], tool: str) -> None:
    """Warn if a group has fewer cells than were compared; those without counts were not."""
    if groupby not in adata.obs:
        return
    now = pd.Series(column_text(adata.obs[groupby])).value_counts()
    for comparison in comparisons:
        then, left = int(comparison.rows["n_cells1"].iloc[0]), int(now.get(comparison.group1, 0))
        if left < then:
            warnings.warn(
                f"`table.uns[{key!r}]` is of cells that are gone: {then:,} of {comparison.group1!r} were compared, and "
                f"the table has {left:,}. Please run `{tool}` again.",
                UserWarning,
                stacklevel=5,
            )
            return


def choose_comparisons(
    comparisons: Sequence[Comparison], group1: str | Sequence[str] | None, *, where: str
) -> list[Comparison]:
    """Return those of the groups asked for, in the order asked for; None is all.

    Raises
    ------
    KeyError
        If a group was not compared.
    ValueError
        If no group is asked for.
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
