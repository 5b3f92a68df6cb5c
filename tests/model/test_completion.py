"""What a cell would have had of genes that were not measured."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch

from resolvi_sd._model import completion
from resolvi_sd._model.completion import complete
from resolvi_sd._tiles import SparseRows, encoder_features

from ._tissues import small_module, small_tissue


def test_by_hand():
    """Cell by cell and kind by kind; cells of two batches."""
    tissue, _ = small_tissue(n_batches=2)
    module = small_module(tissue, n_components=3)
    missing = [1, 4]
    measured = np.setdiff1d(np.arange(tissue.n_genes), missing)
    module.data = replace(module.data, unmeasured=tuple(missing))
    counts = tissue.counts[:6].toarray()
    counts[:, missing] = 0
    counts[5] = 0
    categories = tissue.categories[:6]
    features = encoder_features(SparseRows.from_scipy(sp.csr_matrix(counts)))
    rows = SparseRows.from_scipy(sp.csr_matrix(counts))
    found = complete(module, features, torch.from_numpy(categories), torch.from_numpy(counts.sum(1)))
    completed_counts = found.counts(rows.between(0, 4), missing).to_dense().numpy()
    with torch.no_grad():
        weight = torch.softmax(module.component_logits, 0).numpy()
        for cell in range(6):
            own = float(module.share_mean(torch.tensor(categories[cell, 0]))[0])
            setting = torch.from_numpy(np.tile(categories[cell], (3, 1)))
            profiles = module.expression(module.component_means, setting).numpy()
            seen = profiles[:, measured] / profiles[:, measured].sum(1, keepdims=True)
            mixed = own * seen + (1 - own) * weight @ seen
            likelihood = weight * np.prod(mixed ** counts[cell, measured], axis=1)
            expected = likelihood @ profiles / likelihood.sum()
            composition = expected.copy()
            composition[measured] = counts[cell, measured] / max(counts[cell].sum(), 1) * expected[measured].sum()
            np.testing.assert_allclose(
                found.features.to_dense()[cell].numpy(), np.log1p(tissue.n_genes * composition), rtol=1e-4, atol=1e-5
            )
            molecules = counts[cell].sum() / expected[measured].sum()
            np.testing.assert_allclose(found.molecules[cell].item(), molecules, rtol=1e-4)
            if cell < 4:
                np.testing.assert_array_equal(completed_counts[cell, measured], counts[cell, measured])
                np.testing.assert_allclose(completed_counts[cell, missing], molecules * expected[missing], rtol=1e-3)


def test_blocks_of_cells_are_completed_one_by_one(monkeypatch):
    tissue, _ = small_tissue()
    module = small_module(tissue)
    module.data = replace(module.data, unmeasured=(0, 2))
    features = encoder_features(SparseRows.from_scipy(tissue.counts))  # also of genes that count as not measured
    given = features, torch.from_numpy(tissue.categories), torch.from_numpy(tissue.molecules)
    expected = complete(module, *given)
    monkeypatch.setattr(completion, "_ROWS", 50)
    found = complete(module, *given)
    in_blocks, at_once = found.features.to_dense().numpy(), expected.features.to_dense().numpy()
    assert in_blocks.shape == (120, 15)
    np.testing.assert_allclose(in_blocks, at_once, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.molecules, expected.molecules, rtol=1e-5)
    np.testing.assert_allclose(np.expm1(in_blocks).sum(axis=1)[1:], 15, rtol=1e-4)  # the first cell is empty
    none = complete(module, features.between(0, 0), given[1][:0], given[2][:0])
    assert none.features.shape == (0, 15) and len(none.molecules) == 0


def test_with_all_genes_nothing_is_completed():
    tissue, _ = small_tissue()
    module = small_module(tissue)
    features = encoder_features(SparseRows.from_scipy(tissue.counts[:5]))
    categories, molecules = torch.from_numpy(tissue.categories[:5]), torch.from_numpy(tissue.molecules[:5])
    with torch.no_grad():
        expected, found = module.latent_encoder(features, categories), module.encode(features, categories, molecules)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
