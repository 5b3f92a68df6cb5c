"""Whole corrected counts remove more at the same cost than expectations do, and cost what was asked for."""

import logging
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import resolvi_sd as rsd
from resolvi_sd.metrics import removal

# In small tissues many genes are hardly told from what leaked; a test of its own asks for the warning.
pytestmark = pytest.mark.filterwarnings("ignore:More than half of the own molecules")

QUIET = {"show_progress_bar": False}
LAYER = RECORD = "resolvi_decontaminated"
COST = "resolvi_own_removed"


@pytest.fixture(scope="module")
def leaked():
    """A tissue that leaks, fitted until convergence."""
    sdata = rsd.datasets.simulate_tissue(
        n_cells=1500, n_genes=100, n_types=5, regime="xenium", rng=0, transcripts=False
    )
    rsd.tl.fit(sdata, **QUIET)
    return sdata.tables["table"]


def decontaminated(table, **kwargs):
    return rsd.tl.decontaminated_counts(table, copy=True, **QUIET, **kwargs).layers[LAYER]


@pytest.mark.parametrize("fpr", [0.05, 0.1, 0.2])
def test_it_costs_what_was_asked_for(leaked, fpr):
    """Up to what a fit of so few cells gets wrong: it takes 1 to 2% more of the own molecules than it expects to."""
    removed = removal(leaked.X, leaked.layers["true_own"], decontaminated(leaked, fpr=fpr))
    assert fpr < removed.own < fpr + 0.025
    assert removed.foreign > 3 * removed.own


def test_more_is_removed_than_by_expectations_of_the_same_cost(leaked):
    own, corrected = leaked.layers["true_own"], leaked.layers["resolvi_counts"]
    expected, whole = (removal(leaked.X, own, counts) for counts in (corrected, decontaminated(leaked, fpr=0.1)))
    assert whole.own < expected.own and whole.foreign > expected.foreign + 0.03


def test_the_median_has_the_least_error(leaked):
    own = leaked.layers["true_own"]

    def error(counts):
        return abs(counts - own).sum() / leaked.X.sum()

    median = error(decontaminated(leaked))
    assert median < 0.95 * min(error(leaked.X), error(leaked.layers["resolvi_counts"]))
    assert median < min(error(decontaminated(leaked, fpr=fpr)) for fpr in (0.01, 0.2))


def test_genes_and_cells_that_pay_are_told(leaked):
    """Of the own molecules of each, the share that is expected to go follows the one that goes."""
    table = rsd.tl.decontaminated_counts(leaked, fpr=0.1, copy=True, **QUIET)
    own = leaked.layers["true_own"].toarray()
    lost = np.maximum(own - table.layers[LAYER].toarray(), 0)
    genes = table.uns[RECORD]["genes"]
    for axis, found, least in ((0, genes["own_removed"], 0.8), (1, table.obs[COST], 0.4)):
        many = own.sum(axis=axis) >= 50
        true = lost.sum(axis=axis)[many] / own.sum(axis=axis)[many]
        assert many.sum() > 50 and np.corrcoef(found[many], true)[0, 1] > least


def test_what_is_written(fitted, caplog):
    table = fitted.tables["table"]
    before = table.copy()
    with caplog.at_level(logging.INFO, logger="resolvi_sd"):
        assert rsd.tl.decontaminated_counts(fitted, fpr=0.05, **QUIET) is None
    assert "of the foreign ones" in caplog.text
    counts, record = table.layers[LAYER], table.uns[RECORD]
    assert isinstance(counts, sp.csr_matrix) and counts.dtype == np.int32
    assert counts.data.all() and (table.X - counts).min() >= 0
    assert record["fpr"] == 0.05 and 0.04 < record["own_removed"] <= 0.05 < record["foreign_removed"]
    curve = record["curve"]
    assert list(curve.columns) == ["level", "own_removed", "foreign_removed"]
    assert curve.iloc[0].tolist() == [0, 0, 0] and curve["level"].iloc[-1] == 1
    assert (np.diff(curve, axis=0) >= 0).all() and (curve["foreign_removed"] >= curve["own_removed"]).all()
    # The molecules removed are those that the shares say.
    total_own = table.layers["resolvi_counts"].sum()
    expected = record["own_removed"] * total_own + record["foreign_removed"] * (table.X.sum() - total_own)
    assert table.X.sum() - counts.sum() == pytest.approx(expected, rel=1e-4)
    # And so do those of its genes and cells.
    genes, cells = record["genes"], table.obs[COST]
    assert genes["gene"].tolist() == table.var_names.tolist() and cells.dtype == np.float32
    own = table.layers["resolvi_counts"]
    np.testing.assert_allclose(genes["own"], np.asarray(own.sum(axis=0)).ravel(), rtol=1e-4)
    np.testing.assert_allclose(genes["own"] + genes["foreign"], np.asarray(table.X.sum(axis=0)).ravel(), rtol=1e-6)
    assert genes["own"] @ genes["own_removed"] == pytest.approx(record["own_removed"] * total_own, rel=1e-4)
    assert np.asarray(own.sum(axis=1)).ravel() @ cells.fillna(0) == pytest.approx(genes["own"] @ genes["own_removed"])
    # Nothing else is changed.
    del table.layers[LAYER], table.uns[RECORD], table.obs[COST]
    assert list(table.obs) == list(before.obs)
    assert set(table.layers) == set(before.layers) and set(table.uns) == set(before.uns)
    assert abs(table.layers["resolvi_counts"] - before.layers["resolvi_counts"]).nnz == 0


def test_a_share_that_takes_mostly_own_molecules_is_warned_of(leaked, caplog):
    record = rsd.tl.decontaminated_counts(leaked, fpr=0.05, copy=True, **QUIET).uns[RECORD]
    assert 0 < record["own_among_removed"] < 0.5
    own = leaked.layers["resolvi_counts"].sum()
    by_shares = record["own_removed"] * own
    by_shares /= by_shares + record["foreign_removed"] * (leaked.X.sum() - own)
    assert record["own_among_removed"] == pytest.approx(by_shares, rel=1e-3)
    for per_gene, otherwise in ((False, "None removes only"), (True, "fpr=None without `per_gene` removes only")):
        with pytest.warns(UserWarning, match=rf"fpr=0\.6 removes, \d\d% are expected to be own, some.* {otherwise}"):
            decontaminated(leaked, fpr=0.6, per_gene=per_gene)


@pytest.mark.filterwarnings("default:More than half")
def test_genes_that_lose_most_of_their_own_molecules_are_warned_of(leaked):
    with pytest.warns(UserWarning, match="More than half of the own molecules of") as said:
        record = rsd.tl.decontaminated_counts(leaked, fpr=0.2, copy=True, **QUIET).uns[RECORD]
    genes = record["genes"].query("own >= 50 and own_removed > 0.5").sort_values("own_removed", ascending=False)
    assert len(genes) > 0 and record["own_removed"] < 0.5
    costliest = f"{genes['gene'].iloc[0]} {genes['own_removed'].iloc[0]:.0%}"
    text = next(str(warning.message) for warning in said if "More than half" in str(warning.message))
    assert re.search(rf"own molecules of {len(genes)} of 100 genes are expected to be removed.*: {costliest}", text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        decontaminated(leaked, fpr=0.001)
        decontaminated(leaked, fpr=0.2, per_gene=True)


def test_no_gene_loses_more_than_its_share(leaked, caplog):
    with caplog.at_level(logging.INFO, logger="resolvi_sd"):
        table = rsd.tl.decontaminated_counts(leaked, fpr=0.1, per_gene=True, copy=True, **QUIET)
    record, own = table.uns[RECORD], leaked.layers["true_own"]
    genes = record["genes"]
    assert genes["own_removed"].max() <= 0.1 and genes["own_removed"].median() > 0.09
    assert re.search(r"\(level 0\.\d+ to 0\.\d+, by gene\)", caplog.text)
    assert record["per_gene"] and "level" not in record and genes["level"].nunique() > 50
    # With one level for all the same cost takes more foreign molecules, and most of some genes.
    of_all = rsd.tl.decontaminated_counts(leaked, fpr=0.1, copy=True, **QUIET)
    assert not of_all.uns[RECORD]["per_gene"] and set(of_all.uns[RECORD]["genes"]["level"]) == {
        of_all.uns[RECORD]["level"]
    }
    own, even, uneven = own.toarray(), table.layers[LAYER].toarray(), of_all.layers[LAYER].toarray()
    of_even, of_uneven = (removal(leaked.X, own, layer) for layer in (even, uneven))
    assert 0.8 * of_uneven.foreign < of_even.foreign < of_uneven.foreign and of_even.own < of_uneven.own + 0.005
    many = own.sum(axis=0) >= 100
    of_even, of_uneven = ((np.maximum(own - layer, 0).sum(axis=0) / own.sum(axis=0))[many] for layer in (even, uneven))
    assert of_even.max() < 0.25 < 0.5 < of_uneven.max()


def test_more_may_be_lost_and_more_is_removed(fitted):
    table = fitted.tables["table"]
    strict, loose = (decontaminated(table, fpr=fpr) for fpr in (0.02, 0.2))
    assert (strict - loose).min() >= 0 and strict.sum() > loose.sum()
    assert LAYER not in table.layers and RECORD not in table.uns


def test_another_fit_has_its_own_and_a_new_one_removes_the_old(fitted):
    table = fitted.tables["table"]
    rsd.tl.fit(fitted, max_epochs=1, key_added="second", likelihood="poisson", **QUIET)
    rsd.tl.decontaminated_counts(fitted, key_added="second", **QUIET)
    assert "second_decontaminated" in table.layers and LAYER not in table.layers
    assert "second_own_removed" in table.obs and COST not in table.obs
    assert "fpr" not in table.uns["second_decontaminated"] and table.uns["second_decontaminated"]["level"] == 0.5
    rsd.tl.fit(fitted, max_epochs=1, key_added="second", **QUIET)
    assert "second_decontaminated" not in table.layers and "second_decontaminated" not in table.uns
    assert "second_own_removed" not in table.obs


def test_it_is_written_into_a_store_and_found_again(fitted, tmp_path):
    import spatialdata as sd

    fitted.write(tmp_path / "tissue.zarr")
    sdata = sd.read_zarr(tmp_path / "tissue.zarr")
    for per_gene in (False, True):
        rsd.tl.decontaminated_counts(sdata, fpr=0.1, per_gene=per_gene, **QUIET)
        rsd.io.write_results(sdata, "table")
        table, again = sdata.tables["table"], sd.read_zarr(tmp_path / "tissue.zarr").tables["table"]
        assert abs(again.layers[LAYER] - table.layers[LAYER]).nnz == 0 and again.layers[LAYER].dtype == np.int32
        np.testing.assert_array_equal(again.obs[COST], table.obs[COST])
        record, stored = table.uns[RECORD], again.uns[RECORD]
        assert set(stored) == set(record) and bool(stored["per_gene"]) is per_gene and int(stored["n_cells"]) == 400
        assert per_gene or float(stored["level"]) == record["level"]
        for name in ("curve", "genes"):
            pd.testing.assert_frame_equal(
                stored[name], record[name], check_dtype=False, check_index_type=False, check_column_type=False
            )


def test_cells_without_counts_or_neighbors(tissue):
    table = tissue.tables["table"][:3].copy()
    table.obs["section"] = ["a", "b", "c"]
    with pytest.warns(UserWarning, match="No cell has a neighbor"):
        rsd.tl.fit(table, max_epochs=1, library_key="section", **QUIET)
    counts = decontaminated(table)
    assert 0 < counts.sum() <= table.X.sum()
    empty = tissue.tables["table"].copy()
    empty.X = sp.csr_matrix(sp.diags_array((np.arange(empty.n_obs) >= 5).astype(np.float32)) @ empty.X)
    with pytest.warns(UserWarning, match="have no counts"):
        rsd.tl.fit(empty, max_epochs=1, **QUIET)
    kept = rsd.tl.decontaminated_counts(empty, fpr=0.1, per_gene=True, copy=True, **QUIET)
    assert kept.layers[LAYER][:5].nnz == 0
    np.testing.assert_array_equal(np.flatnonzero(kept.obs[COST].isna()), np.arange(5))


def test_a_gene_without_molecules_has_no_level(tissue, caplog):
    table = tissue.tables["table"].copy()
    table.X = sp.csr_matrix(table.X @ sp.diags_array((np.arange(table.n_vars) > 0).astype(np.float32)))
    table.X.eliminate_zeros()
    rsd.tl.fit(table, max_epochs=1, **QUIET)
    with caplog.at_level(logging.INFO, logger="resolvi_sd"):
        rsd.tl.decontaminated_counts(table, fpr=0.1, per_gene=True, **QUIET)
    genes = table.uns[RECORD]["genes"]
    assert genes.loc[0, ["own", "foreign"]].tolist() == [0, 0]
    assert genes.loc[0, ["level", "own_removed", "foreign_removed"]].isna().all()
    assert f"(level {genes['level'].min():.3f} to {genes['level'].max():.3f}, by gene)" in caplog.text


def test_genes_of_which_nearly_all_is_foreign_are_told(caplog):
    """No simulated gene is that foreign: what a gene's table says is logged."""
    from resolvi_sd._analysis import _decontaminated

    genes = pd.DataFrame(
        {
            "gene": ["probe", "few", "gone", "own"],
            "own": [10.0, 1.0, 10.0, 900.0],
            "own_removed": 0.05,
            "foreign": [500.0, 40.0, 500.0, 100.0],
            "foreign_removed": [0.13, 0.1, 0.9, 0.2],
        }
    )
    with caplog.at_level(logging.INFO, logger="resolvi_sd"):
        _decontaminated._tell_of_genes(genes, per_gene=True)
    assert "Most molecules of 1 of 4 genes are expected to be foreign" in caplog.text
    assert caplog.text.strip().endswith("less than half of these are removed: probe 13%.")


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 5, float("nan")])
def test_a_share_that_is_none_is_refused(fitted, fpr):
    with pytest.raises(ValueError, match="`fpr` must be positive and below 1 .*the share of.*None removes"):
        rsd.tl.decontaminated_counts(fitted, fpr=fpr, **QUIET)


def test_corrected_counts_are_not_fitted_nor_offered_as_counts(fitted):
    table = fitted.tables["table"]
    rsd.tl.decontaminated_counts(fitted, **QUIET)
    for layer in (LAYER, "resolvi_counts"):
        with pytest.raises(ValueError, match=f"layer='{layer}' holds results of the fit under key_added='resolvi'"):
            rsd.tl.fit(fitted, layer=layer, key_added="second", **QUIET)
    rsd.ResolVI.setup_anndata(table, layer=LAYER)
    with pytest.raises(ValueError, match="not counts as they were measured"):
        rsd.ResolVI(table)
    table.layers["counts"], table.X = table.X.copy(), table.X.log1p()
    with pytest.raises(ValueError, match=r"integers are in: .*layer='counts'\. Put them back") as raised:
        rsd.tl.decontaminated_counts(fitted, **QUIET)
    assert LAYER not in str(raised.value)


def test_bad_input(fitted, tissue):
    for fpr in ("0.05", True, [0.05]):
        with pytest.raises(TypeError, match="`fpr` must be a number"):
            rsd.tl.decontaminated_counts(fitted, fpr=fpr, **QUIET)
    with pytest.raises(TypeError, match="`per_gene` must be True or False, not 'gene'"):
        rsd.tl.decontaminated_counts(fitted, fpr=0.05, per_gene="gene", **QUIET)
    with pytest.raises(ValueError, match=r"per_gene=True needs `fpr`.* e\.g\. 0\.05"):
        rsd.tl.decontaminated_counts(fitted, per_gene=True, **QUIET)
    with pytest.raises(KeyError, match=r"resolvi_sd\.tl\.fit"):
        rsd.tl.decontaminated_counts(tissue, **QUIET)
    assert LAYER not in fitted.tables["table"].layers
