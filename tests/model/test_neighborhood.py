"""Compiled sums and weights of neighbors equal the same written with tensors in float64."""

import pytest
import torch
from torch.nn import functional as F

from resolvi_sd._model.masked_dirichlet import MaskedDirichlet, masked_softmax, point_log_density
from resolvi_sd._model.neighborhood import LEAST_CONCENTRATION, LEAST_LOG_KERNEL, neighbor_sum, weights_and_density


def test_sums_of_neighbors_and_the_way_back():
    torch.manual_seed(0)
    values = torch.randn(30, 7, requires_grad=True)
    neighbor, weights = torch.randint(0, 30, (12, 5)), torch.rand(12, 5)
    weights[0] = 0
    upstream = torch.randn(12, 7)
    found = neighbor_sum(values, neighbor, weights)
    (found * upstream).sum().backward()
    exact = values.detach().double().requires_grad_()
    expected = F.embedding_bag(neighbor, exact, per_sample_weights=weights.double(), mode="sum")
    (expected * upstream).sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(values.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prior_weight", [1.0, 100.0])
def test_weights_and_their_density(prior_weight):
    torch.manual_seed(1)
    free = torch.randn(50, 6, requires_grad=True)
    # Some neighbors so far that the kernel has ended; cells with all, one and none.
    relative, mask = torch.rand(50, 6) * 3, torch.rand(50, 6) < 0.7
    relative[:5, 0], mask[0], mask[1] = 20.0, False, torch.arange(6) == 2
    log_range = torch.tensor(0.3, requires_grad=True)
    by_weight, by_density = torch.randn(50, 6), torch.rand(50)
    weights, density = weights_and_density(free, log_range, relative, mask, prior_weight)
    ((weights * by_weight).sum() + (density * by_density).sum()).backward()

    exact = free.detach().double().requires_grad_()
    exact_range = log_range.detach().double().requires_grad_()
    kernel = (-0.5 * (relative.double() / exact_range.exp()).square()).clamp_min(LEAST_LOG_KERNEL)
    expected = masked_softmax(kernel + exact, mask)
    prior = MaskedDirichlet(prior_weight * masked_softmax(kernel, mask) + LEAST_CONCENTRATION, mask)
    log_prior = prior.log_prob(expected) - point_log_density(expected, prior)
    ((expected * by_weight).sum() + (log_prior * by_density).sum()).backward()

    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(density.double(), log_prior, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(free.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)
    assert log_range.grad.item() == pytest.approx(exact_range.grad.item(), rel=1e-4)
    assert (weights[0] == 0).all() and density[:2].tolist() == [0, 0]
