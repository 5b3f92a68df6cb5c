"""Tails against scipy in float64, and the choice of molecules against all other choices."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from resolvi_sd._model.decontamination import MEDIAN, highest_level, keep_above, molecules_to_keep, removal_curves
from resolvi_sd._model.delaporte import EntryRates, own_tails
from resolvi_sd._model.molecules import entry_rates
from resolvi_sd._model.posterior import core_rates
from resolvi_sd._tiles import cut_minibatch
from tests.model._tissues import small_module, small_tissue

magnitude = lambda low, high: st.floats(low, high).map(lambda e: 10.0**e)  # noqa: E731


def by_convolution(x, own, diffused, background, r):
    """P(own >= c) for c = 1..x: over k molecules that are not background, a binomial of k."""
    below = np.arange(x)
    if math.isinf(r):
        return stats.binom.sf(below, x, own / (own + diffused + background))
    k, mu = np.arange(x + 1), own + diffused
    log_weight = stats.nbinom.logpmf(k, r, r / (r + mu)) + stats.poisson.logpmf(x - k, background)
    weight = np.exp(log_weight - log_weight.max())
    return sum(w * stats.binom.sf(below, n, own / mu) for n, w in enumerate(weight / weight.sum()))


def tails_of(x, *rates):
    """The same from the compiled function."""
    tail, start = own_tails(EntryRates(np.array([x]), *(np.array([rate]) for rate in rates)))
    assert start.tolist() == [0, x]
    return tail


def mass_of(tail):
    """P(own = 0), ..., P(own = x)."""
    return -np.diff(np.concatenate([[1.0], tail, [0.0]]))


@given(
    st.integers(1, 400),
    magnitude(-6, 3),
    magnitude(-6, 3),
    magnitude(-8, 2.5),
    st.one_of(magnitude(-3, 4), st.just(math.inf)),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_tails_equal_the_convolution(x, own, diffused, background, r):
    found = tails_of(x, own, diffused, background, r)
    np.testing.assert_allclose(found, by_convolution(x, own, diffused, background, r), rtol=1e-6, atol=1e-9)
    assert (np.diff(found) <= 1e-12).all()


def test_tails_where_only_one_source_is_expected():
    for r in (0.5, math.inf):
        np.testing.assert_array_equal(tails_of(3, 2.0, 0.0, 0.0, r), [1, 1, 1])
        np.testing.assert_array_equal(tails_of(3, 0.0, 2.0, 0.0, r), [0, 0, 0])
        np.testing.assert_array_equal(tails_of(3, 0.0, 0.0, 2.0, r), [0, 0, 0])


def test_large_counts_are_exact_and_do_not_overflow():
    found = tails_of(20_000, 9_000.0, 6_000.0, 4_000.0, 3.0)
    assert np.isfinite(found).all() and (np.diff(found) <= 1e-12).all()
    signal = np.exp(stats.nbinom.logpmf(k := np.arange(20_001), 3.0, 3 / 15_003) + stats.poisson.logpmf(k[::-1], 4_000))
    expected = (signal * k).sum() / signal.sum() * 0.6
    assert found.sum() == pytest.approx(expected, rel=1e-6)


def random_entries(size, seed=0, largest=4):
    rng = np.random.default_rng(seed)
    value = rng.integers(1, largest + 1, size).astype(np.float32)
    return EntryRates(value, *rng.gamma(1.0, 1.0, (3, size)), rng.gamma(1.0, 2.0, size) + 0.1)


def test_no_other_choice_is_better_at_the_price_of_a_level():
    """Every corrected count of five entries is tried, with its expected losses by the probabilities themselves.

    To keep the c-th molecule changes (1 - t) own_lost + t foreign_left by t - P(own >= c), so that a level of t has to
    make that least. Then no choice that loses as few own molecules leaves fewer foreign ones, and t = 1/2 has the least
    absolute error.
    """
    for seed in range(5):
        entries = random_entries(5, seed, largest=3)
        masses = [mass_of(by_convolution(int(x), *map(float, rest))) for x, *rest in zip(*entries, strict=True)]

        def expected(kept, masses=masses):
            own_lost = foreign_left = 0.0
            for c, mass in zip(kept, masses, strict=True):
                own = np.arange(len(mass))
                own_lost += mass @ np.maximum(own - c, 0)
                foreign_left += mass @ np.maximum(c - own, 0)
            return own_lost, foreign_left

        others = np.array([expected(kept) for kept in itertools.product(*(range(int(x) + 1) for x in entries.value))])
        for level in (0.02, 0.1, 0.3, MEDIAN, 0.7, 0.9, 0.98):
            price = np.array([1 - level, level])
            found = keep_above(entries, level)
            own_lost, foreign_left = expected(found.kept)
            assert price @ [own_lost, foreign_left] == pytest.approx((others @ price).min(), abs=1e-9)
            assert found.own_removed.sum() == pytest.approx(own_lost, rel=1e-9)
            assert found.own.sum() == pytest.approx(expected(np.zeros(5, dtype=int))[0], rel=1e-9)


def test_levels_may_differ_between_entries():
    entries = random_entries(300)
    tail, start = own_tails(entries)
    alone = [tails_of(int(x), *map(float, rest)) for x, *rest in zip(*entries, strict=True)]
    np.testing.assert_array_equal(tail, np.concatenate(alone))
    levels = np.random.default_rng(1).random(300)
    found = keep_above(entries, levels)
    np.testing.assert_array_equal(found.kept, [(t >= level).sum() for t, level in zip(alone, levels, strict=True)])
    lost = [t[t < level].sum() for t, level in zip(alone, levels, strict=True)]
    np.testing.assert_allclose(found.own_removed, lost, rtol=1e-12)
    nothing = keep_above(EntryRates(*np.empty((5, 0))), 0.5)
    assert [len(part) for part in nothing] == [0, 0, 0] and nothing.kept.dtype == np.int32


def test_the_highest_level_that_a_share_allows():
    # Own molecules below the levels 0, 0.25, ..., 1: of two genes, and of one that has none.
    own = np.array([[0, 1, 2, 4, 10.0], [0, 0, 0, 0, 5], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(highest_level(own, 0.1), [0.25, 0.75, np.nan])
    np.testing.assert_array_equal(highest_level(own, 0.39), [0.5, 0.75, np.nan])
    assert highest_level(own[0], 0.4) == 0.75


@pytest.mark.parametrize("config", [{}, {"likelihood": "poisson"}, {"dispersion": "gene-batch"}])
def test_levels_keep_to_their_share_of_own_molecules_whatever_the_parts(config):
    tissue, _ = small_tissue(n_batches=2)
    module = small_module(tissue, **config)
    everyone = np.arange(tissue.n_cells)
    parts = np.array_split(np.random.default_rng(0).permutation(everyone), 7)
    curve, of_genes = removal_curves(module, tissue, parts, per_gene=True)
    assert curve.own[-1] + curve.foreign[-1] == pytest.approx(tissue.counts.sum())
    every = (len(curve.level) - 1) // (of_genes.shape[1] - 1)
    np.testing.assert_allclose(of_genes.sum(axis=0), curve.own[::every], rtol=1e-9)
    with torch.no_grad():
        minibatch = cut_minibatch(tissue, everyone)
        mean, _ = module.latent_encoder(minibatch.features, minibatch.categories)
        beta = module.neighbor_weights(minibatch, module.leakage_range())
        rates, _ = core_rates(module, minibatch, mean, module.shares(minibatch), beta)
        entries = entry_rates(module, minibatch, rates)
    tails = [by_convolution(int(x), *map(float, rest)) for x, *rest in zip(*entries, strict=True)]
    assert curve.own[-1] == pytest.approx(sum(tail.sum() for tail in tails), rel=1e-4)
    for fpr in (0.01, 0.1, 0.4):
        level = float(highest_level(curve.own, fpr))
        found = molecules_to_keep(module, tissue, parts, level)
        kept = found.counts
        assert kept.dtype == np.int32 and kept.data.all() and (tissue.counts - kept).min() >= 0
        by_hand = np.array([(tail >= level).sum() for tail in tails])
        stored = np.asarray(kept[tissue.counts.nonzero()]).ravel()
        # Decoded in other parts, tails differ in the last digits of float32.
        assert np.mean(stored != by_hand) < 0.01
        lost = sum(tail[n:].sum() for tail, n in zip(tails, stored, strict=True)) / curve.own[-1]
        cell, gene = tissue.counts.nonzero()
        sums = np.array([[tail.sum(), tail[n:].sum(), len(tail)] for tail, n in zip(tails, stored, strict=True)])
        own, own_removed, molecules = (np.bincount(gene, s, minlength=tissue.n_genes) for s in sums.T)
        np.testing.assert_allclose(found.genes.own, own, rtol=1e-4)
        np.testing.assert_allclose(found.genes.own_removed, own_removed, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.genes.own + found.genes.foreign, molecules, rtol=1e-9)
        gone = molecules - np.bincount(gene, stored, minlength=len(molecules))
        np.testing.assert_allclose(found.genes.own_removed + found.genes.foreign_removed, gone, rtol=1e-9, atol=1e-9)
        own, own_removed, _ = (np.bincount(cell, s, minlength=tissue.n_cells) for s in sums.T)
        np.testing.assert_array_equal(np.isnan(found.own_removed_by_cell), own == 0)
        some = own > 0
        np.testing.assert_allclose(found.own_removed_by_cell[some], own_removed[some] / own[some], rtol=1e-3, atol=1e-4)
        step = 1 / (len(curve.level) - 1)
        assert fpr - 0.02 < lost <= fpr + 1e-4
        own, foreign = curve.shares(np.array([level, level + step]))
        assert own[0] <= fpr < own[1] and own[0] == pytest.approx(lost, abs=1e-3) and foreign[0] > own[0]
        # A level for each gene: none loses more, and one level up each would.
        levels, step = highest_level(of_genes, fpr), 1 / (of_genes.shape[1] - 1)
        lost, _ = molecules_to_keep(module, tissue, parts, levels).genes.shares()
        above, _ = molecules_to_keep(module, tissue, parts, levels + step).genes.shares()
        assert lost.max() <= fpr + 1e-4 and above.min() > fpr - 1e-4 and np.median(lost) > 0.8 * fpr
