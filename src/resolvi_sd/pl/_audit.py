"""Plot of an audit: what a correction removed beyond chance, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from resolvi_sd._analysis import CONTROL, CORRECTED, RAW
from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd.pl._audit_rows import FEW, LAYERS, AuditRow, AuditSection, audit_sections, judged_layers, read_audit
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import (
    check_figure,
    figure_of,
    finish_figure,
    font_scale,
    given_axes,
    label_inches,
    panel_titles,
    scaled,
    title_panels,
)
from resolvi_sd.pl._layers import BETTER, WORSE, layer_mark
from resolvi_sd.pl._results import warn_of_other_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["audit"]

# In inches: width of the figure, and heights of a row, of the margins of a panel, and of the legend.
_WIDTH, _ROW, _MARGIN, _LEGEND = 8.5, 0.24, 0.75, 0.35
# In inches: extra width per letter of the longest layer name, if there are several layers.
_LETTER = 0.075
# Points from the right edge of the panel to the right edges of the values, and to the left edge of the sample sizes, in
# a font of 10 points.
_COLUMNS = {RAW: 34.0, CONTROL: 82.0, CORRECTED: 132.0}
_COUNTED = 142.0
_NAMES = {RAW: "raw", CONTROL: "matched", CORRECTED: "corrected"}
# Font size of the legend in points, and the width of a mark in it with its margins, in inches.
_SMALL, _MARK = 8.33, 0.3
# Number of characters of a reason that fit into a row.
_REASON = 95
# Gray level of changes that are neither better nor worse.
_NEUTRAL = 0.3
# Opacity of values that are means over few items.
_PALE = 0.35


@shared_docs
def audit(
    data: SpatialData | AnnData,
    *,
    metrics: Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | Sequence[str] | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> list[Axes] | None:
    """Draw what a correction removed, whether that exceeds chance, and what it cost.

    There is one row per metric of the audit, with marks for the raw, depth-matched and corrected counts; depth-matched
    counts are raw counts from which as many molecules were removed at random. The line from the depth-matched to the
    corrected counts shows what the correction achieved: blue if it is better, vermilion with a cross if it is worse,
    gray if neither. If there is no such control (latent spaces), the line starts at the raw counts. The arrow after a
    name points in the direction of better values. The values themselves, and what they are the mean of, are on the
    right; rows with means over fewer than five items are pale. Differences of less than half a percent of the axis
    count as neither better nor worse, and a triangle at the edge of the axis stands for a mark beyond it. The row of a
    metric that could not be measured gives the reason. If several layers were judged, each metric has a row for each of
    them.

    The panels (those without metrics are left out) are:

    - removed: share of molecules that were removed; leaked molecules should be, a type's own markers should not;
    - left: remaining contamination, relative to that of the raw counts;
    - reference: agreement with single-cell data;
    - latent: neighborhoods in the latent space; the raw value is that of the principal components;
    - other: metrics unknown to this version.

    Parameters
    ----------
    {data}
        :func:`resolvi_sd.tl.audit` must also have been run.
    metrics
        Metrics to draw, by their names in the audit. None: all of them. The false removal is always drawn, because no
        other number is meaningful without it: deleting all molecules removes all contamination.
    {table}
    {axes}
    {end}

    Returns
    -------
    The axes, one per panel, if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table, the audit or a metric does not exist.
    ValueError
        If `metrics` is empty, the audit is damaged, or the number of axes or titles differs from that of panels.

    Examples
    --------
    >>> import resolvi_sd as rsd
    >>> sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    >>> rsd.tl.fit(sdata, max_epochs=20, show_progress_bar=False)
    >>> rsd.tl.audit(sdata, "cell_type", show_progress_bar=False)
    >>> axes = rsd.pl.audit(sdata, metrics=["neighbor_contamination"], return_ax=True)
    >>> axes[1].get_xlabel()
    'relative to the raw counts (%)'
    """
    keys = Keys(key_added)
    adata = resolve_table(data, table_key)
    table = read_audit(adata, keys)
    n_cells = table.loc[table["metric"] == "molecules_removed", "n"]
    if len(n_cells):
        tool = keys.call("audit")
        warn_of_other_cells(adata, int(n_cells.iloc[0]), what="This audit", tool=tool)
    sections, layers = audit_sections(table, metrics), judged_layers(table)
    check_figure(figsize, save)
    names = [section.title for section in sections]
    titles = panel_titles(names, title)
    axes = _make_axes(sections, layers, figsize) if ax is None else given_axes(ax, names)
    title_panels(axes, titles, title, loc="left", fontsize="medium")
    for panel, section in zip(axes, sections, strict=True):
        _draw_section(panel, section)
    corrected = layers[0] if len(layers) == 1 and layers[0] != keys.counts else "corrected"
    pale = any(row.few for section in sections for row in section.rows)
    _add_legend(axes[0], corrected, pale=pale, above=ax is None)
    finish_figure(axes, save)
    return axes if return_ax else None


def _make_axes(
    sections: Sequence[AuditSection], layers: Sequence[str], figsize: tuple[float, float] | None
) -> list[Axes]:
    """Return panels stacked vertically, with rows of equal height."""
    import matplotlib.pyplot as plt

    n_rows = [len(section.rows) for section in sections]
    height = _ROW * sum(n_rows) + _MARGIN * len(n_rows) + _LEGEND
    width = _WIDTH + (_LETTER * max(map(len, layers)) if len(layers) > 1 else 0.0)
    _, axes = plt.subplots(
        len(n_rows),
        1,
        figsize=figsize or scaled(width, height),
        height_ratios=n_rows,
        squeeze=False,
        layout="constrained",
    )
    return list(axes.ravel())


def _draw_section(ax: Axes, section: AuditSection) -> None:
    low, high = section.limits
    places = np.arange(len(section.rows))
    ax.set(xlim=(low, high), ylim=(len(section.rows) - 0.5, -0.5))
    ax.set_xlabel(section.xlabel, fontsize="small")
    ax.set_yticks(places, [row.label for row in section.rows], fontsize="small")
    ax.tick_params(axis="x", labelsize="small")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    for edge in (0.0, section.whole):
        if low < edge < high:
            ax.axvline(edge, color=gray(0.8), linewidth=0.8, zorder=0.5)
    for layer, points in _COLUMNS.items():
        if any(layer in row.values for row in section.rows):
            _write(ax, 1.0, points, _NAMES[layer], row=None, ha="right", color=gray(0.4))
    ax.hlines(places, 0, 1, transform=ax.get_yaxis_transform(), color=gray(0.92), linewidth=0.8, zorder=0.4)
    grouped = not all(row.first for row in section.rows)
    for number, row in enumerate(section.rows):
        if grouped and row.first and number:
            ax.axhline(number - 0.5, color=gray(0.7), linewidth=0.6, zorder=0.5)
        _draw_row(ax, number, row)
        _write_numbers(ax, number, row, percent=section.percent)


def _draw_row(ax: Axes, number: int, row: AuditRow) -> None:
    places = {layer: row.places[layer] for layer in LAYERS if np.isfinite(row.places.get(layer, np.nan))}
    if not places:
        reason = shorten(row.reason, _REASON, placeholder=" ...")
        # Hides the line of its row, but not that of the axis below.
        patch = {"facecolor": gray(1), "edgecolor": "none", "pad": 1.0}
        _write(ax, 0.0, 4, reason, row=number, ha="left", color=gray(0.4), style="italic", bbox=patch)
        return
    low, high = ax.get_xlim()
    inside = {layer: float(np.clip(place, low, high)) for layer, place in places.items()}
    color, alpha = {True: BETTER, False: WORSE, None: gray(_NEUTRAL)}[row.improved], _PALE if row.few else 1.0
    if RAW in inside and CONTROL in inside:
        ax.plot([inside[RAW], inside[CONTROL]], [number, number], color=gray(0.75), linewidth=1.2, alpha=alpha)
    start = next((inside[layer] for layer in (CONTROL, RAW) if layer in inside), None)
    if start is not None and CORRECTED in inside:
        ends = [start, inside[CORRECTED]]
        ax.plot(ends, [number, number], color=color, linewidth=3, solid_capstyle="butt", alpha=alpha)
    for layer, place in inside.items():
        style = _corrected_style(color) if layer == CORRECTED else layer_mark(layer)
        if place != places[layer]:
            style["marker"] = "<" if place == low else ">"
        # The hollow mark is on top, so that the others are visible through it.
        ax.plot([place], [number], linestyle="", clip_on=False, zorder=4 if layer == RAW else 3, alpha=alpha, **style)


def _corrected_style(color: str) -> dict[str, Any]:
    marker, size = ("X", 8) if color == WORSE else ("o", 7)
    return {"marker": marker, "markersize": size, "markerfacecolor": color, "markeredgecolor": color}


def _write_numbers(ax: Axes, number: int, row: AuditRow, *, percent: bool) -> None:
    if all(np.isnan(value) for value in row.values.values()):
        return  # the reason is there instead
    for layer, value in row.values.items():
        text = "–" if np.isnan(value) else f"{100 * value:.1f}%" if percent else f"{value:.3f}".replace("-", "−")
        style = {"weight": "bold"} if layer == CORRECTED and not row.few else {}
        _write(ax, 1.0, _COLUMNS[layer], text, row=number, ha="right", **style)
    if row.counted:
        _write(ax, 1.0, _COUNTED, row.counted, row=number, ha="left", color=gray(0.4))


def _write(ax: Axes, edge: float, points: float, text: str, *, row: int | None, ha: str, **style: Any) -> None:
    """Write in a row, or above the rows, at a distance to the right of an edge of the panel (0 left, 1 right)."""
    ax.annotate(
        text,
        (edge, 1.0 if row is None else row),
        scaled(points, 6.0 if row is None else 0.0),
        xycoords="axes fraction" if row is None else ax.get_yaxis_transform(),
        textcoords="offset points",
        ha=ha,
        va="baseline" if row is None else "center_baseline",
        fontsize="small",
        annotation_clip=False,
        **style,
    )


def _add_legend(ax: Axes, corrected: str, *, pale: bool, above: bool) -> None:
    """Explain the marks above the panels of a new figure, or above the first of the given ones.

    The corrected counts are named if they are not those of the fit.
    """
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    marks = [
        ("raw", layer_mark(RAW)),
        ("depth-matched: chance", layer_mark(CONTROL)),
        (corrected, _corrected_style(gray(_NEUTRAL))),
        ("better", _corrected_style(BETTER)),
        ("worse", _corrected_style(WORSE)),
    ]
    handles = [Line2D([], [], linestyle="", label=label, **style) for label, style in marks]
    handles.append(Line2D([], [], linestyle="", label="→ ← where it is better"))
    if pale:
        style = _corrected_style(gray(_NEUTRAL))
        handles.append(Line2D([], [], linestyle="", label=f"of fewer than {FEW}", alpha=_PALE, **style))
    figure = figure_of(ax)
    labels = [str(handle.get_label()) for handle in handles]
    needed = sum(label_inches([label], fontsize=_SMALL) + _MARK for label in labels)
    rows = math.ceil(font_scale() * needed / figure.get_figwidth())
    style = {
        "handles": handles,
        "ncols": math.ceil(len(handles) / rows),
        "frameon": False,
        "fontsize": "small",
        "columnspacing": 1.2,
        "handletextpad": 0.3,
    }
    if above:
        figure.legend(loc="outside upper left", **style)
        return
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=ax.transAxes + ScaledTranslation(-1.2, 24 / 72, figure.dpi_scale_trans),
        borderaxespad=0.0,
        **style,
    )
