"""Tails against scipy in float64, and the choice of molecules against all other choices."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from resolvi_sd._model.decontamination import MEDIAN, molecules_to_keep, removal_curves
from resolvi_sd._model.delaporte import EntryRates, molecules_above, tail_histogram
from resolvi_sd._model.delaporte._tails import _tails
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


def own_tails(x, *rates):
    """The same from the compiled function."""
    tail = np.empty(x)
    _tails(x, *map(float, rates), np.empty(x + 1), np.empty(x + 1), tail)
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
    found = own_tails(x, own, diffused, background, r)
    np.testing.assert_allclose(found, by_convolution(x, own, diffused, background, r), rtol=1e-6, atol=1e-9)
    assert (np.diff(found) <= 1e-12).all()


def test_tails_where_only_one_source_is_expected():
    for r in (0.5, math.inf):
        np.testing.assert_array_equal(own_tails(3, 2.0, 0.0, 0.0, r), [1, 1, 1])
        np.testing.assert_array_equal(own_tails(3, 0.0, 2.0, 0.0, r), [0, 0, 0])
        np.testing.assert_array_equal(own_tails(3, 0.0, 0.0, 2.0, r), [0, 0, 0])


def test_large_counts_are_exact_and_do_not_overflow():
    found = own_tails(20_000, 9_000.0, 6_000.0, 4_000.0, 3.0)
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
            found = molecules_above(entries, level)
            own_lost, foreign_left = expected(found.kept)
            assert price @ [own_lost, foreign_left] == pytest.approx((others @ price).min(), abs=1e-9)
            assert found.own_removed.sum() == pytest.approx(own_lost, rel=1e-9)
            assert found.own.sum() == pytest.approx(expected(np.zeros(5, dtype=int))[0], rel=1e-9)


def test_molecules_are_sorted_by_their_tails():
    entries, n_bins = random_entries(300), 64
    (own,), (molecules,) = tail_histogram(entries, n_bins)
    tails = np.concatenate([own_tails(int(x), *rest) for x, *rest in zip(*entries, strict=True)])
    place = np.minimum((tails * n_bins).astype(int), n_bins - 1)
    np.testing.assert_array_equal(molecules, np.bincount(place, minlength=n_bins))
    np.testing.assert_allclose(own, np.bincount(place, tails, minlength=n_bins), rtol=1e-12)
    for b in (0, 1, 17, n_bins - 1):
        assert molecules_above(entries, b / n_bins).kept.sum() == molecules[b:].sum()
    group = np.random.default_rng(1).integers(3, size=300)
    entry = np.repeat(np.arange(300), entries.value.astype(int))
    for part, weight in zip(tail_histogram(entries, n_bins, group, 3), (tails, None), strict=True):
        of_each = np.bincount(group[entry] * n_bins + place, weight, minlength=3 * n_bins)
        np.testing.assert_allclose(part, of_each.reshape(3, n_bins), rtol=1e-12)
    levels = np.array([0.25, 0.5, 0.75])[group]
    np.testing.assert_array_equal(
        molecules_above(entries, levels).kept, np.bincount(entry, tails >= levels[entry], minlength=300)
    )


@pytest.mark.parametrize("config", [{}, {"likelihood": "poisson"}, {"dispersion": "gene-batch"}])
def test_levels_keep_to_their_share_of_own_molecules_whatever_the_parts(config):
    tissue, _ = small_tissue(n_batches=2)
    module = small_module(tissue, **config)
    everyone = np.arange(tissue.n_cells)
    parts = np.array_split(np.random.default_rng(0).permutation(everyone), 7)
    curve, of_genes = removal_curves(module, tissue, parts, per_gene=True)
    assert curve.own[-1] + curve.foreign[-1] == pytest.approx(tissue.counts.sum())
    every = (len(curve.level) - 1) // (len(of_genes.level) - 1)
    np.testing.assert_allclose(of_genes.own.sum(axis=0), curve.own[::every], rtol=1e-9)
    np.testing.assert_allclose(of_genes.foreign.sum(axis=0), curve.foreign[::every], rtol=1e-9)
    with torch.no_grad():
        minibatch = cut_minibatch(tissue, everyone)
        mean, _ = module.latent_encoder(minibatch.features, minibatch.categories)
        beta = module.neighbor_weights(minibatch, module.leakage_range())
        rates, _ = core_rates(module, minibatch, mean, module.shares(minibatch), beta)
        entries = entry_rates(module, minibatch, rates)
    tails = [by_convolution(int(x), *map(float, rest)) for x, *rest in zip(*entries, strict=True)]
    assert curve.own[-1] == pytest.approx(sum(tail.sum() for tail in tails), rel=1e-4)
    for fpr in (0.01, 0.1, 0.4):
        level = float(curve.level_where(fpr))
        found = molecules_to_keep(module, tissue, parts, level)
        kept = found.counts
        assert kept.dtype == np.int32 and kept.data.all() and (tissue.counts - kept).min() >= 0
        by_hand = np.array([(tail >= level).sum() for tail in tails])
        stored = np.asarray(kept[tissue.counts.nonzero()]).ravel()
        # Decoded in other parts, tails differ in the last digits of float32.
        assert np.mean(stored != by_hand) < 0.01
        lost = sum(tail[n:].sum() for tail, n in zip(tails, stored, strict=True)) / curve.own[-1]
        cell, gene = tissue.counts.nonzero()
        for removed, place in ((found.cells, cell), (found.genes, gene)):
            sums = [[tail.sum(), tail[n:].sum(), len(tail)] for tail, n in zip(tails, stored, strict=True)]
            own, own_removed, molecules = (
                np.bincount(place, s, minlength=len(removed.own)) for s in np.transpose(sums)
            )
            np.testing.assert_allclose(removed.own, own, rtol=1e-4)
            np.testing.assert_allclose(removed.own_removed, own_removed, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(removed.own + removed.foreign, molecules, rtol=1e-9)
            gone = molecules - np.bincount(place, stored, minlength=len(molecules))
            np.testing.assert_allclose(removed.own_removed + removed.foreign_removed, gone, rtol=1e-9, atol=1e-9)
        step = 1 / (len(curve.level) - 1)
        assert fpr - 0.02 < lost <= fpr + 1e-4
        own, foreign = curve.shares(np.array([level, level + step]))
        assert own[0] <= fpr < own[1] and own[0] == pytest.approx(lost, abs=1e-3) and foreign[0] > own[0]
        # A level for each gene: none loses more, and one level up each would.
        levels = of_genes.level_where(fpr)
        lost, _ = molecules_to_keep(module, tissue, parts, levels).genes.shares()
        above, _ = molecules_to_keep(module, tissue, parts, levels + of_genes.level[1]).genes.shares()
        assert lost.max() <= fpr + 1e-4 and above.min() > fpr - 1e-4 and np.median(lost) > 0.8 * fpr
