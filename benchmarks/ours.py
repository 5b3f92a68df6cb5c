"""resolvi_sd on one data set: trains, infers, writes what it found and how long each part took."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from typing import Any

import anndata as ad
import exchange
import numpy as np
import torch

import resolvi_sd as rsd
from resolvi_sd._model import ResolviModule
from resolvi_sd._tiles import Minibatch, Patches, Tissue, cut_minibatch

_WARM_UP_CELLS = 500
_BATCH = 2048


def main() -> None:
    parser = exchange.parser(__doc__)
    parser.add_argument("--likelihood", choices=("nb", "poisson"), default="nb")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("resolvi_sd").setLevel(logging.WARNING)
    adata = ad.read_h5ad(options.data)
    engine = importlib.import_module("resolvi_sd._engine")
    train, infer = exchange.Phase(engine, "train_on_devices"), exchange.Phase(engine, "infer")
    labels: dict[str, Any] = {}
    if options.task == "labels":
        labels = {"labels_key": exchange.LABEL, "unlabeled_category": exchange.UNLABELED}
    # The first call of all compiles kernels and loads libraries.
    rsd.tl.fit(adata[:_WARM_UP_CELLS].copy(), max_epochs=1, show_progress_bar=False)

    trainings = []
    for epochs in options.epochs or [None]:
        watch = exchange.Stopwatch()
        with watch("fit"):
            rsd.tl.fit(
                adata,
                likelihood=options.likelihood,
                max_epochs=epochs,
                rng=options.seed,
                show_progress_bar=False,
                **labels,
            )
        trained = len(adata.uns["resolvi"]["history"]["epoch"])
        trainings.append({"epochs": trained, "seconds": train.seconds})
    record = {
        "trainings": trainings,
        "preparation_seconds": watch.seconds["fit"] - train.seconds - infer.seconds,
        "inference_seconds": infer.seconds,
        "versions": exchange.versions("resolvi-sd", "torch", "numpy", "anndata", "scipy", "numba"),
    }
    watch = exchange.Stopwatch()
    arrays = {"latent": adata.obsm["X_resolvi"]}
    if options.task == "labels":
        arrays["predicted"] = adata.obs["resolvi_predicted"].to_numpy(dtype=str)
    elif options.task == "de":
        with watch("comparisons"):
            arrays |= compare(adata, options.seed)
    else:
        with watch("expression"):
            rsd.tl.normalized_expression(adata, library_size=1.0, show_progress_bar=False)
        arrays["expression"] = np.asarray(adata.layers["resolvi_expression"])
    record |= {f"{part}_seconds": seconds for part, seconds in watch.seconds.items()}
    # Of the method, without the arrays below, which only the benchmark asks for.
    record["peak_memory_mb"] = exchange.peak_memory()
    module, tissue, patches = infer.args[:3]
    if options.task == "restore":
        arrays["own_share"] = own_share(module, tissue, patches)
    if options.rate_draws:
        arrays |= rates(module, tissue, patches, options.rate_draws, options.seed)
    exchange.save(options.out, record, corrected=corrections(adata), **arrays)


def corrections(adata: ad.AnnData) -> dict[str, Any]:
    """Corrected counts: expectations, whole molecules that are more likely own than not, and at costs in own ones."""
    found = {"default": adata.layers["resolvi_counts"]}
    for recipe, fpr in (("whole", None), ("fpr_5", 0.05), ("fpr_10", 0.1)):
        rsd.tl.decontaminated_counts(adata, fpr=fpr, show_progress_bar=False)
        found[recipe] = adata.layers["resolvi_decontaminated"]
    return found


def compare(adata: ad.AnnData, seed: int) -> dict[str, np.ndarray]:
    """All comparisons of the data, with defaults."""
    results = []
    for side in adata.obsm[exchange.COMPARISONS].T:
        adata.obs["side"] = np.array(["neither", "first", "second"])[side]
        found = rsd.tl.differential_expression(
            adata, groupby="side", group1="first", group2="second", rng=seed, copy=True, show_progress_bar=False
        )
        results.append(exchange.ranked(found, called="is_de_fdr"))
    return exchange.stacked(results)


@torch.no_grad()
def own_share(module: ResolviModule, tissue: Tissue, patches: Patches) -> np.ndarray:
    """The model's own share alpha of each cell, before it has seen which genes the cell's molecules are of."""
    share = np.empty(tissue.n_cells, np.float32)
    for core, minibatch in minibatches(tissue, patches):
        share[core] = module.shares(minibatch)[:, 0].numpy()
    return share


@torch.no_grad()
def rates(module: ResolviModule, tissue: Tissue, patches: Patches, n_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Expected molecules, background apart, averaged over draws of latent and shares; the inverse overdispersion of the
    rest, if it has any."""
    signal, background = np.zeros((2, tissue.n_cells, tissue.n_genes), np.float32)
    generator = torch.Generator().manual_seed(seed)
    for core, minibatch in minibatches(tissue, patches):
        mean, spread = module.latent_encoder(minibatch.features, minibatch.categories)
        posterior = module.share_posterior(minibatch)
        weights = module.neighbor_weights(minibatch, module.leakage_range())
        for _ in range(n_draws):
            latent = mean + spread * torch.randn(mean.shape, generator=generator)
            shares = posterior.at(torch.randn(posterior.loc.shape, generator=generator))
            profiles, amount = module.expression(latent, minibatch.categories), module.amount(minibatch, latent, shares)
            drawn = module.rates(minibatch, profiles, amount, weights, module.background_profile())
            signal[core] += drawn.signal.numpy() / n_draws
            background[core] += drawn.background.numpy() / n_draws
    result = {"signal": signal, "background": background}
    if module.config.likelihood == "nb":
        result["concentration"] = module.concentration().numpy()[0]
    return result


def minibatches(tissue: Tissue, patches: Patches) -> Iterator[tuple[np.ndarray, Minibatch]]:
    """Pieces of the tissue, and their core cells."""
    for start in range(0, len(patches.order), _BATCH):
        core = patches.order[start : start + _BATCH]
        yield core, cut_minibatch(tissue, core)


if __name__ == "__main__":
    main()
