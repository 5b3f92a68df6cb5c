"""Drawing of one section into one panel: by spatialdata-plot if there are outlines, otherwise as dots."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from resolvi_sd._tables import full_resolution
from resolvi_sd._validation import check_key
from resolvi_sd.pl._sections import DottedSection, OutlinedSection, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

__all__ = ["NA_COLOR", "ColorScale", "count_limits", "draw_section", "replace_limits"]

NA_COLOR = "lightgrey"
# Share of the cells with a gene whose counts may lie beyond the color range, since counts have a long tail.
_BEYOND = 0.01

# Names in the temporary object that passes one panel to spatialdata-plot.
_ELEMENT, _UNKNOWN, _TABLE, _REGION, _INSTANCE, _VALUE = "cells", "unknown", "values", "region", "instance", "value"
# Above the first number of shapes, spatialdata-plot itself prefers datashader; up to the second, borders between cells
# are visible.
_MAX_POLYGONS = 10_000
_MAX_BORDERS = 2_000
# Side length in pixels of the cells of a labels image, and the width of their borders, which would hide smaller cells.
_BORDERS = {30: 3, 6: 2}
# Antialiasing blends dots of fewer pixels than this with the background, which gives them a wrong color.
_MIN_SMOOTH_PIXELS = 2.0


@dataclass(frozen=True)
class ColorScale:
    """Mapping of values to colors, shared by panels that are to be compared.

    Attributes
    ----------
    cmap
        Colormap; its color for bad values marks cells without a value.
    norm
        Limits of the colors.
    label
        What the colors mean, with the unit.
    extend
        The ends at which there are values beyond the limits.
    """

    cmap: Colormap
    norm: Normalize
    label: str
    extend: str

    @classmethod
    def of(
        cls, values: NDArray[np.float64], cmap: str | Colormap, limits: tuple[float, float], label: str
    ) -> ColorScale:
        """Return the scale with these limits for these values; NaN is drawn in gray.

        Raises
        ------
        KeyError, TypeError
            If there is no such colormap.
        ValueError
            If the limits are the wrong way round.
        """
        from matplotlib.colors import Normalize

        chosen = _colormap(cmap)
        low, high = limits
        if not low < high:
            raise ValueError(
                f"The color scale of {label!r} must have vmin < vmax, but vmin={low:g} and vmax={high:g}. A limit that "
                "is not given comes from the data: give both."
            )
        finite = values[np.isfinite(values)]
        below, above = bool((finite < low).any()), bool((finite > high).any())
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        return cls(chosen.with_extremes(bad=NA_COLOR), Normalize(low, high), label, extend)

    def text_color(self, value: float) -> str:
        """Return black or white, whichever can be read on the color of a value."""
        red, green, blue, _ = self.cmap(self.norm(value))
        return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"


def _colormap(cmap: object) -> Colormap:
    from matplotlib import colormaps
    from matplotlib.colors import Colormap

    if isinstance(cmap, str):
        check_key(cmap, colormaps, argument="cmap", where="matplotlib.colormaps")
        return colormaps[cmap]
    if not isinstance(cmap, Colormap):
        raise TypeError(
            f"`cmap` must be a name in `matplotlib.colormaps` or a colormap, not {cmap!r} ({type(cmap).__name__})."
        )
    return cmap


def count_limits(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Return the color limits for the counts of a gene: 0 and the 99th percentile of the nonzero counts."""
    present = counts[counts > 0]
    return 0.0, float(np.quantile(present, 1 - _BEYOND)) if present.size else 1.0


def replace_limits(limits: tuple[float, float], vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """Return the limits, with the defaults replaced by those that the user gave.

    Raises
    ------
    TypeError
        If one of them is not a number.
    """
    given: dict[str, object] = {"vmin": vmin, "vmax": vmax}
    for name, value in given.items():
        if value is not None and not isinstance(value, Real):
            raise TypeError(
                f"`{name}` must be a number, not {value!r}; for a quantile, pass its value, `np.quantile(...)`."
            )
    return (limits[0] if vmin is None else vmin), (limits[1] if vmax is None else vmax)


def draw_section(
    ax: Axes,
    section: Section,
    values: NDArray[np.float64],
    scale: ColorScale,
    *,
    size: float = 1.0,
    border: str | None = None,
) -> None:
    """Draw the cells of a section, colored by their values; y points down, as in an image.

    Parameters
    ----------
    ax
        The panel.
    section
        The cells.
    values
        One value per row of the table, `(n_cells,)`; NaN is drawn in gray.
    scale
        Colors.
    size
        Scale factor for dots and shapes; labels elements are never scaled.
    border
        Color of a line along the edges of cells, if they are few enough for it to be visible. None: a thin white line
        around shapes, and none around dots.
    """
    if isinstance(section, DottedSection):
        _draw_dots(ax, section, values[section.rows], scale, size, border)
    else:
        _draw_outlines(ax, section, values[section.rows], scale, size, border)
    left, right, bottom, top = section.extent
    ax.set(xlim=(left, right), ylim=(top, bottom), aspect="equal")


def _draw_dots(
    ax: Axes, dots: DottedSection, values: NDArray[np.float64], scale: ColorScale, size: float, border: str | None
) -> None:
    from matplotlib.collections import EllipseCollection

    diameter = dots.diameter * size
    left, right, bottom, top = dots.extent
    panel = ax.get_window_extent()
    pixels = diameter * min(panel.width / (right - left), panel.height / (top - bottom))
    # Sizes are in the units of the coordinates, so dots neither overlap nor drift apart when the figure is resized.
    collection = EllipseCollection(
        [diameter],
        [diameter],
        [0.0],
        units="xy",
        offsets=dots.coordinates,
        offset_transform=ax.transData,
        cmap=scale.cmap,
        norm=scale.norm,
        linewidths=0.8 if border is not None and len(values) <= _MAX_BORDERS else 0,
        edgecolors=border or "none",
        antialiaseds=pixels >= _MIN_SMOOTH_PIXELS,
        rasterized=True,
    )
    collection.set_array(np.ma.masked_invalid(values))
    ax.add_collection(collection, autolim=False)


def _draw_outlines(
    ax: Axes, outlines: OutlinedSection, values: NDArray[np.float64], scale: ColorScale, size: float, border: str | None
) -> None:
    import spatialdata_plot  # noqa: F401  registers the accessor `.pl`; slow, hence imported here
    from matplotlib.colors import to_hex

    colors: dict[str, Any] = {
        "color": _VALUE,
        "table_name": _TABLE,
        "cmap": scale.cmap,
        "norm": scale.norm,
        "na_color": to_hex(tuple(scale.cmap.get_bad())),
        "fill_alpha": 1.0,
        "colorbar": False,
    }
    if outlines.kind == "labels":
        panel = _labels_panel(outlines, values, colors, border)
    else:
        panel = _shapes_panel(outlines, values, colors, size, border)
    panel.pl.show(coordinate_systems=outlines.coordinate_system, ax=ax, colorbar=False, title="", show=False)


def _labels_panel(
    outlines: OutlinedSection, values: NDArray[np.float64], colors: dict[str, Any], border: str | None
) -> Any:
    table = _value_table(outlines.ids, values)
    panel = _spatialdata({_ELEMENT: outlines.element, _TABLE: table}).pl.render_labels(_ELEMENT, **colors)
    if border is not None and len(values) <= _MAX_BORDERS:
        side = np.sqrt(np.count_nonzero(np.asarray(full_resolution(outlines.element))) / max(len(values), 1))
        width = next((width for least, width in _BORDERS.items() if side >= least), None)
        line = {"fill_alpha": 0.0, "outline_alpha": 1.0, "outline_color": border, "contour_px": width}
        panel = panel if width is None else panel.pl.render_labels(_ELEMENT, **line)
    return panel


def _shapes_panel(
    outlines: OutlinedSection, values: NDArray[np.float64], colors: dict[str, Any], size: float, border: str | None
) -> Any:
    # Cells without a value get a layer of their own: in a common layer, each panel would log a warning about them.
    known = np.isfinite(values)
    elements: dict[str, Any] = {}
    if known.any():
        elements |= {_ELEMENT: outlines.element[known], _TABLE: _value_table(outlines.ids[known], values[known])}
    if not known.all():
        elements[_UNKNOWN] = outlines.element[~known]
    panel = _spatialdata(elements)
    style = {**_shape_style(len(values)), "scale": size, "fill_alpha": 1.0}
    if _UNKNOWN in elements:
        panel = panel.pl.render_shapes(_UNKNOWN, color=colors["na_color"], **style)
    if _ELEMENT in elements:
        panel = panel.pl.render_shapes(_ELEMENT, **(style | colors))
    if border is not None and len(values) <= _MAX_BORDERS:
        # Lines get layers of their own: in a common layer, neighbors would hide the half of a cell's line inside them.
        line = style | {"fill_alpha": 0.0, "outline_width": 0.8, "outline_color": border}
        for name in (_UNKNOWN, _ELEMENT):
            panel = panel.pl.render_shapes(name, **line) if name in elements else panel
    return panel


def _shape_style(n_shapes: int) -> dict[str, Any]:
    if n_shapes > _MAX_POLYGONS:
        # If several cells fall on a pixel, the maximum would make every panel look brighter than its cells are.
        return {"method": "datashader", "datashader_reduction": "mean"}
    if n_shapes > _MAX_BORDERS:
        return {"method": "matplotlib"}
    return {"method": "matplotlib", "outline_width": 0.6, "outline_color": "white", "outline_alpha": 1.0}


def _spatialdata(elements: dict[str, Any]) -> Any:
    """Return a SpatialData object of a single panel: spatialdata-plot copies and joins whole tables for every panel."""
    from spatialdata import SpatialData

    return SpatialData.init_from_elements(elements)


def _value_table(ids: pd.Index[Any], values: NDArray[np.float64]) -> Any:
    from anndata import AnnData
    from spatialdata.models import TableModel

    obs = pd.DataFrame(
        {_REGION: pd.Categorical([_ELEMENT] * len(values)), _INSTANCE: ids.to_numpy(), _VALUE: values},
        index=[str(row) for row in range(len(values))],
    )
    return TableModel.parse(AnnData(obs=obs), region=_ELEMENT, region_key=_REGION, instance_key=_INSTANCE)
