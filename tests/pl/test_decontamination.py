"""The drawn curve is the recorded one, and the dot is where the counts are on it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import resolvi_sd as rsd

KEY = "resolvi_decontaminated"


@pytest.fixture
def removed(adata):
    """A table whose foreign molecules are removed as the square root of its own ones."""
    level = np.linspace(0, 1, 129)
    curve = pd.DataFrame({"level": level, "own_removed": level**4, "foreign_removed": level**2})
    genes = pd.DataFrame(
        {
            "gene": ["often", "seldom", "never", "rare"],
            "own": [500.0, 900.0, 60.0, 49.0],
            "own_removed": [0.12, 0.01, 0.0, 0.9],
            "foreign_removed": [0.5, 0.8, 0.2, 0.9],
        }
    )
    adata.uns[KEY] = {
        "fpr": 0.05, "level": 0.47, "own_removed": 0.049, "foreign_removed": 0.22, "curve": curve, "genes": genes,
        "n_cells": adata.n_obs,
    }  # fmt: skip
    return adata


def test_what_is_drawn(removed):
    ax = rsd.pl.decontamination(removed, return_ax=True)
    at_random, curve, levels, chosen = (line.get_xydata() for line in ax.lines)
    np.testing.assert_array_equal(curve, removed.uns[KEY]["curve"][["own_removed", "foreign_removed"]])
    np.testing.assert_array_equal(at_random, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(chosen, [[0.049, 0.22]])
    # 0.25 is too close to nothing, and 0.75 is beyond the axis.
    np.testing.assert_array_equal(levels, [[0.5**4, 0.5**2]])
    # The gene that loses most of its own molecules is named first; one of few molecules is left out.
    assert [text.get_text() for text in ax.texts] == ["0.5", "often", "seldom", "never"]
    (genes,) = ax.collections
    np.testing.assert_array_equal(genes.get_offsets(), [[0.12, 0.5], [0.01, 0.8], [0.0, 0.2]])
    assert ax.get_legend_handles_labels()[1] == ["genes", "at random", "by level", "level 0.47 (fpr=0.05)"]
    assert ax.get_xlim() == (0, 0.25)


def test_names_of_genes_and_levels_do_not_overlap(removed):
    # A gene just left of the number of the level, where its name would be written if nothing else were there.
    removed.uns[KEY]["genes"].loc[2, ["own_removed", "foreign_removed"]] = [0.064, 0.215]
    ax = rsd.pl.decontamination(removed, return_ax=True)
    ax.figure.canvas.draw()
    level, *names = (Text.get_window_extent(text) for text in ax.texts)  # without lines to the points
    assert len(names) == 3 and not any(level.overlaps(name) for name in names)


def test_how_much_of_what_goes_is_own(removed):
    removed.uns[KEY]["own_among_removed"] = 0.337
    ax = rsd.pl.decontamination(removed, return_ax=True)
    assert ax.get_legend_handles_labels()[1][-1] == "level 0.47 (fpr=0.05):\n34% of what goes is own"


def test_the_dot_is_always_in_view(removed):
    del removed.uns[KEY]["fpr"]
    removed.uns[KEY] |= {"level": 0.8, "own_removed": 0.4, "foreign_removed": 0.64}
    ax = rsd.pl.decontamination(removed, title="Removed", return_ax=True)
    assert ax.get_xlim() == (0, 0.8) and ax.get_title() == "Removed"
    assert ax.get_legend_handles_labels()[1][-1] == "level 0.80"


def test_all_genes_are_in_view(removed):
    removed.uns[KEY]["genes"].loc[0, "own_removed"] = 0.6
    for n_genes, named in ((1, ["often"]), (0, [])):
        ax = rsd.pl.decontamination(removed, n_genes=n_genes, return_ax=True)
        # At this width 0.75 is in view as well.
        assert ax.get_xlim() == (0, pytest.approx(0.66))
        assert [text.get_text() for text in ax.texts] == ["0.5", "0.75", *named]
    with pytest.raises(ValueError, match="`n_genes` must be at least 0, not -1"):
        rsd.pl.decontamination(removed, n_genes=-1)


def test_by_gene_those_are_named_that_keep_most_of_what_is_foreign(removed):
    del removed.uns[KEY]["level"]
    removed.uns[KEY]["per_gene"] = True
    ax = rsd.pl.decontamination(removed, n_genes=2, return_ax=True)
    assert [text.get_text() for text in ax.texts] == ["never", "often"]
    assert ax.get_legend_handles_labels()[1] == ["genes", "at random", "by one level", "level by gene (fpr=0.05)"]


def test_it_draws_what_the_tool_writes():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0, transcripts=False)
    rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    rsd.tl.decontaminated_counts(sdata, show_progress_bar=False)
    chosen = rsd.pl.decontamination(sdata, return_ax=True).lines[-1].get_xydata()
    record = sdata.tables["table"].uns[KEY]
    np.testing.assert_array_equal(chosen, [[record["own_removed"], record["foreign_removed"]]])
    at_level = record["curve"].set_index("level").loc[0.5]
    np.testing.assert_allclose(chosen[0], at_level)


def test_it_draws_levels_by_gene():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0, transcripts=False)
    rsd.tl.fit(sdata, max_epochs=2, show_progress_bar=False)
    rsd.tl.decontaminated_counts(sdata, fpr=0.05, per_gene=True, show_progress_bar=False)
    ax = rsd.pl.decontamination(sdata, return_ax=True)
    record = sdata.tables["table"].uns[KEY]
    x, y = ax.lines[-1].get_xydata()[0]
    assert (x, y) == (record["own_removed"], record["foreign_removed"])
    assert y < np.interp(x, record["curve"]["own_removed"], record["curve"]["foreign_removed"])
    keeps_most = record["genes"].query("own >= 50").sort_values("foreign_removed")["gene"].iloc[0]
    assert ax.texts[0].get_text() == keeps_most


def test_a_curve_of_other_cells_is_warned_of(removed):
    removed.uns[KEY]["n_cells"] = 1000
    with pytest.warns(
        UserWarning, match=r"for 1,000 cells, but the table has 64 now: run `resolvi_sd.tl.decontam.*again"
    ):
        rsd.pl.decontamination(removed)


def test_nothing_to_draw(adata, removed):
    level = removed.uns[KEY].pop("level")
    with pytest.raises(ValueError, match=rf"uns\['{KEY}'\]` lacks 'level'"):
        rsd.pl.decontamination(removed)
    removed.uns[KEY]["level"] = level
    del removed.uns[KEY]["curve"]
    with pytest.raises(ValueError, match=rf"uns\['{KEY}'\]` lacks 'curve'\. Please run"):
        rsd.pl.decontamination(removed)
    removed.uns[KEY]["curve"] = pd.DataFrame({"level": [0.0]})
    with pytest.raises(ValueError, match="lacks 'own_removed', 'foreign_removed'"):
        rsd.pl.decontamination(removed)
    # As a record of an earlier version has it.
    del removed.uns[KEY]["genes"]
    with pytest.raises(ValueError, match=r"lacks 'genes'\. Please run"):
        rsd.pl.decontamination(removed)
    del removed.uns[KEY]
    with pytest.raises(KeyError, match=r"run `resolvi_sd\.tl\.decontaminated_counts\(.*key_added='resolvi'\)` first"):
        rsd.pl.decontamination(removed)
    with pytest.raises(KeyError, match="fits under: 'resolvi'"):
        rsd.pl.decontamination(removed, key_added="other")


def test_image(compare, removed):
    compare("decontamination", lambda path: rsd.pl.decontamination(removed, figsize=(4, 3), save=path))
