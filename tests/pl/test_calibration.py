"""The drawn curves are the metrics' numbers, and cells without counts are no cells of the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

import resolvi_sd as rsd
from resolvi_sd.metrics import coverage

TRUE = ["true_own_share", "true_leaked_share", "true_background_share"]
FOUND = ["resolvi_true", "resolvi_diffusion", "resolvi_background"]


@pytest.fixture
def simulated(adata):
    """A fitted table whose own shares are all found 0.1 too low, and the background as much too high."""
    adata.obs[FOUND] = adata.obs[FOUND].to_numpy() * [0.8, 0.8, 0.8] + [0.0, 0.1, 0.1]
    adata.obs[TRUE] = adata.obs[FOUND].to_numpy() + [0.1, 0.0, -0.1]
    return adata


def _levels():
    return np.array([0.2, 0.5, 0.8])


def _curve(spread):
    """Coverage of a normal posterior that is too narrow or too wide by `spread`."""
    rng = np.random.default_rng(0)
    return coverage(spread * rng.normal(size=(99, 400)), rng.normal(size=400), levels=_levels())


def _drawn(ax):
    return [c.lines[0].get_xydata() for c in ax.containers if isinstance(c, ErrorbarContainer)]


def test_points_are_the_means_of_the_bins(simulated):
    axes = rsd.pl.calibration(simulated, n_bins=5, return_ax=True)
    assert [ax.get_title() for ax in axes] == ["own", "from neighbors", "background"]
    shift = {0: 0.1, 1: 0.0, 2: -0.1}
    for i, ax in enumerate(axes):
        (points,) = _drawn(ax)
        np.testing.assert_allclose(points[:, 1] - points[:, 0], shift[i], atol=1e-9)
        (text,) = [text.get_text() for text in ax.texts]
        bias = f"{-shift[i]:+.3f}".replace("-0.000", "+0.000").replace("-", "−")
        assert text == f"ECE {abs(shift[i]):.3f}\nbias {bias}\nslope 1.00"
        assert ax.get_xlim() == ax.get_ylim()


def test_error_bars_are_two_standard_errors(simulated):
    known = simulated.obs[FOUND[0]].notna().to_numpy()
    simulated.obs[TRUE[0]] += 0.02 * np.random.default_rng(0).normal(size=simulated.n_obs)
    ax = rsd.pl.calibration(simulated, n_bins=2, return_ax=True)[0]
    (bars,) = [c.lines[2][0].get_segments() for c in ax.containers if isinstance(c, ErrorbarContainer)]
    predicted, true = (simulated.obs.loc[known, key].to_numpy() for key in (FOUND[0], TRUE[0]))
    for bar, members in zip(bars, (predicted < 0.5, predicted >= 0.5), strict=True):
        expected = 2 * true[members].std(ddof=1) / np.sqrt(members.sum())
        assert (bar[1, 1] - bar[0, 1]) / 2 == pytest.approx(expected)


def test_density_counts_the_cells_that_have_counts(simulated):
    ax = rsd.pl.calibration(simulated, return_ax=True)[0]
    counted = np.ma.filled(ax.collections[0].get_array(), 0).sum()
    known = simulated.obs[FOUND[0]].notna().sum()
    assert simulated.n_obs - known == 1
    # At most 0.5 % of the cells, so none of these 63, are beyond either end of the panel.
    assert counted == known


def test_coverage_has_a_panel_of_its_own(simulated):
    curve = _curve(0.5)
    axes = rsd.pl.calibration(simulated, coverage=curve.iloc[::-1], return_ax=True)
    assert len(axes) == 4
    np.testing.assert_array_equal(_drawn(axes[-1])[0], curve[["level", "coverage"]].to_numpy())
    assert axes[-1].get_legend() is None
    axes = rsd.pl.calibration(simulated, coverage={"own share": curve, "counts": _curve(1.0)}, return_ax=True)
    assert [text.get_text() for text in axes[-1].get_legend().get_texts()] == ["own share", "counts"]


def test_one_cell_and_constant_shares_are_drawn(simulated):
    one = simulated[[0]].copy()
    axes = rsd.pl.calibration(one, return_ax=True)
    assert "slope nan" in axes[0].texts[0].get_text()


def test_own_axes_columns_and_titles(simulated):
    simulated.obs = simulated.obs.rename(columns=dict(zip(TRUE, "abc", strict=True)))
    given = list(Figure().subplots(1, 3))
    axes = rsd.pl.calibration(simulated, true_keys=["a", "b", "c"], ax=given, title=["x", "y", "z"], return_ax=True)
    assert axes == given
    assert [ax.get_title() for ax in axes] == ["x", "y", "z"]


def test_bad_input(simulated, tmp_path):
    with pytest.raises(KeyError, match=r"true_keys='nope'.*table\.obs.*Simulated tissue has the truth"):
        rsd.pl.calibration(simulated, true_keys=["nope", "b", "c"])
    with pytest.raises(ValueError, match="`true_keys` must name three columns"):
        rsd.pl.calibration(simulated, true_keys="true_own_share")
    with pytest.raises(ValueError, match=r"`coverage` 'own' must be a result of .*lacks 'level'"):
        rsd.pl.calibration(simulated, coverage={"own": pd.DataFrame({"coverage": [1.0], "standard_error": [0.1]})})
    with pytest.raises(ValueError, match="`coverage` must hold 1 to 4 tables, not 0"):
        rsd.pl.calibration(simulated, coverage={})
    with pytest.raises(ValueError, match="`ax` has 2 axes, but there are 3 panels"):
        rsd.pl.calibration(simulated, ax=list(Figure().subplots(1, 2)))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        rsd.pl.calibration(simulated, save=tmp_path / "no" / "such.png")
    simulated.obs[TRUE[0]] *= 100
    with pytest.raises(ValueError, match="`true` must hold shares between 0 and 1"):
        rsd.pl.calibration(simulated)
    del simulated.uns["resolvi"]
    with pytest.raises(KeyError, match="Please run `resolvi_sd.tl.fit"):
        rsd.pl.calibration(simulated)


def test_looks_as_it_did(compare, simulated):
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.standard_normal((simulated.n_obs, 1)) * [1.0, -1.0, 0.0]
    simulated.obs[TRUE] = np.clip(simulated.obs[TRUE].to_numpy() + noise, 0, 1)
    curves = {"own share": _curve(0.5), "corrected counts": _curve(1.0)}
    compare("calibration", lambda path: rsd.pl.calibration(simulated, coverage=curves, figsize=(11, 3), save=path))
