"""The posterior of a group's expression: sums by hand, coverage, and what is known of received molecules."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

from resolvi_sd._analysis import Comparison, DecisionRule, Detection, GroupTotals, compare_expression, detection
from resolvi_sd._analysis import _expression as comparing
from resolvi_sd._analysis._cell_blocks import CellBlock
from resolvi_sd._analysis._group_expression import draw_expression, group_totals
from resolvi_sd._tables import Groups

rng = np.random.default_rng(0)


def totals_of(own, expected, observed=None, size=1.0):
    """Totals with no more variance than Poisson counts."""
    own, expected = np.atleast_2d(own).astype(float), np.atleast_2d(expected).astype(float)
    observed = own if observed is None else np.atleast_2d(observed).astype(float)
    return GroupTotals(
        n_cells=np.ones(len(own), dtype=np.int64),
        size=np.full(len(own), size),
        size_squared=np.zeros(len(own)),
        observed=observed,
        own=own,
        expected=expected,
        reference=expected,
        own_squared=np.zeros(own.shape),
        own_by_size=np.zeros(own.shape),
    )


def compared(totals, second, raw, *, pseudocount, n_samples, seed):
    """The table of group 0 against others, whose corrected counts are the raw ones."""
    (table,) = compare_expression(
        totals,
        [Comparison(0, second, "a", "rest")],
        raw,
        raw,
        DecisionRule("change", delta=0.25, fdr=0.05),
        pseudocount=pseudocount,
        depths=[100.0],
        n_samples=n_samples,
        rng=np.random.default_rng(seed),
    )
    return table


def test_totals_are_sums_over_the_cells_of_each_group():
    n_cells, n_genes = 40, 5
    counts = sp.csr_matrix(rng.poisson(2.0, (n_cells, n_genes)).astype(np.float32))
    own = counts.multiply(rng.random((n_cells, n_genes))).tocsr().astype(np.float32)
    expression = rng.dirichlet(np.ones(n_genes), n_cells).astype(np.float32)
    codes = rng.integers(-1, 2, n_cells)
    among = rng.random(n_cells) < 0.8
    groups = Groups(codes, ("a", "b"), "key")
    order = rng.permutation(n_cells)
    blocks = [CellBlock(rows, own[rows], expression[rows], 2 * expression[rows]) for rows in np.split(order, [7, 30])]
    found = group_totals(np.ones((2, n_genes)), groups, blocks, genes=np.arange(n_genes), among=among)
    for code in range(2):
        cells = np.flatnonzero((codes == code) & among)
        mine, size = own[cells].toarray().astype(float), own[cells].toarray().sum(1, dtype=float)
        np.testing.assert_allclose(found.own[code], mine.sum(0), rtol=1e-6)
        np.testing.assert_allclose(found.expected[code], size @ expression[cells], rtol=1e-5)
        np.testing.assert_allclose(found.reference[code], 2 * size @ expression[cells], rtol=1e-5)
        residual = mine - np.outer(size, mine.sum(0) / size.sum())
        np.testing.assert_allclose(found.variance[code], len(cells) * residual.var(0, ddof=1), rtol=0.05, atol=1e-3)


def test_totals_of_some_genes_are_those_of_a_table_without_the_others():
    n_cells, n_genes, genes = 30, 6, np.array([0, 2, 3, 5])
    seen = rng.poisson(2.0, (n_cells, n_genes)) * np.isin(np.arange(n_genes), genes)
    counts = sp.csr_matrix(seen.astype(np.float32))
    own = counts.multiply(rng.random((n_cells, n_genes))).tocsr().astype(np.float32)
    expression = rng.dirichlet(np.ones(n_genes), n_cells).astype(np.float32)
    groups, rows = Groups(rng.integers(0, 2, n_cells), ("a", "b"), "key"), np.arange(n_cells)
    blocks = [CellBlock(rows, own, expression, expression)]
    found = group_totals(np.ones((2, 4)), groups, blocks, genes=genes, among=np.ones(n_cells, bool))
    among_them = expression[:, genes] / expression[:, genes].sum(1, keepdims=True)
    blocks = [CellBlock(rows, own[:, genes], among_them, among_them)]
    expected = group_totals(np.ones((2, 4)), groups, blocks, genes=np.arange(4), among=np.ones(n_cells, bool))
    for field in fields(found):
        np.testing.assert_allclose(getattr(found, field.name), getattr(expected, field.name), rtol=1e-6)


def test_intervals_hold_the_true_expression_as_often_as_they_say():
    # The prior's own world: the group's factor on the decoder's expectation is Gamma(1, 1), its molecules are Poisson.
    expected = np.repeat([0.5, 5.0, 50.0], 700)
    factor = rng.standard_gamma(1.0, expected.shape)
    totals = totals_of(rng.poisson(factor * expected), expected, size=1000.0)
    draws = draw_expression(totals, slice(None), n_samples=400, rng=rng)[:, 0]
    rank = (draws < factor * expected / 1000).mean(axis=0)
    for part in np.split(rank, 3):
        assert stats.kstest(part, "uniform").pvalue > 1e-3
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    truth = factor * expected / 1000
    # 2,100 intervals have a standard error of 0.65%.
    assert ((low < truth) & (truth < high)).mean() == pytest.approx(0.9, abs=0.025)


def test_the_mean_of_the_draws_is_the_posterior_mean():
    totals = totals_of([[0, 3, 200]], [[2.0, 9.0, 100.0]], size=500.0)
    draws = draw_expression(totals, slice(None), n_samples=40_000, rng=rng)[:, 0]
    by_hand = np.array([2, 9, 100]) / 500 * np.array([1 / 3, 4 / 10, 201 / 101])
    np.testing.assert_allclose(totals.mean_expression()[0], by_hand)
    np.testing.assert_allclose(draws.mean(0), by_hand, rtol=0.03)


def test_molecules_of_one_cell_are_less_evidence_than_those_of_many():
    own = np.full((2, 1), 100.0)
    totals = replace(totals_of(own, own, size=1000.0), own_squared=np.array([[100.0], [10_000.0]]))
    many, one = draw_expression(totals, slice(None), n_samples=5000, rng=rng).std(axis=0).ravel()
    # 101 and 2 events: relative errors of 0.1 and 0.7.
    assert many == pytest.approx(0.1 / np.sqrt(101), rel=0.05) and one == pytest.approx(0.1 / np.sqrt(2), rel=0.05)


def test_received_molecules_are_known_up_to_a_factor():
    # So many molecules that counting has no part in it.
    observed, own = 1e8, np.array([9e7, 7e7, 5e7])
    totals = totals_of(own, own, observed=np.full(3, observed), size=1e8)
    draws = draw_expression(totals, slice(None), n_samples=20_000, rng=rng)[:, 0] * 1e8
    foreign = (observed - draws) / (observed - own)
    np.testing.assert_allclose(foreign.std(axis=0), 0.15, rtol=0.1)
    assert (draws < observed * 1.001).all()


def test_a_gene_that_was_mostly_received_may_be_all_its_own_or_none():
    totals = totals_of([[1e4]], [[1e4]], observed=[[1e6]], size=1e6)
    draws = draw_expression(totals, slice(None), n_samples=20_000, rng=rng).ravel()
    assert np.quantile(draws, 0.05) < 0.001 and 0.3 < np.quantile(draws, 0.95) < 1


def test_how_a_side_is_divided_does_not_matter():
    n_cells, n_genes = 400, 6
    counts = sp.csr_matrix(rng.poisson(1.0, (n_cells, n_genes)).astype(np.float32))
    own = counts.multiply(rng.random((n_cells, n_genes))).tocsr().astype(np.float32)
    expression = rng.dirichlet(np.ones(n_genes), n_cells).astype(np.float32)
    rows, genes, among = np.arange(n_cells), np.arange(n_genes), np.ones(n_cells, bool)
    tables = []
    for n_parts in (1, 150):
        codes = np.where(rows < 100, 0, 1 + rows % n_parts)
        groups = Groups(codes, tuple(map(str, range(n_parts + 1))), "key")
        seen = detection(counts, groups, genes=genes, among=among)
        blocks = [CellBlock(rows, own, expression, expression)]
        totals = group_totals(seen.total, groups, blocks, genes=genes, among=among)
        second = tuple(range(1, n_parts + 1))
        tables.append(compared(totals, second, seen, pseudocount=1e-3, n_samples=200, seed=2))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)


@pytest.mark.parametrize("held", [1 << 28, 1])
def test_several_groups_together_are_one_group_of_their_cells(monkeypatch, held):
    monkeypatch.setattr(comparing, "_HELD", held)
    own = np.array([[4e6, 2e6], [1e6, 3e6], [3e6, 1e6]])
    totals = totals_of(own, own, size=1e8)
    n_cells, size = np.array([10, 10, 30]), np.array([1e8, 3e8, 1e8])
    totals = replace(totals, size=size)
    seen = Detection(n_cells, own, np.ones((3, 2)))
    table = compared(totals, (1, 2), seen, pseudocount=1e-9, n_samples=2000, seed=1)
    np.testing.assert_allclose(table["expression2"], own[1:].sum(axis=0) / size[1:].sum(), rtol=0.01)
    np.testing.assert_allclose(table["lfc_mean"], np.log2([4, 2]), atol=0.01)
    assert table["is_de_fdr"].tolist() == [True, True] and (table["n_cells2"] == 40).all()
