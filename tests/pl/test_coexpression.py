"""Each pair is at its rates, each gene at what was kept of it in its own type."""

from __future__ import annotations

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import resolvi_sd as rsd

BLUE, GREY = to_rgba("#0072b2"), to_rgba("0.6")
# Tumor cells have 2 KRT8 and every second of them 1 PTPRC that leaked; immune cells the other way round; stroma has
# COL1A1, PECAM1 is nowhere. The correction halves what leaked and takes a tenth of what did not.
OWN = {"tumor": "KRT8", "immune": "PTPRC", "stroma": "COL1A1"}


@pytest.fixture
def mixed(square_table, add_results):
    table = square_table()
    kind = np.array(list(OWN))[np.arange(table.n_obs) % 3]
    table.obs["cell_type"] = pd.Categorical(kind, categories=list(OWN))
    own = np.array([[2.0 * (gene == OWN[name]) for gene in table.var_names] for name in kind])
    leaked = np.zeros_like(own)
    for name, gene in (("tumor", "PTPRC"), ("immune", "KRT8")):
        leaked[np.flatnonzero(kind == name)[::2], table.var_names.get_loc(gene)] = 1
    table.X = sp.csr_matrix((own + leaked).astype(np.float32))
    add_results(table)
    kept = 0.9 * own + 0.5 * leaked
    table.layers["resolvi_counts"] = sp.csr_matrix(kept.astype(np.float32))
    table.obs["resolvi_true"] = kept.sum(axis=1) / (own + leaked).sum(axis=1)
    return table


def points_of(ax, color):
    """Small marks of one color, which are the points; the large ones are means."""
    (line,) = [
        line
        for line in ax.lines
        if line.get_linestyle() == "None" and line.get_markersize() < 6 and to_rgba(line.get_markerfacecolor()) == color
    ]
    return line.get_xydata()


def legend_of(ax):
    legend = ax.get_legend()
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def test_rates_of_pairs(mixed):
    """22 tumor and 21 immune cells, all of which have a gene of the pair; 11 + 11 of them both, and half that after."""
    pairs = [("KRT8", "PTPRC"), ("KRT8", "COL1A1")]
    ax = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs, return_ax=True)[0]
    found = points_of(ax, BLUE)
    # KRT8 is in 22 + 11 cells, COL1A1 in 21 others; own counts of 1.8 are still there for sure.
    np.testing.assert_allclose(found, [[100 * 22 / 43, 100 * 11 / 43], [0, 0]], atol=1e-5)
    assert len(points_of(ax, GREY)) == 2
    title, control, corrected = legend_of(ax)
    assert title == "mean of 2 pairs\nraw: 25.6%"
    assert corrected == "corrected: 12.8%"
    assert control.startswith("depth-matched: ")


def test_other_corrected_counts(mixed):
    mixed.layers["other"] = mixed.X.multiply(mixed.X > 1).tocsr()  # what leaked are single molecules
    del mixed.layers["resolvi_counts"]
    settings = {"labels_key": "cell_type", "pairs": [("KRT8", "PTPRC")], "corrected_layer": "other"}
    axes = rsd.pl.coexpression(mixed, return_ax=True, **settings)
    np.testing.assert_allclose(points_of(axes[0], BLUE), [[100 * 22 / 43, 0]], atol=1e-5)
    np.testing.assert_allclose(points_of(axes[1], BLUE)[:, 1], 100)
    assert [legend_of(ax)[2] for ax in axes] == ["other: 0.00%", "other: 100.0%"]
    with pytest.raises(KeyError, match=r"corrected_layer='mine' is not in `table\.layers`; it has: 'other'"):
        rsd.pl.coexpression(mixed, **settings | {"corrected_layer": "mine"})
    mixed.layers["other"] = mixed.X * 2
    with pytest.raises(ValueError, match=r"corrected_layer='other' has up to \d+ more than was counted"):
        rsd.pl.coexpression(mixed, **settings)


def test_genes_in_their_own_type(mixed):
    pairs = [("KRT8", "PTPRC"), ("KRT8", "COL1A1")]
    ax = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs, return_ax=True)[1]
    np.testing.assert_allclose(points_of(ax, BLUE), [[2, 90]] * 3, atol=1e-4)
    assert legend_of(ax)[0] == "mean of 3 genes"
    assert legend_of(ax)[2] == "corrected: 90.0%"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("raw molecules per cell of the type", "kept (%)")


def test_control_is_of_the_corrected_depth(mixed):
    """Large, so that chance plays no part: what is kept at random is the share of the cell's molecules that is kept."""
    mixed.X = mixed.X * 1000
    mixed.layers["resolvi_counts"] = mixed.layers["resolvi_counts"] * 1000
    ax = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=[("KRT8", "COL1A1")], return_ax=True)[1]
    tumor, stroma = points_of(ax, GREY)[:, 1]
    assert stroma == pytest.approx(90, abs=0.5)
    assert tumor == pytest.approx(100 * (11 * 0.9 + 11 * (1.8 + 0.5) / 3) / 22, abs=0.5)


def test_pairs_from_markers_and_from_raw_counts(mixed):
    markers = {"tumor": ["KRT8"], "immune": ["PTPRC", "CD3E"]}
    with pytest.warns(UserWarning, match="Markers that are not genes of the table are left out: 'CD3E'"):
        ax = rsd.pl.coexpression(mixed, labels_key="cell_type", markers=markers, return_ax=True)[0]
    np.testing.assert_allclose(points_of(ax, BLUE)[:, 0], [100 * 22 / 43], rtol=1e-6)
    # In the raw counts, KRT8 and PTPRC have a quarter of their expression in the other's type: not exclusive.
    mixed.X[mixed.X == 1] = 0
    mixed.X.eliminate_zeros()
    mixed.layers["resolvi_counts"] = mixed.X.copy()
    ax = rsd.pl.coexpression(mixed, labels_key="cell_type", return_ax=True)[0]
    assert len(points_of(ax, BLUE)) == 3


def test_the_means_are_those_of_the_audit():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0)
    rsd.tl.fit(sdata, max_epochs=20, show_progress_bar=False)
    audit = rsd.tl.audit(sdata, "cell_type", copy=True, show_progress_bar=False)
    rate = audit[audit["metric"] == "coexpression_rate"].set_index("layer")
    ax = rsd.pl.coexpression(sdata, labels_key="cell_type", return_ax=True)[0]
    title, _, corrected = legend_of(ax)
    assert title == f"mean of {rate['n']['raw']} pairs\nraw: {100 * rate['value']['raw']:.1f}%"
    assert corrected == f"corrected: {100 * rate['value']['corrected']:.1f}%"


def test_cells_without_a_type_own_no_gene(mixed):
    mixed.obs.loc[mixed.obs["cell_type"] == "stroma", "cell_type"] = np.nan
    pairs = [("KRT8", "PTPRC"), ("KRT8", "COL1A1")]
    rates, kept = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs, return_ax=True)
    assert len(points_of(rates, BLUE)) == 2
    assert len(points_of(kept, BLUE)) == 2  # COL1A1 is only in cells without a type


def test_pairs_that_no_cell_has_are_left_out(mixed):
    without = sp.diags((mixed.var_names != "COL1A1").astype(np.float32))
    mixed.X = mixed.X @ without
    mixed.layers["resolvi_counts"] = mixed.layers["resolvi_counts"] @ without
    pairs = [("KRT8", "PTPRC"), ("PECAM1", "COL1A1")]
    ax = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs, return_ax=True)[0]
    assert len(points_of(ax, BLUE)) == 1
    with pytest.raises(ValueError, match="No cell has a gene of any of the pairs"):
        rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs[1:])


def test_the_worst_are_named(mixed):
    pairs = [("KRT8", "COL1A1"), ("KRT8", "PTPRC")]
    axes = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs, n_names=1, return_ax=True)
    assert [text.get_text() for text in axes[0].texts] == ["KRT8 + PTPRC"]
    assert len(axes[1].texts) == 1
    axes = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=pairs, n_names=0, return_ax=True)
    assert not axes[0].texts and not axes[1].texts


def test_roots_have_a_place_for_zero(mixed):
    ax = rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=[("KRT8", "PTPRC")], return_ax=True)[0]
    to_axes = (ax.transData + ax.transAxes.inverted()).transform
    high = ax.get_xlim()[1]
    np.testing.assert_allclose(to_axes([(0, 0), (high / 4, high / 9), (high, high)]), [[0, 0], [1 / 2, 1 / 3], [1, 1]])


def test_errors(mixed):
    given = {"labels_key": "cell_type", "pairs": [("KRT8", "PTPRC")]}
    with pytest.raises(KeyError, match="labels_key='cluster'"):
        rsd.pl.coexpression(mixed, labels_key="cluster")
    with pytest.raises(ValueError, match="either `pairs` or `markers`"):
        rsd.pl.coexpression(mixed, **given, markers={"tumor": ["KRT8"]})
    with pytest.raises(KeyError, match="CD3E"):
        rsd.pl.coexpression(mixed, labels_key="cell_type", pairs=[("KRT8", "CD3E")])
    with pytest.raises(ValueError, match="`n_names` must be at least 0"):
        rsd.pl.coexpression(mixed, **given, n_names=-1)
    with pytest.raises(ValueError, match=r"obs\['sample'\] has one type only, 's0'"):
        rsd.pl.coexpression(mixed, labels_key="sample")
    with pytest.raises(ValueError, match="1 axes, but there are 2 panels"):
        rsd.pl.coexpression(mixed, **given, ax=Figure().subplots())
    with pytest.raises(KeyError, match="No fit under key_added='run2'"):
        rsd.pl.coexpression(mixed, **given, key_added="run2")
    mixed.X = mixed.X * 0 + sp.csr_matrix(np.ones(mixed.shape, dtype=np.float32))
    mixed.layers["resolvi_counts"] = mixed.X.copy()
    with pytest.raises(ValueError, match="yield no pairs: No exclusive markers at these thresholds.* Here: `markers="):
        rsd.pl.coexpression(mixed, labels_key="cell_type")
    del mixed.layers["resolvi_counts"]
    with pytest.raises(KeyError, match=r"'resolvi_counts'.*Please run `resolvi_sd.tl.fit"):
        rsd.pl.coexpression(mixed, **given)


def test_image(compare, add_results):
    """Three types of three genes each, and a tenth as much of the others'; of these, a correction removes most."""
    rng = np.random.default_rng(0)
    kind = np.arange(64) % 3
    own = rng.poisson(np.equal.outer(kind, np.arange(9) % 3) * rng.uniform(0.8, 4, 9))
    leaked = rng.poisson(0.1 * rng.uniform(0.8, 4, (1, 9)), (64, 9))
    table = ad.AnnData(sp.csr_matrix((own + leaked).astype(np.float32)), var=pd.DataFrame(index=list("ABCDEFGHI")))
    table.obs["cell_type"] = pd.Categorical(np.array(["tumor", "immune", "stroma"])[kind])
    add_results(table)
    kept = rng.uniform(0.85, 1, 9) * own + rng.uniform(0.1, 0.5, 9) * leaked
    table.layers["resolvi_counts"] = sp.csr_matrix(kept.astype(np.float32))
    table.obs["resolvi_true"] = kept.sum(axis=1) / (own + leaked).sum(axis=1)
    pairs = [(a, b) for a, b in combinations("ABCDEFGHI", 2) if (ord(a) - ord(b)) % 3]
    draw = {"labels_key": "cell_type", "pairs": pairs}
    compare("coexpression", lambda path: rsd.pl.coexpression(table, save=path, **draw), tolerance=2)
