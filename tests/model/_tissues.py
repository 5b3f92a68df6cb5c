"""Small tissues for the tests of the model."""

import numpy as np
import scipy.sparse as sp
import torch

from resolvi_sd._graphs import knn_graph
from resolvi_sd._model import DataSummary, ModelConfig, ResolviModule
from resolvi_sd._tiles import Tissue


def small_tissue(
    n_cells=120, n_genes=15, n_batches=1, n_neighbors=5, n_labels=0, n_covariate=1, sizes=False, missing=(), seed=0
):
    """Random counts on random positions; the first cell is empty, and some have no label.

    With `n_covariate` categories of a further covariate, with or without physical sizes, and without the counts of the
    genes `missing`.
    """
    rng = np.random.default_rng(seed)
    coordinates = rng.uniform(0, 100, (n_cells, 2))
    batch = rng.integers(0, n_batches, n_cells)
    graph = knn_graph(coordinates, batch, n_neighbors)
    counts = rng.poisson(rng.gamma(0.5, 3.0, (n_cells, n_genes))).astype(np.float32)
    counts[0] = 0
    counts[:, list(missing)] = 0
    label = rng.integers(-1, n_labels, n_cells)
    categories = np.stack([batch, rng.integers(0, n_covariate, n_cells)], axis=1)
    size = rng.lognormal(3.0, 0.5, n_cells).astype(np.float32) if sizes else None
    tissue = Tissue.assemble(
        sp.csr_matrix(counts), categories, graph.index, graph.distance, graph.mask, label=label, size=size
    )
    return tissue, coordinates


def small_module(tissue, seed=0, **config):
    """A module with random parameters, also of the cells."""
    profile = np.asarray(tissue.counts.sum(0), dtype=np.float32).reshape(1, -1)
    n_batches = int(tissue.batch.max()) + 1
    data = DataSummary(
        n_cells=tissue.n_cells,
        n_train=int((tissue.molecules > 0).sum()),
        n_genes=tissue.n_genes,
        n_batches=n_batches,
        n_neighbors=tissue.n_neighbors,
        neighbor_distance=5.0,
        gene_profile=torch.from_numpy(np.repeat(profile / profile.sum(), n_batches, axis=0)),
        depth=20.0,
        n_labels=int(tissue.label.max()) + 1,
        n_covariates=(int(tissue.categories[:, 1].max()) + 1,),
        median_size=0.0 if tissue.size is tissue.molecules else float(np.median(tissue.size)),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = ResolviModule(
            ModelConfig(n_hidden=8, n_hidden_encoder=12, n_hidden_share=8, n_latent=3, **config), data
        )
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return module.eval()
