"""The direct objective is Pyro's, term by term; nothing leaks into Pyro's global store."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import stats

from resolvi_sd._model import programs
from resolvi_sd._model.elbo import negative_elbo
from resolvi_sd._model.gaussian_mixture import GaussianMixture
from resolvi_sd._model.masked_dirichlet import MaskedDirichlet, masked_softmax, point_log_density, softmax_log_density
from resolvi_sd._tiles import cut_minibatch
from tests.model._tissues import small_module, small_tissue


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"dispersion": "gene-batch"},
        {"likelihood": "poisson"},
        {"encode_covariates": True},
        {"profile_sparsity": 0.15},
    ],
)
@pytest.mark.parametrize(
    ("kl_weight", "inputs"),
    [
        (1.0, {}),
        (0.3, {}),
        (1.0, {"n_labels": 4}),
        (1.0, {"sizes": True}),
        (1.0, {"n_covariate": 3}),
        (1.0, {"missing": (2, 3, 9)}),
        (1.0, {"missing": (2, 3, 9), "sizes": True}),
    ],
)
def test_direct_elbo_equals_pyros_trace_elbo(config, kl_weight, inputs):
    tissue, _ = small_tissue(n_batches=2, **inputs)
    module = small_module(tissue, **config)
    module.data = replace(module.data, unmeasured=inputs.get("missing", ()))
    module.raise_skip_weights(1.0)
    minibatch = cut_minibatch(tissue, np.arange(1, 41))
    torch.manual_seed(7)
    direct, _ = negative_elbo(module, minibatch, kl_weight)
    torch.manual_seed(7)
    traced = Trace_ELBO().differentiable_loss(
        partial(programs.model, module), partial(programs.guide, module), minibatch, kl_weight
    )
    assert direct.item() == pytest.approx(traced.item() / module.data.n_train, rel=1e-5)

    module.zero_grad()
    direct.backward()
    by_direct = {k: p.grad.to_dense().clone() for k, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    (traced / module.data.n_train).backward()
    for name, parameter in module.named_parameters():
        if name in by_direct:
            torch.testing.assert_close(parameter.grad.to_dense(), by_direct[name], rtol=2e-3, atol=2e-5, msg=name)


def test_nothing_enters_pyros_global_store():
    tissue, _ = small_tissue()
    module = small_module(tissue)
    before = set(pyro.get_param_store().keys())
    minibatch = cut_minibatch(tissue, np.arange(1, 20))
    Trace_ELBO().differentiable_loss(partial(programs.model, module), partial(programs.guide, module), minibatch)
    assert set(pyro.get_param_store().keys()) == before


def test_masked_dirichlet_equals_scipy_on_the_unmasked_entries():
    concentration = torch.tensor([[2.0, 0.5, 3.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    value = torch.tensor([[0.2, 0.3, 0.5, 0.0]], dtype=torch.float64)
    expected = stats.dirichlet.logpdf([0.2, 0.3, 0.5], [2.0, 0.5, 3.0])
    assert MaskedDirichlet(concentration, mask).log_prob(value).item() == pytest.approx(expected)


def test_masked_dirichlet_without_choice_says_nothing():
    mask = torch.tensor([[True, False], [False, False]])
    d = MaskedDirichlet(torch.ones(2, 2), mask)
    assert d.log_prob(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == [0.0, 0.0]
    torch.testing.assert_close(masked_softmax(torch.zeros(2, 2), mask), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_point_estimate_under_a_dirichlet_is_its_mean():
    """Maximising log p(value) minus the softmax log-density gives the mean, also for concentrations below 1."""
    concentration, mask = torch.tensor([[0.4, 1.1, 2.5]]), torch.ones(1, 3, dtype=torch.bool)
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def objective():
        optimizer.zero_grad()
        value = masked_softmax(logits, mask)
        loss = -(MaskedDirichlet(concentration, mask).log_prob(value) - softmax_log_density(value, mask)).sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    torch.testing.assert_close(masked_softmax(logits, mask), concentration / concentration.sum(), atol=1e-3, rtol=0)


def test_a_guide_as_narrow_as_the_prior_leaves_the_divergence_of_their_centers():
    concentration = torch.tensor([[0.4, 1.1, 2.5, 9.0], [3.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    value = torch.tensor([[0.2, 0.3, 0.5, 0.0], [0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    prior = MaskedDirichlet(concentration, mask)
    found = prior.log_prob(value) - point_log_density(value, prior)
    center = prior.mean
    terms = torch.where(mask, center * (center.clamp_min(1e-9) / value.clamp_min(1e-9)).log(), 0.0)
    torch.testing.assert_close(found, -(concentration * mask).sum(1) * terms.sum(1))
    zero = prior.log_prob(center) - point_log_density(center, prior)
    torch.testing.assert_close(zero, torch.zeros_like(zero))


def test_the_sparse_prior_is_a_dirichlet_where_genes_are_expressed():
    tissue, _ = small_tissue()
    module = small_module(tissue, profile_sparsity=0.15)  # of 20 molecules
    expressed = torch.tensor([[0.3, 0.2, 0.1, 0.1, *[0.3 / 11] * 11], [1 / 15] * 15], dtype=torch.float64)
    concentration = np.full(15, 1 - 3.0 / 15)
    expected = np.diff([stats.dirichlet.logpdf(profile.numpy(), concentration) for profile in expressed])
    assert np.diff(module.profile_log_prior(expressed).numpy()) == pytest.approx(expected, rel=0.1)
    # A gene that is not expressed at all is worth no more than log(1 / 0.05).
    absent = torch.tensor([[1 / 14] * 14 + [0.0]], dtype=torch.float64)
    least, most = (float(module.profile_log_prior(profile)) for profile in (expressed[1:], absent))
    assert least < most < least + 3.0 / 15 * np.log(1.05 / 0.05)


def test_gaussian_mixture_equals_torchs():
    torch.manual_seed(0)
    logits, means, scales = torch.randn(5), 2 * torch.randn(5, 3), torch.rand(5, 3) + 0.1
    normals = torch.distributions.Independent(torch.distributions.Normal(means, scales), 1)
    reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=logits), normals)
    value = 2 * torch.randn(50, 3)
    mixture = GaussianMixture(logits, means, scales)
    torch.testing.assert_close(mixture.log_prob(value), reference.log_prob(value), rtol=1e-4, atol=1e-3)
    draws = mixture.sample((100_000,))
    torch.testing.assert_close(draws.mean(0), reference.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.var(0), reference.variance, rtol=0.05, atol=0)
