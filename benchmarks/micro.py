"""Small measurements: the likelihood against torch's negative binomial, and a training step by its parts.

python benchmarks/micro.py                          # 20,000 × 300 simulated cells, about a minute
python benchmarks/micro.py --cells 2000 --genes 5000 --regime deep
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from exchange import Stopwatch
from torch.utils.benchmark import Timer

import resolvi_sd as rsd
from resolvi_sd import TrainingConfig
from resolvi_sd._engine import read_input, summarise
from resolvi_sd._model import ModelConfig, ResolviModule
from resolvi_sd._model.delaporte import delaporte_log_prob, mixture_log_prob
from resolvi_sd._model.loader import PatchStream, batch_size_of, patch_size_of
from resolvi_sd._model.row_adam import RowAdam
from resolvi_sd._results import Setup
from resolvi_sd._tiles import SparseRows, cut_patches

_SHAPE = (2048, 300)
_REPEATS = 3
_N_NEIGHBORS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--regime", default="xenium")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    likelihood()
    step_by_part(options.cells, options.genes, options.regime)


def likelihood() -> None:
    """Log-probability with gradients: Delaporte, and torch's negative binomial with autograd, of the same counts."""
    torch.manual_seed(0)
    rates = torch.rand(_SHAPE)
    counts = torch.poisson(rates * torch.distributions.Gamma(2.0, 2.0).sample(_SHAPE))
    sparse, everyone = SparseRows.from_dense(counts), torch.zeros(_SHAPE[0], dtype=torch.int64)

    def delaporte() -> None:
        mu, lam, r = (t.requires_grad_() for t in (rates.clone(), 0.1 * rates.clone(), torch.full((1, _SHAPE[1]), 2.0)))
        delaporte_log_prob(sparse, mu, lam, r, everyone).sum().backward()

    def negative_binomial() -> None:
        mu, r = rates.clone().requires_grad_(), torch.full((1, _SHAPE[1]), 2.0, requires_grad=True)
        torch.distributions.NegativeBinomial(r, logits=mu.log() - r.log()).log_prob(counts).sum().backward()

    ours, theirs = (
        Timer("f()", globals={"f": f}, num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=2).median
        for f in (delaporte, negative_binomial)
    )
    print(f"{_SHAPE[0]} × {_SHAPE[1]}, {(counts > 0).float().mean():.0%} non-zero, with gradients:")
    print(f"  Delaporte {1e3 * ours:.1f} ms, NegativeBinomial {1e3 * theirs:.1f} ms, ratio {ours / theirs:.2f}")


def step_by_part(n_cells: int, n_genes: int, regime: str) -> None:
    """The pieces of the objective in turn, as `_model.elbo` puts them together."""
    table = rsd.datasets.simulate_tissue(n_cells, n_genes, regime=regime, transcripts=False, rng=0).tables["table"]
    model_input, config = read_input(table, Setup(n_neighbors=_N_NEIGHBORS)), TrainingConfig()
    torch.manual_seed(0)
    module, view = ResolviModule(ModelConfig(), summarise(model_input)), model_input.view
    n_train = int(view.has_counts.sum())
    patches = cut_patches(
        view.coordinates, view.library, patch_size=patch_size_of(config, n_train), include=view.has_counts
    )
    stream = PatchStream(
        model_input.tissue(),
        patches,
        batch_size=batch_size_of(config, n_train),
        thin_counts=True,
        rng=np.random.default_rng(0),
    )
    shared = [p for name, p in module.named_parameters() if not name.startswith("neighbor_logits")]
    optimizers = [
        RowAdam(module.neighbor_logits.parameters(), lr=config.lr_cell),
        torch.optim.Adam(shared, lr=config.lr, fused=True),
    ]
    for _ in range(2):  # The first pass compiles.
        watch, steps, core, cells = Stopwatch(), 0, 0, 0
        for _ in range(_REPEATS):
            minibatches = iter(stream)
            while (minibatch := _timed(watch, "cut the minibatch", lambda m=minibatches: next(m, None))) is not None:
                _one_step(module, minibatch, shared, optimizers, watch)
                steps, core, cells = steps + 1, core + minibatch.n_core, cells + len(minibatch.cells)
    print(f"A step of {core / steps:.0f} core cells and {(cells - core) / steps:.0f} around them, ms:")
    for name, total in watch.seconds.items():
        print(f"  {name:32s} {1e3 * total / steps:6.2f}")
    print(f"  {'all':32s} {1e3 * sum(watch.seconds.values()) / steps:6.2f}")


def _timed(watch: Stopwatch, name: str, function: Callable[[], Any]) -> Any:
    with watch(name):
        return function()


def _one_step(
    module: ResolviModule, minibatch: Any, shared: list[Any], optimizers: list[torch.optim.Optimizer], watch: Stopwatch
) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    with watch("latent: encoder, draw, prior"):
        posterior = module.latent_posterior(minibatch)
        latent = posterior.rsample()
        terms = module.latent_prior(minibatch).log_prob(latent) - posterior.log_prob(latent)
    with watch("shares: encoder, draw, prior"):
        share_posterior = module.share_posterior(minibatch)
        shares = share_posterior.rsample()
        terms = terms + module.shares_prior(minibatch).log_prob(shares) - share_posterior.log_prob(shares)
    with watch("neighbor weights and their prior"):
        weights, density = module.neighbor_weights_and_density(minibatch, module.leakage_range())
        terms = terms + density
    with watch("decoder, core"):
        own = module.expression(latent, minibatch.core_categories)
    with watch("encoder and decoder, halo"):
        around = module.halo_expression(minibatch)
    with watch("likelihood with its gradient"):
        total = mixture_log_prob(
            minibatch.counts,
            own,
            around,
            minibatch.neighbor,
            weights,
            module.amount(minibatch, latent, shares),
            module.background_profile(),
            minibatch.core_batch,
            module.concentration(),
            module.concentration_group(minibatch.core_batch),
        )
    with watch("way back"):
        (-(total + terms.sum()) / minibatch.n_core).backward()
    with watch("gradient norm, Adam"):
        torch.nn.utils.clip_grad_norm_(shared, TrainingConfig.gradient_clip)
        for optimizer in optimizers:
            optimizer.step()


if __name__ == "__main__":
    main()
