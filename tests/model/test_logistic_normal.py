"""The approximate posterior of the shares: density, mean and draws of a logistic-normal, with a mask."""

import numpy as np
import pytest
import torch

from resolvi_sd._model.logistic_normal import MaskedLogisticNormal

LOC, SCALE = torch.tensor([[-1.0, 0.5]], dtype=torch.float64), torch.tensor([[0.7, 0.4]], dtype=torch.float64)
ALL, NO_SECOND = torch.tensor([[True, True, True]]), torch.tensor([[True, False, True]])


def test_its_density_integrates_to_one_and_its_mean_is_that_of_the_density():
    """By a grid over the simplex, which knows nothing of normals."""
    points = (np.arange(1200) + 0.5) / 1200
    a, b = (torch.from_numpy(v) for v in np.meshgrid(points, points, indexing="ij"))
    inside = a + b < 1
    value = torch.stack([1 - a - b, a, b], dim=-1)[inside]
    density = MaskedLogisticNormal(LOC, SCALE, ALL).log_prob(value).exp() / 1200**2
    assert density.sum().item() == pytest.approx(1, abs=1e-3)
    mean = (density[:, None] * value).sum(0)
    torch.testing.assert_close(MaskedLogisticNormal(LOC, SCALE, ALL).mean[0], mean, atol=1e-3, rtol=0)


def test_draws_have_the_mean_and_the_noise_says_which():
    q = MaskedLogisticNormal(LOC, SCALE, ALL)
    torch.manual_seed(0)
    draws = q.rsample((50_000,))
    # Standard deviations are below 0.2, so standard errors are below 0.001.
    torch.testing.assert_close(draws.mean(0), q.mean, atol=4e-3, rtol=0)
    torch.testing.assert_close(q.at(torch.zeros(1, 2)), torch.softmax(torch.tensor([[0, -1.0, 0.5]]).double(), -1))


def test_a_masked_entry_is_zero_and_says_nothing():
    """Without the second entry it is the logistic-normal of the other two, in one dimension."""
    q = MaskedLogisticNormal(LOC, SCALE, NO_SECOND)
    torch.manual_seed(0)
    draws = q.rsample((1000,))
    assert (draws[..., 1] == 0).all()
    torch.testing.assert_close(draws.sum(-1), torch.ones(1000, 1).double())
    odds = (draws[..., 2] / draws[..., 0]).log()
    normal = torch.distributions.Normal(LOC[0, 1], SCALE[0, 1])
    expected = normal.log_prob(odds) - (draws[..., 0] * draws[..., 2]).log()
    torch.testing.assert_close(q.log_prob(draws), expected)
    first = MaskedLogisticNormal(LOC, SCALE, torch.tensor([[True, False, False]]))
    assert first.mean.tolist() == [[1.0, 0.0, 0.0]] and first.log_prob(first.mean).item() == 0


def test_gradients_are_finite_with_a_mask():
    loc, scale = LOC.clone().requires_grad_(), SCALE.clone().requires_grad_()
    q = MaskedLogisticNormal(loc, scale, NO_SECOND)
    torch.manual_seed(0)
    value = q.rsample()
    (q.log_prob(value) + value[..., 2]).sum().backward()
    assert torch.isfinite(loc.grad).all() and torch.isfinite(scale.grad).all()
    assert loc.grad[0, 0] == 0 and scale.grad[0, 0] == 0
