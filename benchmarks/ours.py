"""resolvi_sd on one data set: trains, infers, writes what it found and how long each part took."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import anndata as ad
import exchange
import numpy as np
import torch

import resolvi_sd as rsd
from resolvi_sd._model import ResolviModule
from resolvi_sd._tiles import Patches, Tissue, cut_minibatch

_WARM_UP_CELLS = 500
_BATCH = 2048


class Phase:
    """Stands in for a function that `tl.fit` calls, and keeps the time and arguments of its last call."""

    def __init__(self, module: Any, name: str) -> None:
        self.function = getattr(module, name)
        setattr(module, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args = args
        watch = exchange.Stopwatch()
        with watch("call"):
            result = self.function(*args, **kwargs)
        self.seconds = watch.seconds["call"]
        return result


def main() -> None:
    options = exchange.parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("resolvi_sd").setLevel(logging.WARNING)
    adata = ad.read_h5ad(options.data)
    engine = importlib.import_module("resolvi_sd._engine")
    train, infer = Phase(engine, "train"), Phase(engine, "infer")
    labels: dict[str, Any] = {}
    if options.task == "labels":
        labels = {"labels_key": exchange.LABEL, "unlabeled_category": exchange.UNLABELED}
    # The first call of all compiles kernels and loads libraries.
    rsd.tl.fit(adata[:_WARM_UP_CELLS].copy(), max_epochs=1, show_progress_bar=False)

    trainings = []
    for epochs in options.epochs or [None]:
        watch = exchange.Stopwatch()
        with watch("fit"):
            rsd.tl.fit(adata, max_epochs=epochs, rng=options.seed, show_progress_bar=False, **labels)
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
    if options.task == "restore":
        arrays |= model_rates(*infer.args[:3])
    exchange.save(options.out, record, corrected={"default": adata.layers["resolvi_counts"]}, **arrays)


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


def model_rates(module: ResolviModule, tissue: Tissue, patches: Patches) -> dict[str, np.ndarray]:
    """The model's own share alpha of each cell, before it has seen which genes the cell's molecules are of; and the
    expected molecules, background apart, with the inverse overdispersion of the rest."""
    share = np.empty(tissue.n_cells, np.float32)
    signal, background = np.empty((2, tissue.n_cells, tissue.n_genes), np.float32)
    for start in range(0, len(patches.order), _BATCH):
        core = patches.order[start : start + _BATCH]
        minibatch = cut_minibatch(tissue, core)
        with torch.no_grad():
            latent, _ = module.latent_encoder(minibatch.features, minibatch.categories)
            shares, weights = module.shares(minibatch), module.neighbor_weights(minibatch, module.leakage_range())
            profiles, amount = module.expression(latent, minibatch.categories), module.amount(minibatch, latent, shares)
            rates = module.rates(minibatch, profiles, amount, weights, module.background_profile())
        share[core] = shares[:, 0].numpy()
        signal[core], background[core] = rates.signal.numpy(), rates.background.numpy()
    concentration = module.concentration().detach().numpy()[0]
    return {"own_share": share, "signal": signal, "background": background, "concentration": concentration}


if __name__ == "__main__":
    main()
