"""Plot of the course of the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from resolvi_sd._keys import DEFAULT_KEY, Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import listing
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._docs import shared_docs
from resolvi_sd.pl._figures import check_figure, finish_figure, open_ax
from resolvi_sd.pl._results import fit_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

__all__ = ["training"]

_COLUMNS = ("epoch", "elbo", "learning_rate")
# With few epochs, a line without markers may be a single point, which is invisible.
_MARKED_EPOCHS = 20


@shared_docs
def training(
    data: SpatialData | AnnData,
    *,
    table_key: str = "table",
    key_added: str = DEFAULT_KEY,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    save: str | Path | None = None,
    return_ax: bool = False,
) -> Axes | None:
    """Draw the ELBO and the learning rate of every epoch of a fit.

    The ELBO (evidence lower bound) should have leveled off before the learning rate (dashed) begins to fall, in the
    last three tenths of the epochs: as the learning rate falls, any curve levels off, even if the training was too
    short. If the ELBO is still rising at that point, train longer; without `max_epochs`, a fit waits until it has
    leveled off.

    Parameters
    ----------
    {data}
    {table}
    ax
        Axes to draw on. None: a new figure. The learning rate gets an axis on the right.
    {figsize}
    {one_end}

    Returns
    -------
    The axes of the ELBO if `return_ax`, otherwise None.

    Raises
    ------
    KeyError
        If the table or the fit does not exist.
    ValueError
        If the recorded history is damaged, or the model is that of a reference and was not trained on these cells.

    Examples
    --------
    >>> import numpy as np, anndata, resolvi_sd as rsd
    >>> from matplotlib.figure import Figure
    >>> table = anndata.AnnData(np.ones((2, 2), dtype="float32"))
    >>> history = {"epoch": np.arange(3), "elbo": np.array([-90.0, -70.0, -65.0]), "learning_rate": np.full(3, 1e-3)}
    >>> table.uns["resolvi"] = {"history": history}  # a fit writes this
    >>> ax = rsd.pl.training(table, ax=Figure().subplots(), return_ax=True)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('epoch', 'ELBO (nats per cell)')
    """
    history = _history(fit_record(resolve_table(data, table_key), Keys(key_added)))
    check_figure(figsize, save)
    ax = open_ax(ax, (5.0, 3.5), figsize=figsize, title=title)
    _draw(ax, history)
    finish_figure([ax], save)
    return ax if return_ax else None


def _history(record: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    history = record["history"]
    missing = [name for name in _COLUMNS if name not in history]
    if missing:
        raise ValueError(f"The history of the fit lacks {listing(missing)}; it has: {listing(history)}.")
    columns = {name: np.asarray(history[name]) for name in _COLUMNS}
    shapes = {name: column.shape for name, column in columns.items()}
    if bool(record.get("is_query", False)) and not columns["epoch"].size:
        raise ValueError(
            "There was no training on these cells: the model is the unchanged model of a reference (max_epochs=0). "
            "Draw the training of the reference."
        )
    if len(set(shapes.values())) > 1 or columns["epoch"].ndim != 1 or not columns["epoch"].size:
        raise ValueError(f"The history of the fit must have one value per epoch, but its shapes are {shapes}.")
    return columns


def _draw(ax: Axes, history: dict[str, NDArray[Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    epoch, elbo, rate = (history[name] for name in _COLUMNS)
    marker = "." if len(epoch) <= _MARKED_EPOCHS else None
    ax.plot(epoch, elbo, color="C0", marker=marker, label="ELBO")
    ax.set(xlabel="epoch", ylabel="ELBO (nats per cell)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines["top"].set_visible(False)

    side = ax.twinx()
    side.plot(epoch, rate, color=gray(0.65), linewidth=1, linestyle="--", marker=marker, label="learning rate")
    side.set_ylabel("learning rate", color=gray(0.45))
    side.tick_params(axis="y", which="both", colors=gray(0.45))
    side.spines["top"].set_visible(False)
    if rate.min() > 0 and rate.max() >= 10 * rate.min():
        side.set_yscale("log")
    else:
        side.set_ylim(0, max(1.1 * float(rate.max()), np.finfo(float).tiny))
    side.grid(visible=False, which="both")
    ax.set_zorder(side.get_zorder() + 1)  # the ELBO on top of the learning rate
    ax.patch.set_visible(False)
