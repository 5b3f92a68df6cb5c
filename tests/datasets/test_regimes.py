"""Regimes: what their names promise, and what they refuse."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from resolvi_sd.datasets import REGIMES, TissueRegime, simulate_tissue
from resolvi_sd.datasets._regimes import get_regime


def _shares(regime: str | TissueRegime) -> tuple[float, np.ndarray]:
    """Return the mean counts per cell, and the shares of own, leaked and background molecules."""
    table = simulate_tissue(2000, 60, regime=regime, transcripts=False, rng=3).tables["table"]
    total = table.X.sum()
    parts = [table.layers[key].sum() / total for key in ("true_own", "true_leaked", "true_background")]
    return total / table.n_obs, np.array(parts)


@pytest.mark.parametrize("name", sorted(REGIMES))
def test_counts_and_background_are_those_of_the_regime(name: str) -> None:
    mean, shares = _shares(name)
    # Overdispersion of 60 genes over 2,000 cells leaves the mean a relative standard error of about 1%.
    assert mean == pytest.approx(REGIMES[name].counts, rel=0.05)
    assert shares[2] == pytest.approx(REGIMES[name].background, rel=0.1)


def test_xenium_and_clean_leak_what_they_are_meant_to() -> None:
    _, xenium = _shares("xenium")
    assert 0.65 < xenium[0] < 0.85
    assert 0.1 < xenium[1] < 0.27
    _, clean = _shares("clean")
    assert clean[0] > 0.97


@pytest.mark.parametrize(
    ("setting", "less", "more"),
    [("diffusion", 0.5, 3.0), ("spacing", 14.0, 8.0), ("segmentation", 0.0, 2.0), ("overlap", 0.0, 0.5)],
)
def test_more_leaks_with_diffusion_density_and_errors(setting: str, less: float, more: float) -> None:
    regime = REGIMES["xenium"]
    assert _shares(replace(regime, **{setting: less}))[1][1] < 0.9 * _shares(replace(regime, **{setting: more}))[1][1]


def test_regimes_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        REGIMES["xenium"].counts = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        REGIMES["mine"] = TissueRegime()  # type: ignore[index]


def test_unknown_regime_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'visium'.*xenium, sparse, deep"):
        get_regime("visium")
    with pytest.raises(TypeError, match="TissueRegime, not int"):
        get_regime(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("counts", 0.0, "must be positive"),
        ("spacing", float("nan"), "must be positive"),
        ("background", 1.0, "a share"),
        ("overlap", -0.1, "a share"),
        ("diffusion", -1.0, "at least 0"),
        ("diffusion", float("inf"), "finite"),
        ("crowding", 1.0, "below 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"`{setting}`.*{message}"):
        TissueRegime(**{setting: value})


def test_without_overdispersion_counts_are_poisson() -> None:
    regime = replace(REGIMES["clean"], dispersion=float("inf"), depth_sd=1e-6, diffusion=1e-3)
    tissue = simulate_tissue(n_cells=2000, n_genes=20, regime=regime, n_types=1, n_rare=0, gradient=0.0,
                             transcripts=False, rng=0)  # fmt: skip
    own = tissue.tables["table"].layers["true_own"].toarray()
    assert np.median(own.var(axis=0) / own.mean(axis=0)) == pytest.approx(1, abs=0.1)
