"""Small measurements: the likelihood against torch's negative binomial, and a training step by its parts.

pytest benchmarks/test_micro.py                              # with pytest-benchmark; --benchmark-autosave keeps them
pytest benchmarks/test_micro.py -k likelihood --benchmark-compare
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import resolvi_sd as rsd
from resolvi_sd import ModelConfig, TrainingConfig
from resolvi_sd._engine import summarize
from resolvi_sd._input import read_input
from resolvi_sd._model import ResolviModule
from resolvi_sd._model.delaporte import delaporte_log_prob, mixture_log_prob
from resolvi_sd._model.elbo import negative_elbo
from resolvi_sd._model.loader import PatchStream, batch_size_of, patch_size_of
from resolvi_sd._model.row_adam import RowAdam
from resolvi_sd._setup import Setup
from resolvi_sd._tiles import Minibatch, SparseRows, cut_patches

_THREADS = 2
_SHAPE = (2048, 300)
_TISSUES = {"xenium": (20_000, 300), "deep": (2_000, 5_000)}
_ROUNDS, _N_NEIGHBORS = 40, 10


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rates_and_counts() -> tuple[Tensor, Tensor]:
    """A quarter of the counts are not zero."""
    torch.manual_seed(0)
    rates = torch.rand(_SHAPE)
    return rates, torch.poisson(rates * torch.distributions.Gamma(2.0, 2.0).sample(_SHAPE))


@pytest.mark.benchmark(group="likelihood and its gradients")
def test_likelihood_delaporte(benchmark: Any, rates_and_counts: tuple[Tensor, Tensor]) -> None:
    rates, counts = rates_and_counts
    sparse, everyone = SparseRows.from_dense(counts), torch.zeros(_SHAPE[0], dtype=torch.int64)

    def evaluate() -> None:
        mu, lam, r = (t.requires_grad_() for t in (rates.clone(), 0.1 * rates.clone(), torch.full((1, _SHAPE[1]), 2.0)))
        delaporte_log_prob(sparse, mu, lam, r, everyone).sum().backward()

    benchmark.pedantic(evaluate, rounds=_ROUNDS, warmup_rounds=3)


@pytest.mark.benchmark(group="likelihood and its gradients")
def test_likelihood_negative_binomial_of_torch(benchmark: Any, rates_and_counts: tuple[Tensor, Tensor]) -> None:
    rates, counts = rates_and_counts

    def evaluate() -> None:
        mu, r = rates.clone().requires_grad_(), torch.full((1, _SHAPE[1]), 2.0, requires_grad=True)
        torch.distributions.NegativeBinomial(r, logits=mu.log() - r.log()).log_prob(counts).sum().backward()

    benchmark.pedantic(evaluate, rounds=_ROUNDS, warmup_rounds=3)


class Step:
    """All that a training step needs, and the parts of it, as `_model.elbo` puts them together."""

    def __init__(self, module: ResolviModule, stream: PatchStream, config: TrainingConfig) -> None:
        self.module, self.stream, self.minibatch = module, stream, next(iter(stream))
        self.shared = [p for name, p in self.module.named_parameters() if not name.startswith("neighbor_logits")]
        self.optimizers = [
            RowAdam(self.module.neighbor_logits.parameters(), lr=config.lr_cell),
            torch.optim.Adam(self.shared, lr=config.lr, fused=True),
        ]
        # Each part is measured by itself, on what those before it gave.
        self.latent, self.drawn_shares = self.draw_latent().detach(), self.draw_shares().detach()
        self.weights, self.own, self.around = (
            part().detach() for part in (self.neighbor_weights, self.decoder, self.halo)
        )

    def minibatches(self) -> Iterator[Minibatch]:
        while True:
            yield from self.stream

    def draw_latent(self) -> Tensor:
        posterior = self.module.latent_posterior(self.minibatch)
        latent: Tensor = posterior.rsample()
        self.module.latent_prior(self.minibatch).log_prob(latent) - posterior.log_prob(latent)
        return latent

    def draw_shares(self) -> Tensor:
        posterior = self.module.share_posterior(self.minibatch)
        shares = posterior.rsample()
        self.module.shares_prior(self.minibatch).log_prob(shares) - posterior.log_prob(shares)
        return shares

    def neighbor_weights(self) -> Tensor:
        return self.module.neighbor_weights_and_density(self.minibatch, self.module.leakage_range())[0]

    def decoder(self) -> Tensor:
        return self.module.expression(self.latent, self.minibatch.core_categories)

    def halo(self) -> Tensor:
        return self.module.halo_expression(self.minibatch)

    def likelihood(self) -> Tensor:
        """With its gradient, which comes with the value."""
        module, minibatch = self.module, self.minibatch
        log_prob, _ = mixture_log_prob(
            minibatch.counts,
            self.own.requires_grad_(),
            self.around,
            minibatch.neighbor,
            self.weights,
            module.amount(minibatch, self.latent, self.drawn_shares),
            module.background_profile(),
            minibatch.core_batch,
            module.concentration(),
            module.concentration_group(minibatch.core_batch),
        )
        return log_prob

    def loss(self, minibatch: Minibatch) -> Tensor:
        """With nothing left of the gradients of the step before."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss, own_share = negative_elbo(self.module, minibatch)
        self.stream.remember(minibatch, own_share)
        return loss

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.shared, TrainingConfig.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()

    def all_of_it(self, minibatch: Minibatch) -> None:
        self.loss(minibatch).backward()
        self.update()


@pytest.fixture(scope="module", params=list(_TISSUES))
def step(request: pytest.FixtureRequest) -> Step:
    n_cells, n_genes = _TISSUES[request.param]
    sdata = rsd.datasets.simulate_tissue(n_cells, n_genes, regime=request.param, transcripts=False, rng=0)
    model_input, config = read_input(sdata.tables["table"], Setup(n_neighbors=_N_NEIGHBORS)), TrainingConfig()
    torch.manual_seed(0)
    module, view = ResolviModule(ModelConfig(), summarize(model_input)), model_input.view
    n_train = int(view.has_counts.sum())
    patches = cut_patches(
        view.coordinates, view.sections.codes, patch_size=patch_size_of(config, n_train), include=view.has_counts
    )
    stream = PatchStream(
        model_input.tissue(),
        patches,
        batch_size=batch_size_of(config, n_train),
        thin_counts=config.thin_counts,
        thin_foreign=config.thin_foreign,
        rng=np.random.default_rng(0),
    )
    return Step(module, stream, config)


@pytest.mark.parametrize("part", ["draw_latent", "draw_shares", "neighbor_weights", "decoder", "halo", "likelihood"])
def test_step_forward(benchmark: Any, step: Step, part: str) -> None:
    measure(benchmark, step, getattr(step, part))


def test_step_cut_the_minibatch(benchmark: Any, step: Step) -> None:
    minibatches = step.minibatches()
    measure(benchmark, step, lambda: next(minibatches))


def test_step_way_back(benchmark: Any, step: Step) -> None:
    def forward() -> tuple[tuple[Tensor], dict[str, Any]]:
        return (step.loss(step.minibatch),), {}

    measure(benchmark, step, Tensor.backward, setup=forward)


def test_step_update(benchmark: Any, step: Step) -> None:
    measure(benchmark, step, step.update, setup=lambda: step.loss(step.minibatch).backward())


def test_step_all_of_it(benchmark: Any, step: Step) -> None:
    minibatches = step.minibatches()
    measure(benchmark, step, lambda: step.all_of_it(next(minibatches)))


def measure(benchmark: Any, step: Step, function: Any, **kwargs: Any) -> None:
    """Parts of one step share a group, with what it was of in its name."""
    core, around = step.minibatch.n_core, len(step.minibatch.cells) - step.minibatch.n_core
    benchmark.group = f"a step of {core:,} cells and {around:,} around them, {step.module.data.n_genes:,} genes"
    benchmark.pedantic(function, rounds=_ROUNDS, warmup_rounds=3, **kwargs)
