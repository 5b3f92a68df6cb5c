"""Hyper-parameters: what the model is, and how it is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from typing import Any, Literal, TypeVar

__all__ = ["ModelConfig", "TrainingConfig", "combine_configs"]

_Config = TypeVar("_Config", "ModelConfig", "TrainingConfig")


@dataclass(frozen=True)
class ModelConfig:
    """The generative model and its guide.

    Parameters
    ----------
    n_latent
        Dimensions L of the latent space.
    n_components
        Gaussians M in the mixture prior of the latent space.
    n_hidden
        Width of the decoder's hidden layers.
    n_hidden_encoder
        Width of the latent encoder's hidden layers.
    n_hidden_share
        Width of the share encoder's hidden layers.
    n_layers
        Hidden layers of every network.
    dropout_rate
        Dropout in the latent encoder while training.
    likelihood
        `"nb"`: counts are Delaporte (negative binomial plus Poisson background); `"poisson"`: both parts Poisson, so
        that nothing that leaked can pass for overdispersion, and more is removed.
    dispersion
        One overdispersion per gene, or per gene and batch.
    share_prior
        Prior means of a cell's shares: own, diffusion, background. They are scaled to sum to 1.
    share_prior_weight
        Concentration of the Dirichlet over the shares: how many molecules' worth of evidence the prior is.
    adapt_share_prior
        Whether `share_prior` is only where the training starts, and is learned from there.
    encode_covariates
        Whether the latent encoder sees batch and covariates; without, the latent is freer of them.
    label_prior_logit
        With labels: by how much the prior favours the mixture component of a cell's label, in logits.
    classification_weight
        With labels: weight of the label's log-probability in the objective.
    background_prior_weight
        Dirichlet concentration of each gene in the background profile, per gene.
    neighbor_prior_weight
        Concentration of the Dirichlet over a cell's neighbors, summed over neighbors.

    Notes
    -----
    The number of latent dimensions, components and the widths of latent encoder and decoder are those of the reference
    implementation (Ergen & Yosef 2025); the width of the share encoder and the weights of the priors were chosen on
    simulated tissues (see `benchmarks/NOTES.md`).

    Examples
    --------
    >>> from resolvi_sd import ModelConfig
    >>> ModelConfig(n_latent=20).n_latent
    20
    """

    n_latent: int = 10
    n_components: int = 50
    n_hidden: int = 32
    n_hidden_encoder: int = 128
    n_hidden_share: int = 32
    n_layers: int = 2
    dropout_rate: float = 0.0
    likelihood: Literal["nb", "poisson"] = "nb"
    dispersion: Literal["gene", "gene-batch"] = "gene"
    share_prior: tuple[float, float, float] = (0.75, 0.20, 0.05)
    share_prior_weight: float = 8.5
    adapt_share_prior: bool = True
    encode_covariates: bool = False
    label_prior_logit: float = 10.0
    classification_weight: float = 20.0
    background_prior_weight: float = 5.0
    neighbor_prior_weight: float = 30.0

    def __post_init__(self) -> None:
        for name in ("n_latent", "n_components", "n_hidden", "n_hidden_encoder", "n_hidden_share", "n_layers"):
            _require(_is_integer(getattr(self, name), 1), name, getattr(self, name), "an integer of at least 1")
        _require(0 <= self.dropout_rate < 1, "dropout_rate", self.dropout_rate, "in [0, 1)")
        _require(self.likelihood in ("nb", "poisson"), "likelihood", self.likelihood, "'nb' or 'poisson'")
        _require(self.dispersion in ("gene", "gene-batch"), "dispersion", self.dispersion, "'gene' or 'gene-batch'")
        _require(
            len(self.share_prior) == 3 and min(self.share_prior) > 0,
            "share_prior",
            self.share_prior,
            "three positive numbers",
        )
        for name in (
            "share_prior_weight",
            "background_prior_weight",
            "neighbor_prior_weight",
            "label_prior_logit",
            "classification_weight",
        ):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained.

    Parameters
    ----------
    max_epochs
        Exactly this many passes over the cells; None: until the ELBO has converged, within `epoch_limit`.
    epoch_limit
        Largest number of epochs when `max_epochs` is None.
    min_steps
        Gradient steps before which the ELBO is not called converged when `max_epochs` is None; nor is it before the end
        of the warm-up, 20 epochs, and 150,000 cells seen, as far as `epoch_limit` allows.
    batch_size
        Core cells of a minibatch, rounded to whole patches; None: an eighth of the cells, between 128 and 2,560.
    patch_size
        Largest number of cells of a patch; None: so that a minibatch has 11 to 21 patches, and at most 192. With few
        patches the gradient of a step knows only a corner of the tissue.
    lr
        Adam's learning rate of the networks and of all that is shared between cells.
    lr_cell
        Learning rate of the per-cell neighbor weights.
    kl_warmup_steps
        Gradient steps over which the weight of the latent's KL divergence grows from 0 to 1, as their square, or 60% of
        the training if that is shorter. Cut short, kinds of cells that the latent has not told apart yet stay merged.
        The linear map of the decoder comes in over the second third of them.
    thin_counts
        Whether the latent encoder sees randomly thinned counts in training, so that the latent does not
        depend on depth.
    gradient_clip
        Largest norm of the gradient of the shared parameters.
    checkpoint_dir
        Folder for checkpoints after every epoch. A fit that finds one there resumes from it, also to train longer. It
        raises if that is of more epochs, other data, settings or seed, or of a query of another reference. None: no
        checkpoints.

    Examples
    --------
    >>> from resolvi_sd import TrainingConfig
    >>> TrainingConfig(max_epochs=20).max_epochs
    20
    """

    max_epochs: int | None = None
    epoch_limit: int = 200
    min_steps: int = 400
    batch_size: int | None = None
    patch_size: int | None = None
    lr: float = 1e-2
    lr_cell: float = 5e-2
    kl_warmup_steps: int = 300
    thin_counts: bool = True
    gradient_clip: float = 10.0
    checkpoint_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.checkpoint_dir is not None:
            object.__setattr__(self, "checkpoint_dir", os.fspath(self.checkpoint_dir))  # text, which a store can hold
        for name in ("max_epochs", "batch_size", "patch_size"):
            value = getattr(self, name)
            _require(value is None or _is_integer(value, 1), name, value, "None or an integer of at least 1")
        _require(_is_integer(self.epoch_limit, 1), "epoch_limit", self.epoch_limit, "an integer of at least 1")
        for name in ("lr", "lr_cell", "gradient_clip"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        for name in ("kl_warmup_steps", "min_steps"):
            _require(_is_integer(getattr(self, name), 0), name, getattr(self, name), "an integer of at least 0")


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


def _require(holds: bool, name: str, value: object, what: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {what}, got {value!r}.")


def to_plain(config: ModelConfig | TrainingConfig) -> dict[str, Any]:
    """Return settings as a dict that a store can hold: no None (absent means None), no tuples."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    return {k: v for k, v in plain.items() if v is not None}


def from_plain(kind: type[_Config], plain: Mapping[str, Any]) -> _Config:
    """Inverse of :func:`to_plain`, from what a store gives back (numpy scalars and arrays)."""
    known = {f.name for f in fields(kind)}
    unknown = set(plain) - known
    if unknown:
        raise ValueError(
            f"The stored {kind.__name__} has settings that this version does not know: {sorted(unknown)}. "
            "It was written by a newer version of resolvi_sd; please update."
        )
    native = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in plain.items()}
    settings: dict[str, Any] = {f.name: None for f in fields(kind) if f.default is None}
    settings |= {k: tuple(v) if isinstance(v, list) else v for k, v in native.items()}
    return replace(kind(), **settings)


def combine_configs(given: _Config | None, default: _Config, argument: str, **settings: Any) -> _Config:
    """Return the settings of a call: a whole config, or single settings over the default, but not both.

    Raises
    ------
    TypeError
        If the config is of another type.
    ValueError
        If single settings differ from the default although a whole config was given.
    """
    if given is not None and not isinstance(given, type(default)):
        name = type(default).__name__
        raise TypeError(f"`{argument}` must be a {name}, not {type(given).__name__}: `{argument}={name}(...)`.")
    changed = {name: value for name, value in settings.items() if value != getattr(default, name)}
    if given is None:
        return replace(default, **changed)
    if changed:
        raise ValueError(f"Give {sorted(changed)} inside `{argument}={type(given).__name__}(...)`, not beside it.")
    return given
