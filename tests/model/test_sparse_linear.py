"""The compiled product with sparse rows, against a dense product in float64."""

import numpy as np
import pytest
import torch
from scipy import sparse as sp
from torch.nn import functional as F

from resolvi_sd._model.sparse_linear import SparseLinear
from resolvi_sd._tiles import SparseRows


def rows_of(n_cells, n_genes, density, seed=0):
    matrix = sp.random(n_cells, n_genes, density, format="csr", random_state=seed, dtype=np.float32)
    return SparseRows.from_scipy(matrix)


@pytest.mark.parametrize(
    ("n_cells", "n_genes", "n_hidden", "density"),
    [(40, 30, 8, 0.3), (7, 101, 33, 0.07), (1, 5, 1, 1.0), (25, 12, 4, 0.0), (0, 6, 3, 0.5)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradient(n_cells, n_genes, n_hidden, density, bias):
    torch.manual_seed(0)
    layer, rows = SparseLinear(n_genes, n_hidden, bias=bias), rows_of(n_cells, n_genes, density)
    dense, upstream = rows.to_dense().double(), torch.randn(n_cells, n_hidden)
    exact = [p.detach().double().requires_grad_() for p in layer.parameters()]

    result, expected = layer(rows), F.linear(dense, *exact)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    result.backward(upstream)
    expected.backward(upstream.double())
    for parameter, other in zip(layer.parameters(), exact, strict=True):
        torch.testing.assert_close(parameter.grad.double(), other.grad, rtol=1e-5, atol=1e-5)


def test_entries_that_thinning_emptied_count_as_zeros():
    layer, rows = SparseLinear(9, 4), rows_of(6, 9, 0.8)
    kept = rows.with_values(torch.where(torch.arange(len(rows.value)) % 3 == 0, 0.0, rows.value))
    torch.testing.assert_close(layer(kept), F.linear(kept.to_dense(), layer.weight, layer.bias))
    layer(kept).sum().backward()
    torch.testing.assert_close(layer.weight.grad, kept.to_dense().sum(0).expand(4, 9), rtol=1e-5, atol=1e-6)


def test_rows_of_a_larger_matrix():
    layer, rows = SparseLinear(20, 6), rows_of(30, 20, 0.4)
    torch.testing.assert_close(layer(rows.between(11, 24)), layer(rows)[11:24])


def test_in_float64_it_is_the_dense_product():
    layer, rows = SparseLinear(20, 6).double(), rows_of(30, 20, 0.4)
    torch.testing.assert_close(layer(rows), F.linear(rows.to_dense().double(), layer.weight, layer.bias))
