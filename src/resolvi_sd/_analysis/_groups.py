"""Which cells are compared with which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._tables import text_categories
from resolvi_sd._validation import (
    MOST_LISTED,
    check_key,
    check_no_measurement,
    check_unique,
    group_names,
    listing,
    shortened,
    warn_user,
)

__all__ = ["REST", "CellGroups", "Comparison", "cell_groups", "check_sizes", "label_groups", "make_comparisons"]

REST = "rest"


@dataclass(frozen=True)
class CellGroups:
    """Groups of cells, some of which may be in none.

    Attributes
    ----------
    key
        Column of `obs` that they come from.
    codes
        Group of each cell, `(n_cells,)` int64; -1 where the column has no value.
    names
        Names, in the order of the column's categories; a category without cells is one of them.
    """

    key: str
    codes: NDArray[np.int64]
    names: tuple[str, ...]

    def members(self, codes: Sequence[int], among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Rows of the cells of these groups, of those that `among` marks."""
        return np.flatnonzero(np.isin(self.codes, codes) & among)

    def sizes(self, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Cells of each group, of those that `among` marks."""
        chosen = self.codes[among & (self.codes >= 0)]
        return np.bincount(chosen, minlength=len(self.names)).astype(np.int64)


@dataclass(frozen=True)
class Comparison:
    """One group against one or several others.

    Attributes
    ----------
    first, second
        Codes of the groups.
    name1, name2
        What the two sides are called.
    """

    first: int
    second: tuple[int, ...]
    name1: str
    name2: str


def cell_groups(adata: AnnData, key: str, *, argument: str) -> CellGroups:
    """Return the groups in a column of `obs`, in the order of its categories, or of its numbers or text.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If two categories are the same text (1 and "1").
    """
    check_key(key, adata.obs.columns, argument=argument, where="table.obs")
    column = adata.obs[key]
    codes, names = text_categories(column)
    check_unique(
        pd.Index(names, dtype=object),
        what=f"Names of groups (`table.obs[{key!r}]`, read as text)",
        todo="Rename categories of it.",
    )
    return CellGroups(key, codes, names)


def label_groups(adata: AnnData, key: str) -> CellGroups:
    """Return the labels in a column of `obs`, as :func:`cell_groups` does.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no cell has a label, or its values are so many that they must be measurements.
    """
    groups = cell_groups(adata, key, argument="labels_key")
    if not (groups.codes >= 0).any():
        raise ValueError(f"No cell has a label in obs[{key!r}]: all values are missing.")
    check_no_measurement(len(np.unique(groups.codes[groups.codes >= 0])), adata.n_obs, key=key, argument="labels_key")
    return groups


def make_comparisons(
    groups: CellGroups,
    group1: str | Sequence[str] | None,
    group2: str | Sequence[str] | None,
    *,
    among: NDArray[np.bool_],
) -> list[Comparison]:
    """Return what to compare: each of `group1` with all of `group2` taken together.

    Parameters
    ----------
    groups
        The groups.
    group1
        Each of these is compared; None: each group that has two cells and is not in `group2`.
    group2
        What they are compared with, together; None: all other groups.
    among
        Cells that may be used, `(n_cells,)`.

    Raises
    ------
    KeyError
        If a group does not exist.
    ValueError
        If a group is named on both sides or has no cells, or if there is nothing to compare.
    """
    sizes = groups.sizes(among)
    reference = None if group2 is None else _codes(groups, group2, argument="group2")
    if group1 is not None:
        chosen = _codes(groups, group1, argument="group1")
    else:
        chosen = [code for code in range(len(groups.names)) if sizes[code] > 0 and code not in (reference or ())]
        chosen = _without_single_cells(groups, chosen, sizes)
    both = sorted(set(chosen) & set(reference or ()))
    if both:
        raise ValueError(
            f"Groups in both `group1` and `group2`: {listing(groups.names[code] for code in both)}. A group cannot be "
            "compared with itself; take it out of one of them."
        )
    name2 = REST if reference is None else " + ".join(groups.names[code] for code in reference)
    comparisons = []
    for code in chosen:
        second = reference or [c for c in range(len(groups.names)) if c != code and sizes[c] > 0]
        comparisons.append(Comparison(code, tuple(second), groups.names[code], name2))
    if not comparisons or not all(comparison.second for comparison in comparisons):
        raise ValueError(
            f"There is nothing to compare: obs[{groups.key!r}] has the groups {listing(groups.names)}, and `group1` "
            "and `group2` leave no two of them that have cells."
        )
    return comparisons


def _without_single_cells(groups: CellGroups, chosen: list[int], sizes: NDArray[np.int64]) -> list[int]:
    """Leave out groups with a single cell, with a warning, unless these are most groups or no two others are left."""
    single = [groups.names[code] for code in chosen if sizes[code] == 1]
    if not single or len(chosen) - len(single) < max(2, len(single)):
        return chosen
    warn_user(f"Groups of obs[{groups.key!r}] with a single cell are not compared: {listing(single)}.")
    return [code for code in chosen if sizes[code] > 1]


def check_sizes(groups: CellGroups, comparisons: Sequence[Comparison], *, among: NDArray[np.bool_], kind: str) -> None:
    """Raise unless every side of a comparison has at least two cells.

    Parameters
    ----------
    groups, comparisons
        What is compared.
    among
        Cells that may be used.
    kind
        What cells have to have to be used, for the message.

    Raises
    ------
    ValueError
        With the groups that are too small, and what to do.
    """
    sizes = groups.sizes(among)
    # Not by name: a group may be called as all others together are.
    sides = [(c.name1, int(sizes[c.first])) for c in comparisons]
    sides += [(c.name2, int(sizes[list(c.second)].sum())) for c in comparisons]
    small = dict.fromkeys(side for side in sides if side[1] < 2)
    if small:
        shown = [f"{name!r} ({size} cell{'' if size == 1 else 's'})" for name, size in small]
        doubt = " Are these groups, or measurements?" if len(shown) > MOST_LISTED else ""
        raise ValueError(
            f"Groups of obs[{groups.key!r}] with fewer than two cells {kind}: {shortened(shown)}.{doubt} "
            "Merge them with others, or name the groups to compare in `group1`."
        )


def _codes(groups: CellGroups, names: str | Sequence[str], *, argument: str) -> list[int]:
    wanted = group_names(names)
    if not wanted:
        raise ValueError(f"`{argument}` is empty: name a group of obs[{groups.key!r}], or leave it out.")
    for name in wanted:
        check_key(name, groups.names, argument=argument, where=f"table.obs[{groups.key!r}]")
    return [groups.names.index(name) for name in dict.fromkeys(wanted)]
