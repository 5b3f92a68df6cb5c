"""Plot of the leakage between cell types, and of the genes that leaked most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_names, check_positive_int, check_result, listing
from resolvi_sd.pl._alluvial import draw_alluvial
from resolvi_sd.pl._colored_groups import Palette, name_colors, read_colored_groups
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._draw import ColorScale
from resolvi_sd.pl._figures import (
    check_figure,
    finish_figure,
    given_axes,
    label_inches,
    panel_titles,
    scaled,
    settle_figure,
    title_panels,
    wrapped,
)
from resolvi_sd.pl._panels import add_colorbar
from resolvi_sd.pl._results import warn_of_other_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

__all__ = ["leakage"]

_VALUES = {
    "per_cell": "molecules per cell of the target",
    "fraction": "% of the molecules in the target's cells",
    "molecules": "molecules",
}
_COLUMNS = {
    "pairs": ("source", "target", "molecules", "fraction", "per_cell"),
    "genes": ("source", "target", "gene", "molecules", "fraction"),
}
_TITLES = {"heatmap": "from (row) into (column)", "flow": "all leaked molecules", "genes": "most leaked genes"}
# Ratio of the largest to the median value from which colors are on a log scale, and the decades that the scale shows.
_LOG_FROM, _DECADES = 10.0, 3.0
# More types than this leave no room for numbers.
_MOST_NUMBERS = 16
# In inches: a row and a column of the heatmap, the margins around them besides the names, the widths of the other
# panels besides the names, the smallest height of a panel, a row of the genes, the smallest room for names, and a line.
_CELL, _AROUND, _FLOW, _GENES, _LEAST_HEIGHT, _ROW, _LEAST_NAME, _LINE = 0.31, 1.0, 1.9, 1.8, 2.2, 0.13, 1.0, 0.15
# Bold letters relative to others.
_BOLD = 1.1
# Names longer than this, in inches, take two lines, for which there is room in a row.
_MOST_NAME = 2.0
# Rows between the genes of two pairs, including the name of the second pair.
_GAP = 1.4
_FONTSIZE = 8.3  # "small"


@shared_docs
def leakage(
    data: SpatialData | AnnData,
    *,
    value: str = "per_cell",
    kind: str | Sequence[str] = ("heatmap", "flow", "genes"),
    own_type: bool = False,
    n_pairs: int = 5,
    n_genes: int = 4,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    palette: Palette | None = None,
    cmap: str | Colormap = "viridis",
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw how many molecules leaked between each pair of cell types, and which genes leaked most.

    The panels are:

    - `"heatmap"`: each source (row) and target (column), on a log scale if a few pairs are far above the others;
    - `"flow"`: bands from the sources on the left to the targets on the right, in the color of the source and with
      widths proportional to the number of molecules, summed over all cells;
    - `"genes"`: the genes that leaked most, for the pairs of types with the most leakage by `value`, in the color of
      the source. Bars show the share of the gene's molecules counted in the cells of the target that leaked from the
      cells of the source, and the numbers show how many molecules these are.

    Parameters
    ----------
    {data}
        :func:`resolvi_sd.tl.leakage` must also have been run.
    value
        What the heatmap shows and how pairs are ranked: `"per_cell"`, the expected number of leaked molecules per cell
        of the target; `"fraction"`, their percentage of all molecules counted in these cells; or `"molecules"`, their
        number.
    kind
        Panels to draw, in this order.
    own_type
        Whether to also draw molecules from other cells of the same type, which do not make a cell look like another
        type. These are framed in the heatmap.
    n_pairs, n_genes
        Number of pairs of types, and maximum number of genes for each pair, which cannot exceed the number of genes
        that :func:`resolvi_sd.tl.leakage` kept.
    {table}
    {axes}
    {palette}
        Types without cells in the table are gray.
    cmap
        Colormap of the heatmap.
    {end}

    Returns
    -------
    The axes, one per panel, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table or the result does not exist.
    ValueError
        If `value` or `kind` is unknown, nothing leaked, or there is a wrong number of axes, titles or colors.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    >>> rsd.tl.leakage(sdata, "cell_type", show_progress_bar=False)
    >>> axes = rsd.pl.leakage(sdata, kind=["heatmap", "flow"], return_ax=True)
    >>> axes[0].get_ylabel(), axes[0].get_xlabel()
    ('source', 'target')
    """
    kinds = (kind,) if isinstance(kind, str) else check_names(kind, argument="kind")
    _check_choice(value, kinds)
    check_positive_int(n_pairs, argument="n_pairs")
    check_positive_int(n_genes, argument="n_genes")
    result = _read(resolve_table(data, table_key), Keys(key_added), own_type=own_type, palette=palette)
    check_figure(figsize, save)
    names = [_TITLES[name] for name in kinds]
    titles = panel_titles(names, title)
    strongest = result.strongest(value, n_pairs, n_genes)
    shown = [_in_two_lines(name) for name in result.names]
    scale = _color_scale(result.matrix(value), cmap, _VALUES[value])
    axes = _make_axes(kinds, shown, strongest, figsize) if ax is None else given_axes(ax, names)
    title_panels(axes, titles, title, fontsize="medium")
    for panel, name in zip(axes, kinds, strict=True):
        if name == "heatmap":
            _draw_heatmap(panel, result.matrix(value), shown, scale)
        elif name == "genes":
            _draw_genes(panel, result, strongest)
        else:
            _write_total(panel, result)
    if "flow" in kinds:
        settle_figure(axes)  # settles the height of the panel, which its names need to know
        panel = axes[kinds.index("flow")]
        draw_alluvial(panel, np.nan_to_num(result.matrix("molecules")), shown, result.colors)
    finish_figure(axes, save)
    return axes if return_ax else None


@dataclass(frozen=True)
class _Leakage:
    """Result for drawing: the pairs and genes to draw, and the types with their colors, `(n, 4)`."""

    pairs: pd.DataFrame
    genes: pd.DataFrame
    names: tuple[str, ...]
    colors: NDArray[np.float64]

    def matrix(self, value: str) -> NDArray[np.float64]:
        """Return a column of the pairs, sources × targets, with NaN for pairs that are not drawn."""
        table = self.pairs.pivot(index="source", columns="target", values=value)
        matrix = table.reindex(index=self.names, columns=self.names).to_numpy(dtype=np.float64)
        return 100 * matrix if value == "fraction" else matrix

    def strongest(self, value: str, n_pairs: int, n_genes: int) -> list[pd.DataFrame]:
        """Return the most leaked genes of each of the pairs with the most leakage, in this order."""
        named = self.pairs.merge(self.genes[["source", "target"]].drop_duplicates())
        chosen = []
        for pair in named.nlargest(n_pairs, value).itertuples():
            genes = self.genes[(self.genes["source"] == pair.source) & (self.genes["target"] == pair.target)]
            chosen.append(genes.nlargest(n_genes, "molecules"))
        return chosen


def _check_choice(value: str, kinds: Sequence[str]) -> None:
    if value not in _VALUES:
        raise ValueError(f"`value` must be one of {listing(_VALUES)}, not {value!r}.")
    if not kinds:
        raise ValueError(f"`kind` is empty; the panels are {listing(_TITLES)}.")
    for name in kinds:
        if name not in _TITLES:
            raise ValueError(f"`kind` must be one or more of {listing(_TITLES)}, not {name!r}.")


def _read(adata: AnnData, keys: Keys, *, own_type: bool, palette: Palette | None) -> _Leakage:
    tool = keys.call("leakage")
    check_result(keys.leakage, adata.uns, where="table.uns", tool=tool)
    entry = adata.uns[keys.leakage]
    tables = {}
    for name, columns in _COLUMNS.items():
        missing = [column for column in columns if column not in getattr(entry.get(name), "columns", ())]
        if missing:
            raise ValueError(
                f"`table.uns[{keys.leakage!r}][{name!r}]` lacks the columns {listing(missing)}. Please run `{tool}` "
                "again."
            )
        table = pd.DataFrame(entry[name]).astype({"source": str, "target": str})
        tables[name] = table if own_type else table[table["source"] != table["target"]]
    what = f"The leakage in `table.uns[{keys.leakage!r}]`"
    warn_of_other_cells(adata, int(entry["n_cells"]), what=what, tool=tool)
    pairs = tables["pairs"]
    if not pairs["molecules"].sum() > 0:
        hint = "" if own_type else " between different types; `own_type=True` draws the leakage within types"
        raise ValueError(f"`table.uns[{keys.leakage!r}]`: no molecule leaked{hint}.")
    names = _types(entry["pairs"])
    key = str(entry["labels_key"])
    if key in adata.obs:
        groups = read_colored_groups(adata, key, argument="labels_key", palette=palette)
        color = dict(zip(groups.names, groups.colors, strict=True))
    else:  # the column is not in the store that the results were read from
        color = dict(zip(names, name_colors(names, palette, key=key), strict=True))
    gray = np.array([0.6, 0.6, 0.6, 1.0])
    return _Leakage(pairs, tables["genes"], names, np.array([color.get(name, gray) for name in names]))


def _in_two_lines(name: str) -> str:
    """Return a name, in two lines if it is long."""
    half = 0.65 * label_inches([name], fontsize=_FONTSIZE)
    return wrapped(name, max(_MOST_NAME, half), fontsize=_FONTSIZE)


def _types(pairs: pd.DataFrame) -> tuple[str, ...]:
    """Return the types that had cells, in their order; the leakage per cell is unknown for the other types."""
    return tuple(str(name) for name in pairs.loc[pairs["per_cell"].notna(), "target"].unique())


def _make_axes(
    kinds: Sequence[str],
    names: Sequence[str],
    strongest: Sequence[pd.DataFrame],
    figsize: tuple[float, float] | None,
) -> list[Axes]:
    import matplotlib.pyplot as plt

    longest = label_inches(names, fontsize=_FONTSIZE)
    heatmap, room = _CELL * len(names), max(longest, _LEAST_NAME)
    genes = label_inches([str(name) for table in strongest for name in table["gene"]], fontsize=_FONTSIZE)
    headings = _BOLD * label_inches([_heading(table) for table in strongest], fontsize=_FONTSIZE)
    sizes = {
        "heatmap": heatmap + _AROUND + room,
        "flow": _FLOW + 2 * room,
        "genes": max(genes, _LEAST_NAME) + max(headings, _GENES),
    }
    widths = [sizes[name] for name in kinds]
    n_rows = sum(len(table) + _GAP for table in strongest)
    n_lines = sum(name.count("\n") + 1 for name in names)
    heights = {"heatmap": heatmap * 0.8, "flow": max(_LINE * n_lines, _LEAST_HEIGHT), "genes": _ROW * n_rows}
    height = max(heights[name] for name in kinds) + _AROUND + (room if "heatmap" in kinds else _LEAST_NAME)
    figure, axes = plt.subplots(
        1, len(kinds), figsize=figsize or scaled(sum(widths), height), width_ratios=widths, squeeze=False
    )
    figure.set_layout_engine("constrained", w_pad=0.12)
    return list(axes.ravel())


def _draw_heatmap(ax: Axes, matrix: NDArray[np.float64], shown: Sequence[str], scale: ColorScale) -> None:
    from matplotlib.patches import Rectangle

    positive = np.maximum(matrix, scale.norm.vmin or 0.0)  # a log scale cannot show zero
    ax.imshow(positive, cmap=scale.cmap, norm=scale.norm, aspect="auto", interpolation="nearest")
    places = np.arange(len(shown))
    for place in places:
        if np.isnan(matrix[place, place]):
            ax.plot([place - 0.5, place + 0.5], [place - 0.5, place + 0.5], color=gray(0.6), linewidth=0.8)
        else:
            corner = (place - 0.46, place - 0.46)  # a frame at the border would be cut
            ax.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="white", linewidth=1.5))
    if len(places) <= _MOST_NUMBERS:
        _write_numbers(ax, matrix, scale)
    ax.set_xticks(places, shown, rotation=90, fontsize="small")
    ax.set_yticks(places, shown, fontsize="small")
    ax.set(xlabel="target", ylabel="source", xlim=(-0.5, len(places) - 0.5), ylim=(len(places) - 0.5, -0.5))
    add_colorbar([ax], scale)


def _color_scale(matrix: NDArray[np.float64], cmap: str | Colormap, label: str) -> ColorScale:
    """Return a scale from zero, or a logarithmic one if the largest value would leave other values without color."""
    from matplotlib.colors import LogNorm

    found = matrix[matrix > 0]
    high = float(found.max()) if found.size else 1.0
    scale = ColorScale.of(matrix, cmap, (0.0, high), label)
    if not found.size or high < _LOG_FROM * float(np.median(found)):
        return scale
    low = max(float(found.min()), high * 10**-_DECADES)
    return ColorScale(scale.cmap, LogNorm(low, high), label, "min" if (matrix < low).any() else "neither")


def _write_numbers(ax: Axes, matrix: NDArray[np.float64], scale: ColorScale) -> None:
    for row, column in np.argwhere(np.isfinite(matrix)):
        number = matrix[row, column]
        color = scale.text_color(max(number, scale.norm.vmin or 0.0))
        ax.text(column, row, _short(number), ha="center", va="center", fontsize=6, color=color)


def _short(number: float) -> str:
    """Return a number in at most four characters."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.{1 if number < 9.95 * unit else 0}f}{name}"
    if number >= 9.95:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 0.95 else f"{number:.2f}".removeprefix("0") if number >= 0.005 else "0"


def _write_total(ax: Axes, result: _Leakage) -> None:
    text = f"sources → targets: {result.pairs['molecules'].sum():,.0f} molecules"
    ax.annotate(text, (0.5, 0.0), (0, -4), xycoords="axes fraction", textcoords="offset points", ha="center", va="top",
                fontsize="small")  # fmt: skip


def _heading(genes: pd.DataFrame) -> str:
    return f"{genes['source'].iloc[0]} → {genes['target'].iloc[0]}"


def _draw_genes(ax: Axes, result: _Leakage, strongest: Sequence[pd.DataFrame]) -> None:
    color = dict(zip(result.names, result.colors, strict=True))
    labels: list[tuple[float, str]] = []
    row = 0.0
    for genes in strongest:
        ax.text(0.0, row, _heading(genes), va="center", fontsize="small", weight="bold")
        rows = row + 1 + np.arange(len(genes))
        bars = ax.barh(rows, 100 * genes["fraction"], height=0.75, color=color[genes["source"].iloc[0]])
        ax.bar_label(
            bars, [_short(molecules) for molecules in genes["molecules"]], padding=2, fontsize=7, color=gray(0.4)
        )
        labels += list(zip(rows.tolist(), genes["gene"].astype(str), strict=True))
        row = float(rows[-1]) + _GAP
    ax.set_yticks([place for place, _ in labels], [name for _, name in labels], fontsize="small")
    ax.tick_params(axis="y", length=0)
    ax.set(
        ylim=(row - 0.6, -0.8),
        xlim=(0, None),
        xlabel="% of its molecules in\nthe target that leaked from\nthe source, and how many",
    )
    ax.set_xlim(0, 1.12 * ax.get_xlim()[1])  # room for the numbers
    ax.spines[["top", "right"]].set_visible(False)
