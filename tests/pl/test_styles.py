"""Plots suit the style in use, and the axes that they are given."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import resolvi_sd as rsd
from resolvi_sd.pl._colors import gray
from resolvi_sd.pl._figures import wrapped
from resolvi_sd.pl._labels import label_points


def test_grays_are_between_text_and_background():
    assert [to_rgb(gray(level)) for level in (0, 1)] == [(0, 0, 0), (1, 1, 1)]
    with plt.style.context("dark_background"):
        assert [to_rgb(gray(level)) for level in (0, 1)] == [(1, 1, 1), (0, 0, 0)]
        assert to_rgb(gray(0.2)) == pytest.approx((0.8, 0.8, 0.8), abs=0.003)
    with rc_context({"axes.facecolor": "none", "figure.facecolor": "yellow"}):
        assert to_rgb(gray(1)) == (1, 1, 0)


def test_no_grid(adata):
    with rc_context({"axes.grid": True, "axes.grid.which": "both"}):
        drawn = rsd.pl.sources(adata, return_ax=True), rsd.pl.training(adata, return_ax=True).figure.axes
        for ax in itertools.chain(*drawn):
            for panel in (ax, *ax.child_axes):  # with the color bar
                lines = [*panel.get_xgridlines(), *panel.get_ygridlines()]
                assert not any(line.get_visible() for line in lines)


def test_figures_grow_with_the_font(adata):
    sizes = []
    for size in (10, 14):
        with rc_context({"font.size": size}):
            drawn = rsd.pl.training(adata, return_ax=True), rsd.pl.sources(adata, return_ax=True)[0]
            sizes.append([ax.figure.get_size_inches() for ax in drawn])
            assert list(rsd.pl.training(adata, figsize=(3, 2), return_ax=True).figure.get_size_inches()) == [3, 2]
    np.testing.assert_allclose(sizes[1], 1.4 * np.array(sizes[0]))


def test_color_bar_beside_given_axes_is_as_high_as_the_panel(adata):
    figure = Figure(figsize=(12, 5))
    axes = figure.subplots(1, 3)
    rsd.pl.sources(adata, ax=list(axes))
    figure.draw_without_rendering()
    bars = [ax for ax in figure.axes if ax not in axes]
    assert len(bars) == 3
    for bar in bars:
        panel = min(axes, key=lambda ax: abs(ax.get_position().x1 - bar.get_position().x0))
        assert bar.get_position().height == pytest.approx(panel.get_position().height, rel=0.01)
        assert bar.get_position().x0 > panel.get_position().x1


def test_the_rows_of_given_axes_are_named_once(adata):
    axes = rsd.pl.shares(adata, groupby="sample", ax=list(Figure().subplots(1, 3)), return_ax=True)
    for ax in axes:
        ax.figure.draw_without_rendering()
        assert ax.yaxis.get_tick_params()["labelleft"] == (ax is axes[0])


def test_a_title_is_that_of_the_subfigure(adata):
    left, _ = (figure := Figure()).subfigures(1, 2)
    rsd.pl.sources(adata, ax=list(left.subplots(3, 1)), title="left")
    assert left.get_suptitle() == "left" and not figure.get_suptitle()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Plasma_cells_IGHA1_IGKC_high_expression 6", ["Plasma_cells_IGHA1_IGKC_", "high_expression 6"]),
        ("CD8+ effector memory T cells, tumour infiltrating", ["CD8+ effector memory T", "cells, tumour infiltrating"]),
        ("short", ["short"]),
        ("A" * 60, ["A" * 26, "A" * 26, "A" * 8]),
        ("", [""]),
    ],
)
def test_names_take_few_lines(text, lines):
    """26 letters of 0.05 inches fit into a line of 1.33 inches in a font of 6 points."""
    assert wrapped(text, 1.33, fontsize=6).split("\n") == lines


def test_names_of_points_avoid_large_marks():
    figure = Figure(figsize=(4, 4))
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    (mark,) = ax.plot([0.55], [0.5], "o", markersize=9)
    figure.draw_without_rendering()
    label_points(ax, np.array([[0.5, 0.5]]), [0], ["a name"], fontsize=8)
    (text,) = ax.texts
    assert not text.get_window_extent().overlaps(mark.get_window_extent())


def test_names_of_points_avoid_the_legend():
    figure = Figure(figsize=(4, 4))
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.plot([0.5], [0.5], "o", label="a long label in the corner")
    legend = ax.legend(loc="upper left")
    figure.draw_without_rendering()
    covered = legend.get_window_extent()
    below = ax.transData.inverted().transform((covered.x1 - 30, covered.y0 - 4))  # room above, but for the legend
    label_points(ax, below[None], [0], ["a name"], fontsize=8)
    assert len(ax.texts) == 1
    assert not any(text.get_window_extent().overlaps(covered) for text in ax.texts)
