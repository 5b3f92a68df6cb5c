"""Sums over CSR matrices, block after block, against dense arrays."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

from resolvi_sd import _csr
from resolvi_sd._csr import canonical, csr_in_files, group_sums, map_rows, row_blocks, row_sums
from resolvi_sd._scratch import is_in_file, zeros_beside


@pytest.fixture(params=[np.float32, np.uint8, np.int64])
def matrix(request, monkeypatch):
    """50 rows, of which some are empty, in blocks of 7."""
    monkeypatch.setattr(_csr, "row_blocks", partial(row_blocks, size=7))
    counts = np.random.default_rng(0).poisson(0.4, (50, 6)) * 100
    counts[[0, 13, 49]] = 0
    return sp.csr_matrix(counts.astype(request.param))


def test_blocks_cover_the_rows_once():
    assert [(block.start, block.stop) for block in row_blocks(20, 8)] == [(0, 8), (8, 16), (16, 20)]
    assert list(row_blocks(0)) == []


def test_row_sums(matrix):
    dense = matrix.toarray().astype(np.float64)
    found = row_sums(matrix)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, dense.sum(axis=1))


def test_group_sums_leave_out_what_has_no_group(matrix):
    codes = np.random.default_rng(1).integers(-1, 3, 50)
    dense = matrix.toarray().astype(np.float64)
    expected = [dense[codes == code].sum(axis=0) for code in range(4)]
    np.testing.assert_array_equal(group_sums(matrix, codes, 4), expected)
    positive = [(dense[codes == code] > 0).sum(axis=0) for code in range(4)]
    before = matrix.copy()
    np.testing.assert_array_equal(group_sums(matrix, codes, 4, of=lambda x: (x > 0).astype(np.float64)), positive)
    assert (matrix != before).nnz == 0


def in_files(matrix):
    return csr_in_files((matrix[rows] for rows in row_blocks(matrix.shape[0], 9)), matrix.shape, matrix.dtype)


def test_a_matrix_in_files_is_the_same(matrix):
    found = in_files(matrix)
    assert is_in_file(found.data) and is_in_file(found.indices) and found.dtype == matrix.dtype
    assert (found != matrix).nnz == 0 and found.has_canonical_format


def test_zeros_are_dropped_without_leaving_the_files(matrix):
    """More than half of the entries, where scipy's own function would copy the others into memory."""
    found = in_files(matrix)
    values = np.zeros_like(matrix.data)
    values[::5] = matrix.data[::5]
    written = zeros_beside(found.data, found.dtype)
    written[:] = values
    thinned = map_rows(sp.csr_matrix((written, found.indices, found.indptr), found.shape), canonical)
    assert is_in_file(thinned.data) and thinned.nnz == np.count_nonzero(values)
    expected = sp.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)
    assert (thinned != expected).nnz == 0


def test_rows_in_memory_are_mapped_at_once(matrix):
    assert map_rows(matrix, canonical) is matrix
