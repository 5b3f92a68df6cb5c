"""Groups of cells, and the comparisons between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._setup import Setup
from resolvi_sd._tables import Groups, read_groups, warn_of_text_for_missing
from resolvi_sd._validation import (
    MOST_LISTED,
    check_key,
    check_no_measurement,
    group_names,
    listing,
    shortened,
    warn_user,
)

__all__ = ["JOINT", "REST", "Comparison", "cell_groups", "check_sizes", "label_groups", "make_comparisons"]

REST = "rest"
# Between the names of groups that are compared as one.
JOINT = " + "


@dataclass(frozen=True)
class Comparison:
    """Comparison of one group with one or several other groups.

    Attributes
    ----------
    first, second
        Codes of the groups.
    name1, name2
        Names of the two sides.
    """

    first: int
    second: tuple[int, ...]
    name1: str
    name2: str

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Codes of the groups of the two sides."""
        return (self.first,), self.second


def cell_groups(adata: AnnData, key: str, *, argument: str, setup: Setup | None = None) -> Groups:
    """Return the groups in a column of `obs`, ordered by category, number or text.

    Parameters
    ----------
    adata
        The table.
    key
        Column of `obs`.
    argument
        Name of the argument, for messages.
    setup
        Setup of a fit. If `key` is the column of its labels, cells that were unlabeled in the fit are in no group.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If two values are the same as text (1 and "1").

    Warns
    -----
    UserWarning
        If the name of a group looks like a missing value ("nan").
    """
    check_key(key, adata.obs.columns, argument=argument, where="table.obs")
    groups = read_groups(adata.obs[key])
    if setup is not None and key == setup.labels_key:
        groups = groups.without(setup.unlabeled_category)
    warn_of_text_for_missing(groups)
    return groups


def label_groups(adata: AnnData, key: str, setup: Setup | None = None) -> Groups:
    """Return the labels in a column of `obs`, as :func:`cell_groups` does.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no cell has a label, or if there are so many values that they must be measurements.
    """
    groups = cell_groups(adata, key, argument="labels_key", setup=setup)
    n_labels = len(groups.with_cells().names)
    if not n_labels:
        raise ValueError(f"No cell has a label in obs[{key!r}]: all values are missing.")
    check_no_measurement(n_labels, adata.n_obs, key=key, argument="labels_key")
    return groups


def make_comparisons(
    groups: Groups,
    group1: str | Sequence[str] | None,
    group2: str | Sequence[str] | None,
    *,
    among: NDArray[np.bool_],
) -> list[Comparison]:
    """Return the comparisons: each group of `group1` with all groups of `group2` combined.

    Parameters
    ----------
    groups
        The groups.
    group1
        Groups that are compared; None means each group that has two cells and is not in `group2`.
    group2
        Groups that they are compared with, combined; None means all other groups.
    among
        Mask of the cells that may be used, `(n_cells,)`.

    Raises
    ------
    KeyError
        If a group does not exist.
    ValueError
        If a group is named on both sides or has no cells, if there is nothing to compare, or if a group is named
        "rest" where that means all others.
    """
    sizes = groups.sizes(among)
    if group2 is None and REST in groups.names and sizes[groups.names.index(REST)]:
        raise ValueError(
            f"obs[{groups.key!r}] has a group named {REST!r}, which stands for all other groups in results: rename it, "
            "or name the groups to compare with, `group2=`."
        )
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
            "compared with itself; remove it from one of them."
        )
    name2 = REST if reference is None else JOINT.join(groups.names[code] for code in reference)
    comparisons = []
    for code in chosen:
        second = reference or [c for c in range(len(groups.names)) if c != code and sizes[c] > 0]
        comparisons.append(Comparison(code, tuple(second), groups.names[code], name2))
    if not comparisons or not all(comparison.second for comparison in comparisons):
        raise ValueError(
            f"There is nothing to compare: obs[{groups.key!r}] has the groups {listing(groups.names)}, and `group1` "
            "and `group2` do not leave two of them with cells."
        )
    return comparisons


def _without_single_cells(groups: Groups, chosen: list[int], sizes: NDArray[np.int64]) -> list[int]:
    """Leave out groups with a single cell, with a warning, unless these are most groups or fewer than two are left."""
    single = [groups.names[code] for code in chosen if sizes[code] == 1]
    if not single or len(chosen) - len(single) < max(2, len(single)):
        return chosen
    warn_user(f"Groups of obs[{groups.key!r}] with a single cell are not compared: {listing(single)}.")
    return [code for code in chosen if sizes[code] > 1]


def check_sizes(groups: Groups, comparisons: Sequence[Comparison], *, among: NDArray[np.bool_], kind: str) -> None:
    """Raise unless every side of a comparison has at least two cells.

    Parameters
    ----------
    groups, comparisons
        Groups, and the comparisons between them.
    among
        Mask of the cells that may be used.
    kind
        Requirement that these cells fulfill, for the message.

    Raises
    ------
    ValueError
        If groups are too small; the message lists them and says what to do.
    """
    sizes = groups.sizes(among)
    # Not looked up by name, since a group may have the same name as all others combined.
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


def _codes(groups: Groups, names: str | Sequence[str], *, argument: str) -> list[int]:
    wanted = group_names(names)
    if not wanted:
        raise ValueError(f"`{argument}` is empty: name a group of obs[{groups.key!r}], or leave it out.")
    for name in wanted:
        check_key(name, groups.names, argument=argument, where=f"table.obs[{groups.key!r}]")
    return [groups.names.index(name) for name in dict.fromkeys(wanted)]
