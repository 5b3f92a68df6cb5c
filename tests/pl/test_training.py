"""The drawn curves are the recorded ones."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import resolvi_sd as rsd


def test_curves_are_the_history(adata):
    ax = rsd.pl.training(adata, return_ax=True)
    history = adata.uns["resolvi"]["history"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.column_stack([history["epoch"], history["elbo"]]))
    (side,) = (other for other in ax.figure.axes if other is not ax)
    np.testing.assert_array_equal(side.lines[0].get_ydata(), history["learning_rate"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "ELBO (nats per cell)")
    assert side.get_ylabel() == "learning rate"


def test_rate_axis_is_logarithmic_only_over_a_decade(adata):
    history = adata.uns["resolvi"]["history"]
    assert rsd.pl.training(adata, return_ax=True).figure.axes[1].get_yscale() == "log"  # 0.9 ** 29 < 0.1
    history["learning_rate"] = np.full(30, 1e-3)
    side = rsd.pl.training(adata, return_ax=True).figure.axes[1]
    assert side.get_yscale() == "linear"
    assert side.get_ylim()[0] == 0


def test_a_single_epoch_is_visible(adata):
    adata.uns["resolvi"]["history"] = {name: [1] for name in ("epoch", "elbo", "learning_rate")}
    ax = rsd.pl.training(adata, return_ax=True)
    assert ax.lines[0].get_marker() == "."


def test_own_axes_title_and_other_key(sdata, add_results):
    add_results(sdata.tables["table"], prefix="run2")
    ax = Figure().subplots()
    assert rsd.pl.training(sdata, key_added="run2", ax=ax, title="Run 2", return_ax=True) is ax
    assert ax.get_title() == "Run 2"


def test_not_fitted_says_what_to_do_and_what_exists(adata):
    with pytest.raises(KeyError, match=r"key_added='run2'.*fits under: 'resolvi'.*Please run `resolvi_sd.tl.fit"):
        rsd.pl.training(adata, key_added="run2")
    del adata.uns["resolvi"]
    with pytest.raises(KeyError, match="fits under: none"):
        rsd.pl.training(adata)


def test_damaged_history(adata):
    history = adata.uns["resolvi"]["history"]
    history["elbo"] = history["elbo"][:-1]
    with pytest.raises(ValueError, match=r"one value per epoch.*\(29,\)"):
        rsd.pl.training(adata)
    del history["elbo"]
    with pytest.raises(ValueError, match="lacks 'elbo'"):
        rsd.pl.training(adata)


def test_unknown_table(sdata):
    with pytest.raises(KeyError, match="'nope'.*'table'"):
        rsd.pl.training(sdata, table_key="nope")
