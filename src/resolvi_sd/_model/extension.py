"""Extension of a fitted model to other cells, which keeps the reference's parameters and adds new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy

from torch import Tensor

from resolvi_sd._model.module import PER_CELL, DataSummary, ResolviModule

__all__ = ["copy_module", "extend_module", "keep_known_rows"]


def extend_module(reference: ResolviModule, data: DataSummary, *, freeze: bool = True) -> ResolviModule:
    """Return a model for the cells that `data` describes, with the reference's parameters.

    Neighbor weights start at the kernel of distances. `data` may have more batches and categories of covariates than
    the reference; the rows of these additional categories start at the mean of the reference's rows.

    Parameters
    ----------
    reference
        Fitted model.
    data
        Sizes of the query, whose genes and labels are those of the reference.
    freeze
        Whether to train only the neighbor weights and the rows of new batches and categories.
    """
    module = ResolviModule.blank(reference.config, data)
    known = reference.state_dict()
    module.origin = _digest(known)
    for name, value in module.state_dict().items():
        if name == PER_CELL:
            continue
        old = known.get(name)
        if old is None:
            # The reference had a single category and therefore no effect of this covariate.
            value.zero_()
        elif old.shape == value.shape:
            value.copy_(old)
        else:
            value[: len(old)] = old
            value[len(old) :] = old.mean(dim=0)
    if freeze:
        for name, parameter in module.named_parameters():
            if name != PER_CELL:
                grows = name not in known or known[name].shape != parameter.shape
                parameter.requires_grad_(grows and parameter.requires_grad)
                if parameter.requires_grad:
                    module.known_rows[name] = len(known[name]) if name in known else 1
        keep_known_rows(module)
    return module.eval()


def _digest(parameters: dict[str, Tensor]) -> str:
    """Return a digest of the parameters that all cells share."""
    digest = hashlib.sha256()
    for name, value in parameters.items():
        if name != PER_CELL:
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def copy_module(module: ResolviModule) -> ResolviModule:
    """Return a copy of a model that keeps fixed the same rows as the model."""
    copied = deepcopy(module)
    keep_known_rows(copied)
    return copied


def keep_known_rows(module: ResolviModule) -> None:
    """Mask the gradient of the rows that a model keeps fixed, by hooks, which copies and pickles lose."""
    for name, n_known in module.known_rows.items():
        module.get_parameter(name).register_hook(_only_after(n_known))


def _only_after(n_known: int) -> Callable[[Tensor], Tensor]:
    """Return a gradient hook that keeps the first rows unchanged."""

    def hook(gradient: Tensor) -> Tensor:
        kept = gradient.clone()
        kept[:n_known] = 0
        return kept

    return hook
