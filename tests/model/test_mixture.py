"""The compiled pass over a minibatch equals the same likelihood written with tensors in float64."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numba import njit

from resolvi_sd._model.delaporte import delaporte_log_prob, expected_signal, mixture_log_prob
from resolvi_sd._model.delaporte._mixture_kernel import _log1p_in_place
from resolvi_sd._tiles import SparseRows


def mixture_of(n_core, n_cells, n_genes, k, seed=0):
    """Counts, profiles, neighbors and parameters of a minibatch with two batches, float32."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    profiles = torch.softmax(1.5 * torch.randn(n_cells, n_genes), 1)
    neighbor = torch.randint(0, n_cells, (n_core, k))
    weights = torch.softmax(torch.randn(n_core, k), 1)
    weights[:, -1] = 0  # an empty slot
    amount = torch.rand(n_core, 3) * torch.tensor([100.0, 30.0, 10.0]) + 0.1
    background, batch = torch.softmax(torch.randn(2, n_genes), 1), torch.randint(0, 2, (n_core,))
    r = 5 * torch.rand(2, n_genes) + 0.1
    x = rng.poisson(amount[:, :1].numpy() * profiles[:n_core].numpy() * rng.gamma(2, 0.5, (n_core, n_genes)) + 0.05)
    return (
        SparseRows.from_scipy(sp.csr_matrix(x.astype(np.float32))),
        profiles,
        neighbor,
        weights,
        amount,
        background,
        batch,
        r,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_value_and_gradients_equal_the_tensor_form(groups):
    n_core = 40
    counts, profiles, neighbor, weights, amount, background, batch, r = mixture_of(n_core, 70, 30, 6)
    r, group = r[:groups], batch % groups
    leaves = [t.clone().requires_grad_() for t in (profiles[:n_core], weights, amount, background, r)]
    own, beta, size, ambient, concentration = leaves
    compiled, own_share = mixture_log_prob(
        counts, own, profiles[n_core:], neighbor, beta, size, ambient, batch, concentration, group
    )
    (3 * compiled).backward()

    exact = [t.detach().double().requires_grad_() for t in leaves]
    own64, beta64, size64, ambient64, r64 = exact
    everyone = torch.cat([own64.detach(), profiles[n_core:].double()])
    around = (beta64[:, :, None] * everyone[neighbor]).sum(1)
    mu, lam = size64[:, :1] * own64 + size64[:, 1:2] * around, size64[:, 2:] * ambient64[batch]
    counts64 = SparseRows(counts.indptr, counts.gene, counts.value.double(), counts.shape)
    reference = delaporte_log_prob(counts64, mu, lam, r64, group).sum()
    (3 * reference).backward()

    assert compiled.item() == pytest.approx(reference.item(), rel=1e-5)
    row, gene = counts.rows(), counts.gene
    signal = expected_signal(counts64, mu, lam, r64, group)
    expected = signal / counts64.value * (size64[:, :1] * own64 / mu)[row, gene]
    assert not own_share.requires_grad and own_share.max() <= 1
    torch.testing.assert_close(own_share.double(), expected, rtol=1e-4, atol=1e-6, check_dtype=False)
    for name, found, expected in zip(("own", "weights", "amount", "background", "r"), leaves, exact, strict=True):
        used = weights > 0 if name == "weights" else torch.ones_like(found, dtype=torch.bool)
        scale = expected.grad[used].abs().max().item()
        torch.testing.assert_close(
            found.grad.double()[used], expected.grad[used], rtol=1e-4, atol=1e-5 * scale, msg=name
        )


def test_log1p_is_exact_to_float32():
    t = np.append(10 ** np.random.default_rng(0).uniform(-8, 6, 20_000), 0).astype(np.float32)
    exact = np.log1p(t.astype(np.float64))
    compiled = njit(lambda t, u, e: _log1p_in_place(t, u, u.view(np.int32), e))
    compiled(t, np.empty_like(t), np.empty_like(t))
    np.testing.assert_allclose(t, exact, rtol=4e-7, atol=1e-30)
