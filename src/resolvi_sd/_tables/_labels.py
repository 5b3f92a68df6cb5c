"""Labels of cells, some of which may be unlabeled."""

from __future__ import annotations

from anndata import AnnData

from resolvi_sd._tables._groups import Groups, read_groups
from resolvi_sd._validation import check_key, listing, warn_user

__all__ = ["read_labels", "warn_of_text_for_missing"]

# Default value of cells without a label.
_UNLABELED = "unknown"

# What missing values become as text.
_NO_VALUE = {"", "<NA>", "nan", "NaN", "NaT", "None"}
# Compared without regard to case. The code of pandas for missing values, and of clusterings for noise, is -1.
_NO_LABEL = {"unassigned", "unknown", "unlabeled", "unlabelled", "-1"}
_PLACEHOLDERS = {"", "<na>", "na", "n/a", "nan", "none", "null", *_NO_LABEL}


def warn_of_text_for_missing(groups: Groups) -> None:
    """Warn about groups whose names are what missing values become as text ("nan", "None")."""
    found = [name for name in groups.with_cells().names if name.strip() in _NO_VALUE]
    if found:
        warn_user(
            f"obs[{groups.key!r}] has values that look like missing ones that were turned into text, but are groups: "
            f"{listing(found)}. If these cells are in no group, set theirs to NaN."
        )


def read_labels(adata: AnnData, labels_key: str, unlabeled_category: str) -> Groups:
    """Return the labels in a column of `obs`; NaN and `unlabeled_category` (text or number) mean unlabeled.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If fewer than two labels occur.

    Warns
    -----
    UserWarning
        If a label has a single cell, or looks like a placeholder for a missing label ("nan", "Unknown", -1).
    """
    check_key(labels_key, adata.obs.columns, argument="labels_key", where="table.obs")
    groups = read_groups(adata.obs[labels_key]).with_cells()
    labels = groups.without(unlabeled_category)
    names = labels.names
    if unlabeled_category not in {_UNLABELED, *_NO_VALUE} and len(names) == len(groups.names):
        warn_user(
            f"unlabeled_category={unlabeled_category!r} does not occur in obs[{labels_key!r}]: all cells with a value "
            f"count as labeled. Values: {listing(groups.names)}."
        )
    if len(names) < 2:
        raise ValueError(
            f"labels_key={labels_key!r} has {len(names)} labels besides NaN and unlabeled_category="
            f"{unlabeled_category!r}, and at least two are needed. Values: {listing(groups.names)}."
        )
    placeholders = [name for name in names if name.strip().lower() in _PLACEHOLDERS]
    if placeholders:
        warn_user(
            f"obs[{labels_key!r}] has labels that look like placeholders for missing ones, but count as cell types: "
            f"{listing(placeholders)}. If these cells have no label, set theirs to NaN, or pass unlabeled_category=."
        )
    single = [name for name, size in zip(names, labels.sizes(), strict=True) if size == 1]
    if single:
        warn_user(
            f"Labels with a single cell in obs[{labels_key!r}], too few to learn from: {listing(single)}. Merge them "
            f"with others, or set them to {unlabeled_category!r}."
        )
    return labels
