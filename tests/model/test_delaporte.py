"""The Delaporte likelihood against scipy's convolution in float64, finite differences, and moments."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from resolvi_sd._model.delaporte import Delaporte, delaporte_log_prob, draw_sources, expected_signal, poisson_log_prob
from resolvi_sd._model.delaporte._terms import delaporte_terms
from resolvi_sd._tiles import SparseRows


def convolution(x, mu, lam, r):
    """Log P(x) and E[k | x] by summing scipy's negative binomial and Poisson."""
    k = np.arange(x + 1)
    terms = stats.nbinom.logpmf(k, r, r / (r + mu)) + stats.poisson.logpmf(x - k, lam)
    log_prob = logsumexp(terms)
    return log_prob, np.sum(np.exp(terms - log_prob) * k)


def one_entry(x, mu, lam, r, dtype=torch.float64):
    counts = SparseRows.from_scipy(sp.csr_matrix([[float(x)]]))
    return counts, *(torch.tensor([[v]], dtype=dtype) for v in (mu, lam, r)), torch.zeros(1, dtype=torch.long)


magnitude = lambda low, high: st.floats(low, high).map(lambda e: 10.0**e)  # noqa: E731


@given(st.integers(0, 4000), magnitude(-6, 3.5), magnitude(-12, 2.5), magnitude(-3, 4))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_log_prob_and_expected_signal_equal_the_convolution(x, mu, lam, r):
    args = one_entry(x, mu, lam, r)
    log_prob, expected = convolution(x, mu, lam, r)
    # scipy's terms are differences of logarithms up to 1e5, good to about 1e-11 each, and so to 1e-6 after exp.
    assert delaporte_log_prob(*args).item() == pytest.approx(log_prob, rel=1e-8, abs=1e-8)
    if x:
        assert expected_signal(*args).item() == pytest.approx(expected, rel=2e-6, abs=1e-9)


@pytest.mark.parametrize(("x", "mu", "lam", "r"), [(434, 450.4, 447.4, 8000.0), (541, 461.6, 400.6, 1000.0)])
def test_large_counts_of_which_much_is_background(x, mu, lam, r):
    # NB(x) / NB(0) and the sum over the background are each within the range of float64, and their product is not.
    expected, _ = convolution(x, mu, lam, r)
    assert delaporte_log_prob(*one_entry(x, mu, lam, r)).item() == pytest.approx(expected, rel=1e-8)


@given(st.integers(1, 400), magnitude(-4, 3), magnitude(-8, 2), magnitude(-3, 4))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_plain_torch_terms_equal_the_kernel(x, mu, lam, r):
    counts, m, b, c, group = one_entry(x, mu, lam, r)
    terms = delaporte_terms(counts.value.double(), m[0], b[0], c[0])
    zero = -lam - r * np.log1p(mu / r)
    assert terms[0].item() + zero == pytest.approx(
        delaporte_log_prob(counts, m, b, c, group).item(), rel=1e-9, abs=1e-8
    )
    assert terms[1].item() == pytest.approx(expected_signal(counts, m, b, c, group).item(), rel=2e-6, abs=1e-9)


def test_float32_stays_close():
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = int(rng.choice([0, 1, 3, 20, 500]))
        args = [10 ** rng.uniform(*b) for b in ((-4, 3), (-9, 2), (-2, 4))]
        exact = [np.float32(a).item() for a in args]
        found = delaporte_log_prob(*one_entry(x, *args, dtype=torch.float32)).item()
        assert found == pytest.approx(convolution(x, *exact)[0], rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_equal_finite_differences(groups):
    rng = np.random.default_rng(1)
    counts = rng.poisson(2.0, (5, 7)).astype(float)
    counts[0, 0], counts[1, 1] = 60, 900
    sparse = SparseRows.from_scipy(sp.csr_matrix(counts))
    group = torch.tensor([0, 1, 2, 0, 1]) % groups
    mu, lam, r = (
        torch.tensor(rng.uniform(*b), dtype=torch.float64, requires_grad=True)
        for b in ((0.1, 4.0, (5, 7)), (0.01, 1.0, (5, 7)), (0.2, 5.0, (groups, 7)))
    )
    assert torch.autograd.gradcheck(lambda *p: delaporte_log_prob(sparse, *p, group), (mu, lam, r))


@pytest.mark.parametrize("mean", [0.0, 1e-35, 1e-20])
def test_gradient_of_a_signal_near_none(mean):
    """One molecule, of the background then: d log P / d mu = 1 / lambda - 1 + O(mu)."""
    counts, mu, lam, r, group = one_entry(1, mean, 1e-3, 5.0, dtype=torch.float32)
    delaporte_log_prob(counts, mu.requires_grad_(), lam, r, group).sum().backward()
    assert float(mu.grad) == pytest.approx(999, rel=1e-3)


def test_probabilities_sum_to_one():
    x = np.arange(2000.0)
    counts = SparseRows.from_scipy(sp.csr_matrix(x[:, None]))
    full = lambda v: torch.full((2000, 1), v, dtype=torch.float64)  # noqa: E731
    r = torch.full((1, 1), 0.7, dtype=torch.float64)
    log_prob = delaporte_log_prob(counts, full(20.0), full(5.0), r, torch.zeros(2000, dtype=torch.long))
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_large_concentration_is_poisson():
    rng = np.random.default_rng(2)
    counts = SparseRows.from_scipy(sp.csr_matrix(rng.poisson(3.0, (4, 6)).astype(float)))
    mu, lam = (torch.tensor(rng.uniform(0.5, 3.0, (4, 6))) for _ in range(2))
    group = torch.zeros(4, dtype=torch.long)
    limit = delaporte_log_prob(counts, mu, lam, torch.full((1, 6), 1e9, dtype=torch.float64), group)
    torch.testing.assert_close(limit, poisson_log_prob(counts, mu, lam), rtol=1e-6, atol=1e-6)
    exact = stats.poisson.logpmf(counts.to_dense().numpy(), (mu + lam).numpy()).sum(1)
    np.testing.assert_allclose(poisson_log_prob(counts, mu, lam).numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize(("mu", "lam"), [(0.0, 2.0), (2.0, 0.0)])
def test_one_source_alone(mu, lam):
    """Without own molecules it is a Poisson and nothing is signal; without background all of it is."""
    args = one_entry(6, mu, lam, 1.5)
    reference = stats.poisson.logpmf(6, lam) if mu == 0 else stats.nbinom.logpmf(6, 1.5, 1.5 / (1.5 + mu))
    assert delaporte_log_prob(*args).item() == pytest.approx(reference, rel=1e-9)
    assert expected_signal(*args).item() == pytest.approx(0.0 if mu == 0 else 6.0, abs=1e-9)


@pytest.mark.parametrize("r", [1.5, None])
def test_molecules_where_none_are_expected(r):
    """A softmax may round a rate to zero; the likelihood must stay finite, with a gradient."""
    counts, mu, lam, *_ = one_entry(6, 0.0, 0.0, 1.5)
    mu, lam = mu.requires_grad_(), lam.requires_grad_()
    group = torch.zeros(1, dtype=torch.long)
    if r is None:
        log_prob = poisson_log_prob(counts, mu, lam)
    else:
        log_prob = delaporte_log_prob(counts, mu, lam, torch.full((1, 1), r, dtype=mu.dtype), group)
    log_prob.sum().backward()
    assert -1e4 < log_prob.item() < 0
    assert all(torch.isfinite(rate.grad).all() for rate in (mu, lam))
    of_group = None if r is None else torch.full((1, 1), r, dtype=mu.dtype)
    assert torch.isfinite(expected_signal(counts, mu.detach(), lam.detach(), of_group, group)).all()


def test_distribution_samples_have_its_moments_and_log_prob():
    torch.manual_seed(0)
    d = Delaporte(torch.tensor([4.0, 0.5]), torch.tensor([1.0, 0.2]), torch.tensor([2.0, 10.0]))
    draws = d.sample((200_000,))
    # Standard error of the mean is below 0.01, that of the variance below 0.1 (kurtosis of the first gene is 6).
    torch.testing.assert_close(draws.mean(0), d.mean, atol=0.04, rtol=0)
    torch.testing.assert_close(draws.var(0), d.variance, atol=0.3, rtol=0)
    reference = sum(convolution(x, *p)[0] for x, p in ((3, (4, 1, 2)), (0, (0.5, 0.2, 10))))
    assert d.log_prob(torch.tensor([3.0, 0.0])).item() == pytest.approx(reference, rel=1e-5)


@pytest.mark.parametrize("r", [0.3, 40.0, np.inf])
def test_draws_have_the_posterior_mean(r):
    x, own, diffused, lam, n = 9, 2.0, 1.0, 1.5, 100_000
    full = lambda v: np.full(n, v, np.float32)  # noqa: E731
    seeds = np.random.default_rng(3).integers(0, 2**63, n, dtype=np.uint64)
    draws, received = draw_sources(full(x), full(own), full(diffused), full(lam), full(r), seeds)
    mu = own + diffused
    signal = x * mu / (mu + lam) if np.isinf(r) else convolution(x, mu, lam, r)[1]
    # The draws lie in 0..9, so the standard error of their mean is below 9 / 2 / sqrt(n) = 0.015.
    assert draws.mean() == pytest.approx(signal * own / mu, abs=0.06)
    assert received.mean() == pytest.approx(signal * diffused / mu, abs=0.06)
    assert min(draws.min(), received.min()) >= 0 and (draws + received).max() <= x
    assert (draws == np.round(draws)).all() and (received == np.round(received)).all()
