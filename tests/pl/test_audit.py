"""Each number of an audit is where it belongs; removal comes with false removal."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

import resolvi_sd as rsd

BLUE, VERMILION, GREY = to_rgba("#0072b2"), to_rgba("#d55e00"), to_rgba("#4c4c4c")
TITLES = ["What was removed", "Contamination that is left", "Agreement with the reference", "Latent space"]

# Metric, better, n, raw, depth-matched and corrected; NaN where there is no row.
NUMBERS = [
    ("molecules_removed", "", 64, np.nan, 0.3, 0.3),
    ("leak_sensitivity", "higher", 6, np.nan, 0.32, 0.85),
    ("own_markers_removed", "lower", 3, np.nan, 0.28, 0.41),
    ("own_markers_removed_unexposed", "lower", 3, np.nan, 0.28, 0.05),
    ("coexpression_rate", "lower", 95, 0.1, 0.07, 0.02),
    ("neighbor_contamination", "lower", 1963, 0.05, 0.05, 0.05),
    ("leakage_predictability", "lower", 4, 0.01, 0.012, -0.02),
    ("reference_cosine", "higher", 3, 0.8, 0.8, 0.9),
    ("latent_silhouette", "higher", 63, 0.2, np.nan, -0.1),
]
REASON = "Fewer than two labels have min_cells=50 cells of which there are any"


def make_audit(numbers=NUMBERS):
    rows = [
        (metric, layer, value, better, n, "")
        for metric, better, n, *values in numbers
        for layer, value in zip(("raw", "depth_matched", "corrected"), values, strict=True)
        if not np.isnan(value)
    ]
    rows.append(("negative_marker_purity_reads", "", np.nan, "", 0, REASON))
    return pd.DataFrame(rows, columns=["metric", "layer", "value", "better", "n", "note"])


@pytest.fixture
def audited(adata):
    adata.uns["resolvi_audit"] = make_audit()
    return adata


def marks_of(ax, label):
    """Place and color of each mark in the row of this name: raw, depth-matched and corrected."""
    names = [text.get_text().rstrip(" →←") for text in ax.get_yticklabels()]
    row = names.index(label)
    lines = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_ydata()[0] == row]
    return [(line.get_xdata()[0], to_rgba(line.get_markerfacecolor())) for line in lines]


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def test_panels_and_rows(audited):
    axes = rsd.pl.audit(audited, return_ax=True)
    assert [ax.get_title(loc="left") for ax in axes] == TITLES
    labels = [[text.get_text() for text in ax.get_yticklabels()] for ax in axes]
    assert [text.strip() for text in labels[0]] == [
        "leaked markers  →",
        "own markers  ←",
        "own markers, no neighbor of the type  ←",
        "all molecules",
    ]
    assert len(labels[1]) == 3 and len(labels[2]) == 2 and len(labels[3]) == 1
    assert axes[0].get_xlabel() == "molecules removed (%)"
    assert axes[1].get_xlabel() == "relative to the raw counts (%)"


@pytest.mark.parametrize("formulas", [True, False])
def test_titles_of_the_user_may_be_formulas(audited, formulas, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "text.parse_math", formulas)
    given = [f"$x_{i}$" for i in range(len(TITLES))]
    axes = rsd.pl.audit(audited, title=given, return_ax=True)
    titles = [text for ax in axes for text in ax.findobj(Text) if text.get_text() in given]
    assert [text.get_text() for text in titles] == given
    assert [text.get_parse_math() for text in titles] == [formulas] * len(given)


def test_marks_of_what_was_removed(audited):
    ax = rsd.pl.audit(audited, return_ax=True)[0]
    (control, _), (corrected, color) = marks_of(ax, "leaked markers")
    assert (control, corrected) == pytest.approx((32, 85))
    assert color == BLUE
    assert marks_of(ax, "own markers")[1] == (pytest.approx(41), VERMILION)  # more than by chance
    assert marks_of(ax, "own markers, no neighbor of the type")[1] == (pytest.approx(5), BLUE)
    assert marks_of(ax, "all molecules")[1] == (pytest.approx(30), GREY)
    assert ax.get_xlim()[0] < 0 and ax.get_xlim()[1] > 100


def test_what_is_left_is_relative_to_raw(audited):
    ax = rsd.pl.audit(audited, return_ax=True)[1]
    places = [place for place, _ in marks_of(ax, "co-expression of exclusive genes")]
    np.testing.assert_allclose(places, [100, 70, 20])
    assert marks_of(ax, "neighbor contamination")[2] == (pytest.approx(100), GREY)
    # -0.02 of 0.01 is -200 %, beyond the axis: a triangle at its edge.
    place, color = marks_of(ax, "predictability of neighbors")[2]
    assert place == ax.get_xlim()[0] > -50
    assert color == BLUE
    (beyond,) = [line for line in ax.lines if line.get_marker() == "<"]
    assert beyond.get_xdata()[0] == place


def test_without_a_control_the_raw_counts_are_what_is_improved_on(audited):
    ax = rsd.pl.audit(audited, return_ax=True)[3]
    (raw, _), (corrected, color) = marks_of(ax, "silhouette of labels")
    assert (raw, corrected, color) == (0.2, -0.1, VERMILION)
    assert "matched" not in texts_of(ax)


def test_numbers_and_what_they_count(audited):
    axes = rsd.pl.audit(audited, return_ax=True)
    assert {"32.0%", "85.0%", "6 pairs of types"} <= set(texts_of(axes[0]))
    assert {"0.100", "0.070", "0.020", "95 pairs of genes", "1,963 cells", "−0.020"} <= set(texts_of(axes[1]))
    assert "raw" in texts_of(axes[1]) and "raw" not in texts_of(axes[0])  # raw counts have nothing removed


def test_metrics_that_were_not_measured_say_why(audited):
    texts = texts_of(rsd.pl.audit(audited, return_ax=True)[2])
    assert any(text.startswith("not measured: Fewer than two labels have min_cells=50") for text in texts)
    table = make_audit([("coexpression_rate", "lower", 95, 0.0, 0.0, 0.0)])
    table.loc[len(table)] = ("leak_sensitivity", "", np.nan, "", 0, "no markers")
    audited.uns["resolvi_audit"] = table
    removed, left, _ = rsd.pl.audit(audited, return_ax=True)
    assert [text.get_text().strip() for text in removed.get_yticklabels()] == ["leaked markers", "own markers"]
    assert texts_of(removed).count("not measured: no markers") == 2
    assert "no positive raw value that it could be relative to" in texts_of(left)


def test_removal_is_never_without_false_removal(audited):
    axes = rsd.pl.audit(audited, metrics=["neighbor_contamination"], return_ax=True)
    assert [ax.get_title(loc="left") for ax in axes] == TITLES[:2]
    labels = [text.get_text().rstrip(" ←") for text in axes[0].get_yticklabels()]
    assert labels == ["own markers", "own markers, no neighbor of the type"]
    labels = [
        text.get_text().rstrip(" →←")
        for text in rsd.pl.audit(audited, metrics="leak_sensitivity", return_ax=True)[0].get_yticklabels()
    ]
    assert labels[:2] == ["leaked markers", "own markers"]


def test_metrics_of_other_versions_are_drawn(audited):
    audited.uns["resolvi_audit"] = make_audit([*NUMBERS, ("new_metric", "lower", 3, 3.0, 2.0, 1.0)])
    ax = rsd.pl.audit(audited, return_ax=True)[-1]
    assert ax.get_title(loc="left") == "Other metrics"
    assert [place for place, _ in marks_of(ax, "new metric")] == [3, 2, 1]


def test_axes_and_titles_of_the_user(audited):
    figure = Figure(layout="constrained")
    given = list(figure.subplots(2))
    axes = rsd.pl.audit(audited, metrics=["coexpression_rate"], ax=given, title=["A", "B"], return_ax=True)
    assert axes == given
    assert [ax.get_title(loc="left") for ax in axes] == ["A", "B"]
    with pytest.raises(ValueError, match=r"1 axes, but there are 4 panels.*'What was removed'"):
        rsd.pl.audit(audited, ax=Figure().subplots())


def test_errors(audited):
    with pytest.raises(KeyError, match=r"metrics='purity' is not in the audit; it has: 'molecules_removed'"):
        rsd.pl.audit(audited, metrics=["purity"])
    with pytest.raises(ValueError, match="`metrics` is empty; the audit has: 'molecules_removed'"):
        rsd.pl.audit(audited, metrics=[])
    del audited.uns["resolvi_audit"]["note"]
    with pytest.raises(ValueError, match=r"lacks the columns 'note'. Please run `resolvi_sd.tl.audit\(.*` again"):
        rsd.pl.audit(audited)
    audited.uns["resolvi_audit"] = make_audit().iloc[:0]
    with pytest.raises(ValueError, match="has no rows"):
        rsd.pl.audit(audited)
    del audited.uns["resolvi_audit"]
    with pytest.raises(KeyError, match=r"'resolvi_audit' is not in `table.uns`.*Please run `resolvi_sd.tl.audit\("):
        rsd.pl.audit(audited)


def test_an_audit_of_other_cells_is_warned_of(audited):
    audit = audited.uns["resolvi_audit"]
    audit.loc[audit["metric"] == "molecules_removed", "n"] = 128
    with pytest.warns(
        UserWarning, match=r"This audit is for 128 cells, but the table has 64 now: run `resolvi_sd.tl.audit"
    ):
        rsd.pl.audit(audited)


def several(numbers=NUMBERS):
    """Audits of three layers, of which the second removed less, and the third could not be told from chance."""
    found = make_audit(numbers)
    parts = []
    for name, kept in (("resolvi_counts", 1.0), ("softer", 0.5), ("chance", 0.0)):
        part = found.assign(corrected_layer=name)
        control = part["metric"].map(part[part["layer"] != "corrected"].groupby("metric")["value"].last())
        changed = part["layer"].eq("corrected") & ~part["metric"].str.startswith("latent")
        part.loc[changed, "value"] = kept * part["value"] + (1 - kept) * control
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_several_layers_have_a_row_each_below_their_metric(audited):
    audited.uns["resolvi_audit"] = several()
    removed, left, reference, latent = rsd.pl.audit(audited, return_ax=True)
    labels = [[text.get_text() for text in ax.get_yticklabels()] for ax in (removed, left, reference, latent)]
    assert labels[0][:3] == ["leaked markers  →  resolvi_counts", "softer", "chance"] and len(labels[0]) == 12
    # One row for what was not measured, and for the latent, which is the same for all.
    assert len(labels[2]) == 3 + 1 and labels[3] == ["silhouette of labels  →"]
    assert texts_of(reference).count(f"not measured: {REASON}") == 1
    assert marks_of(removed, "leaked markers  →  resolvi_counts")[1] == (pytest.approx(85), BLUE)
    assert marks_of(removed, "softer")[1] == (pytest.approx((32 + 85) / 2), BLUE)
    assert marks_of(removed, "chance")[1] == (pytest.approx(32), GREY)
    # A line between the metrics, none between the layers of one.
    across = [line for line in removed.lines if line.get_color() == "#b2b2b2"]
    levels = sorted(line.get_ydata()[0] for line in across)
    assert levels == [2.5, 5.5, 8.5]
    assert "corrected" in [text.get_text() for text in removed.figure.legends[0].get_texts()]


def test_means_of_few_are_pale(audited):
    def opacity(ax, label):
        names = [text.get_text().rstrip(" →←") for text in ax.get_yticklabels()]
        lines = [line for line in ax.lines if line.get_marker() == "o" and line.get_ydata()[0] == names.index(label)]
        return {line.get_alpha() for line in lines}

    removed, left, *_ = rsd.pl.audit(audited, return_ax=True)
    assert opacity(removed, "leaked markers") == {1.0}  # 6 pairs of types
    (pale,) = opacity(removed, "own markers, no neighbor of the type")  # 3 types
    assert pale < 0.5 and opacity(left, "neighbor contamination") == {1.0}
    legend = [text.get_text() for text in removed.figure.legends[0].get_texts()]
    assert "of fewer than 5" in legend
    audited.uns["resolvi_audit"] = make_audit([(*row[:2], 64, *row[3:]) for row in NUMBERS])
    removed, *_ = rsd.pl.audit(audited, return_ax=True)
    assert opacity(removed, "own markers, no neighbor of the type") == {1.0}
    assert "of fewer than 5" not in [text.get_text() for text in removed.figure.legends[0].get_texts()]


def test_image_of_several(compare, audited):
    audited.uns["resolvi_audit"] = several()
    compare("audit_several", lambda path: rsd.pl.audit(audited, save=path), tolerance=2)


def test_image(compare, audited):
    compare("audit", lambda path: rsd.pl.audit(audited, save=path), tolerance=2)


def test_other_corrected_counts_are_named(audited):
    def legend_of(ax):
        return [text.get_text() for text in ax.figure.legends[0].get_texts()]

    assert "corrected" in legend_of(rsd.pl.audit(audited, return_ax=True)[0])
    audited.uns["resolvi_audit"]["corrected_layer"] = "resolvi_counts"
    assert "corrected" in legend_of(rsd.pl.audit(audited, return_ax=True)[0])
    audited.uns["resolvi_audit"]["corrected_layer"] = "resolvi_decontaminated"
    assert "resolvi_decontaminated" in legend_of(rsd.pl.audit(audited, return_ax=True)[0])
