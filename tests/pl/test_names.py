"""Names of genes, groups and sections are drawn as they are, however unusual."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import resolvi_sd as rsd

GENE, GROUP, SECTION = "G_1 at $5% of $10%", "$a$ and $\\alpha_1$", "$x$_$y"
QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def tissue():
    """A fitted table without a SpatialData object, with dollars in the names of genes, groups and sections."""
    table = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, n_types=3, n_rare=0, n_samples=2, rng=0)["table"]
    del table.uns["spatialdata_attrs"]
    table.var_names = [GENE, *table.var_names[1:]]
    table.obs["kind"] = pd.Categorical(np.where(table.obs["cell_type"] == "type_1", GROUP, "other"))
    table.obs["slide"] = pd.Categorical(np.where(table.obs["sample"] == "sample_0", SECTION, "other"))
    table.X[0, 0] = 9  # the gene is among those that are named
    rsd.tl.fit(table, library_key="slide", max_epochs=2, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rsd.tl.differential_expression(table, groupby="kind", n_samples=50, **QUIET)
        rsd.tl.differential_niche_abundance(table, groupby="kind", labels_key="kind", n_samples=50)
        rsd.tl.leakage(table, labels_key="kind", **QUIET)
        rsd.tl.decontaminated_counts(table, **QUIET)
    return table


PLOTS = {
    "spatial": (lambda table: rsd.pl.spatial(table, GENE, return_ax=True), [f"{SECTION}: {GENE}, counts"]),
    "sources": (lambda table: rsd.pl.sources(table, return_ax=True), [f"{SECTION}: own"]),
    "shares": (lambda table: rsd.pl.shares(table, groupby="kind", return_ax=True), [f"{GROUP} ("]),
    "flow": (
        lambda table: [rsd.pl.flow(table, cell="s0_cell_008", color="kind", return_ax=True)],
        [GROUP],
    ),
    "umap_compare": (
        lambda table: rsd.pl.umap_compare(table, color=GENE, representations=["X_resolvi"], n_cells=50, return_ax=True),
        [f"{GENE}, molecules per cell"],
    ),
    "volcano": (lambda table: rsd.pl.volcano(table, genes=[GENE], return_ax=True), [GENE, f"{GROUP} vs rest"]),
    "rank_genes": (lambda table: rsd.pl.rank_genes(table, n_genes=30, return_ax=True), [GENE, f"{GROUP} vs rest"]),
    "niche_abundance": (lambda table: rsd.pl.niche_abundance(table, groupby="kind", return_ax=True), [GROUP]),
    "leakage": (lambda table: rsd.pl.leakage(table, return_ax=True), [GROUP]),
    "decontamination": (lambda table: [rsd.pl.decontamination(table, n_genes=30, return_ax=True)], []),
    "coexpression": (
        lambda table: rsd.pl.coexpression(
            table, labels_key="kind", pairs=[(GENE, name) for name in table.var_names[1:9]], n_names=8, return_ax=True
        ),
        [],
    ),
}


@pytest.mark.filterwarnings("ignore:Groups whose cells lie in fewer than")
@pytest.mark.parametrize("name", PLOTS)
def test_dollars_are_dollars(tissue, name):
    draw, expected = PLOTS[name]
    axes = draw(tissue.copy())
    axes[0].get_figure().canvas.draw()
    shown = [text for ax in axes for text in ax.findobj(Text) if text.get_visible() and "$" in text.get_text()]
    assert shown or not expected
    assert not any(text.get_parse_math() for text in shown if "mathdefault" not in text.get_text())
    for wanted in expected:
        assert any(wanted in text.get_text().replace("\n", " ") for text in shown), wanted


def test_labels_of_logarithmic_axes_are_formulas(tissue, monkeypatch):
    monkeypatch.setattr("resolvi_sd.pl._leakage._LOG_FROM", 0.0)
    (ax,) = rsd.pl.leakage(tissue, kind="heatmap", own_type=True, return_ax=True)
    (bar,) = ax.child_axes
    ax.get_figure().canvas.draw()
    labels = [text for text in bar.findobj(Text) if "mathdefault" in text.get_text()]
    assert labels and all(text.get_parse_math() for text in labels)


def test_names_are_no_formulas_beneath_a_title(tissue):
    (ax, *_) = rsd.pl.rank_genes(tissue, group1=GROUP, title="all", return_ax=True)
    assert GROUP in ax.get_title() and not ax.title.get_parse_math()


def test_a_title_of_the_user_may_be_a_formula(tissue):
    (ax, *_) = rsd.pl.rank_genes(tissue, group1="other", title=[r"$\\log_2$"], return_ax=True)
    assert ax.title.get_parse_math() and ax.title.get_text() == r"$\\log_2$"
    plt.close("all")
