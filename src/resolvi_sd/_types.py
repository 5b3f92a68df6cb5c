"""Types that several folders share."""

from __future__ import annotations

import scipy.sparse as sp

__all__ = ["CSR"]

CSR = sp.csr_matrix | sp.csr_array
