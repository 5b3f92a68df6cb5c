"""scvi-tools' RESOLVI on one data set, in an environment of its own."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import exchange
import numpy as np
import scvi
import torch
from scipy.spatial import cKDTree
from scvi.external import RESOLVI

_WARM_UP_CELLS = 500
_SAMPLES = 10
_BATCH = 1000
_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"model": {}, "train": {}},
    "paper": {"model": {"mixture_k": 100}, "train": {"max_epochs": 100, "lr": 1e-3, "lr_extra": 5e-2}},
}
_N_NEIGHBORS = {"default": 10, "paper": 20}


def main() -> None:
    parser = exchange.parser(__doc__)
    parser.add_argument("--neighbors", choices=("exact", "shipped"), default="exact")
    parser.add_argument("--settings", choices=tuple(_SETTINGS), default="default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scvi.settings.verbosity = logging.WARNING
    settings, n_neighbors = _SETTINGS[options.settings], _N_NEIGHBORS[options.settings]
    adata = ad.read_h5ad(options.data)

    warm_up = adata[:_WARM_UP_CELLS].copy()
    register(warm_up, options.neighbors, n_neighbors)
    train(RESOLVI(warm_up), {"max_epochs": 1})
    labels = options.task == "labels"

    trainings = []
    for epochs in options.epochs or [None]:
        scvi.settings.seed = options.seed
        watch = exchange.Stopwatch()
        with watch("preparation"):
            register(adata, options.neighbors, n_neighbors, labels=labels)
            model = RESOLVI(adata, semisupervised=labels, **settings["model"])
        with watch("training"):
            train(model, settings["train"] | ({} if epochs is None else {"max_epochs": epochs}))
        trainings.append({"epochs": int(model.trainer.current_epoch), "seconds": watch.seconds["training"]})
    corrected: dict[str, Any] = {}
    arrays = {}
    with watch("inference"):
        arrays["latent"] = model.get_latent_representation()
        if labels:
            arrays["predicted"] = np.asarray(model.predict(), dtype=str)
        else:
            corrected, arrays["own_share"] = infer(model, adata.X)
    if options.task == "de":
        with watch("comparisons"):
            arrays |= compare(model, adata)
    elif not labels:
        with watch("expression"):
            arrays["expression"] = model.get_normalized_expression(
                n_samples=_SAMPLES, return_numpy=True, batch_size=_BATCH
            )
    measured = ("preparation", "inference", "expression", "comparisons")
    record = {
        "trainings": trainings,
        **{f"{part}_seconds": watch.seconds[part] for part in measured if part in watch.seconds},
        "peak_memory_mb": exchange.peak_memory(),
        "versions": exchange.versions("scvi-tools", "torch", "numpy", "anndata", "scipy", "pyro-ppl", "scanpy"),
    }
    if options.rate_draws:
        arrays |= rates(model, options.rate_draws)
    exchange.save(options.out, record, corrected=corrected, **arrays)


def compare(model: RESOLVI, adata: ad.AnnData) -> dict[str, np.ndarray]:
    """All comparisons of the data, with defaults."""
    results = []
    for side in adata.obsm[exchange.COMPARISONS].T:
        found = model.differential_expression(idx1=side == 1, idx2=side == 2, silent=True)
        results.append(exchange.ranked(found.loc[adata.var_names], called="is_de_fdr_0.05"))
    return exchange.stacked(results)


def register(adata: ad.AnnData, neighbors: str, n_neighbors: int, *, labels: bool = False) -> None:
    """Tell scvi-tools where the neighbors are; `shipped` lets it look for them itself."""
    adata.obsm["X_spatial"] = adata.obsm["spatial"]
    if neighbors == "exact":
        adata.obsm["index_neighbor"], distance = exact_neighbors(adata.obsm["spatial"], n_neighbors)
        # Squared: what the preparation of scvi-tools writes, and its kernel takes.
        adata.obsm["distance_neighbor"] = distance**2
    known = {"labels_key": exchange.LABEL, "unlabeled_category": exchange.UNLABELED} if labels else {}
    if exchange.BATCH in adata.obs:
        known["batch_key"] = exchange.BATCH
    RESOLVI.setup_anndata(
        adata, prepare_data=neighbors == "shipped", prepare_data_kwargs={"n_neighbors": n_neighbors}, **known
    )


def exact_neighbors(coordinates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances of the k nearest other cells, cells × k."""
    distance, index = map(np.asarray, cKDTree(coordinates).query(coordinates, k=k + 1))
    # The cell itself goes last; it need not come first where cells coincide.
    others = np.argsort(index == np.arange(len(index))[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, others, axis=1), np.take_along_axis(distance, others, axis=1)


def train(model: RESOLVI, settings: dict[str, Any]) -> None:
    model.train(**settings, accelerator="cpu", enable_progress_bar=False)


def infer(model: RESOLVI, counts: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Corrected counts by two recipes, and the own share of each cell.

    `"default"` is the recipe in use: counts · r / (r + m), r the median rate of the corrected model, m the mean rate of
    the residual one. `"weighted"` is the best that these samples give: r is times the cell's own share, and the first
    sample, which `sample_posterior` draws from the full model whatever it is asked for, is left out of m.
    """
    rate = draw(model, model.module.model_corrected, ["px_rate"], {"median": np.median})["median"]["px_rate"]
    residual = draw(
        model,
        model.module.model_residuals,
        ["mean_poisson", "mixture_proportions"],
        {"mean": np.mean, "rest": _mean_of_rest},
    )
    mixture = residual["mean"]["mixture_proportions"]
    share = mixture[:, 0] / mixture.sum(axis=1)
    own, rest = share[:, None] * rate, residual["rest"]["mean_poisson"]
    corrected = {
        "default": counts.multiply(rate / (rate + residual["mean"]["mean_poisson"])).tocsr(),
        "weighted": counts.multiply(own / (own + rest)).tocsr(),
    }
    return corrected, share


def rates(model: RESOLVI, n_draws: int) -> dict[str, np.ndarray]:
    """Expected molecules, background apart, and the inverse overdispersion of the rest.

    `mean_poisson` holds a draw of the Gamma, which is in the composition as noise unless there are many draws.
    """
    own = draw(model, model.module.model_corrected, ["px_rate"], {"mean": np.mean}, n_draws)["mean"]["px_rate"]
    sites = ["mean_poisson", "mixture_proportions", "background", "px_r_inv"]
    rest = draw(model, model.module.model_residuals, sites, {"mean": _mean_of_rest}, n_draws)["mean"]
    share = rest["mixture_proportions"][:, :1] / rest["mixture_proportions"].sum(axis=1, keepdims=True)
    signal = share * own + rest["mean_poisson"] - rest["background"]
    return {
        "signal": np.maximum(signal, 0.0).astype(np.float32),
        "background": rest["background"].astype(np.float32),
        "concentration": 1 / rest["px_r_inv"].reshape(-1, own.shape[1])[0],
    }


def draw(
    model: RESOLVI, part: Any, sites: list[str], summaries: dict[str, Any], n_samples: int = _SAMPLES
) -> dict[str, dict[str, np.ndarray]]:
    """Summaries of draws of `sites` of a part of the model, by the names of both."""
    # With a summary after every minibatch; without, 1.4.2 draws all but the first minibatch twice.
    return model.sample_posterior(
        model=part,
        return_sites=sites,
        summary_fun=summaries,
        num_samples=n_samples,
        batch_size=_BATCH,
        summary_frequency=1,
        accelerator="cpu",
    )


def _mean_of_rest(samples: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(samples[1:], axis=axis)


if __name__ == "__main__":
    main()
