"""Hyperparameters of the model and of its training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar

from resolvi_sd._validation import check_flag, check_integer, check_number, listing

__all__ = ["ModelConfig", "TrainingConfig", "combine_configs", "from_plain", "to_plain"]

_Config = TypeVar("_Config", "ModelConfig", "TrainingConfig")


@dataclass(frozen=True)
class ModelConfig:
    """Hyperparameters of the generative model and its guide.

    Parameters
    ----------
    n_latent
        Number of dimensions L of the latent space.
    n_components
        Number of Gaussians M in the mixture prior of the latent space.
    n_hidden
        Width of the decoder's hidden layers.
    n_hidden_encoder
        Width of the latent encoder's hidden layers.
    n_hidden_share
        Width of the share encoder's hidden layers.
    n_layers
        Number of hidden layers of every network.
    dropout_rate
        Dropout rate of the latent encoder during training.
    likelihood
        With `"nb"`, counts follow a Delaporte distribution (negative binomial plus Poisson background). With
        `"poisson"`, both parts are Poisson, so that leakage cannot be mistaken for overdispersion, and more is removed.
    dispersion
        Whether there is one overdispersion per gene, or one per gene and batch.
    share_prior
        Prior means of a cell's shares: own, diffusion, background. They are scaled to sum to 1.
    share_prior_weight
        Concentration of the Dirichlet prior of the shares: the number of molecules that the prior is worth as evidence.
    adapt_share_prior
        Whether `share_prior` is only the starting point of the training and is learned from there for each batch,
        including how it depends on the molecules of a cell and of its neighbors and on their distances. Otherwise it is
        the same for all cells.
    encode_covariates
        Whether the latent encoder sees the batch and the covariates. If it does not, the latent space depends less on
        them.
    label_prior_logit
        For fits with labels: by how much, in logits, the prior favors the mixture component of a cell's label.
    classification_weight
        For fits with labels: weight of the label's log-probability in the objective.
    background_prior_weight
        Dirichlet concentration of each gene in the background profile.
    neighbor_prior_weight
        Concentration of the Dirichlet prior of a cell's neighbor weights, summed over neighbors.
    profile_sparsity
        Strength of a Dirichlet prior that favors expression profiles of few genes; 0 for no such prior. With D
        molecules in a median cell, its concentration is `1 - profile_sparsity * D / n_genes` for each gene. Try 0.02 on
        panels of marker genes, if mutually exclusive genes are still found together after a fit. If the value is too
        large, weakly expressed genes are mistaken for background.

    Notes
    -----
    The numbers of latent dimensions and components and the widths of the latent encoder and the decoder are those of
    the reference implementation (Ergen & Yosef 2025); the width of the share encoder and the weights of the priors were
    chosen on simulated tissues (see `benchmarks/NOTES.md`).

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
    profile_sparsity: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_latent", "n_components", "n_hidden", "n_hidden_encoder", "n_hidden_share", "n_layers"):
            _set(self, name, check_integer(getattr(self, name), 1, argument=name))
        _set(self, "dropout_rate", check_number(self.dropout_rate, argument="dropout_rate", least=0, below=1))
        for name, known in (("likelihood", ("nb", "poisson")), ("dispersion", ("gene", "gene-batch"))):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be {known[0]!r} or {known[1]!r}, not {getattr(self, name)!r}.")
        if len(self.share_prior) != 3:
            raise ValueError(
                f"`share_prior` must be three numbers (own, diffusion, background), not {self.share_prior}."
            )
        shares = tuple(check_number(share, argument="share_prior", above=0) for share in self.share_prior)
        _set(self, "share_prior", shares)
        for name in ("adapt_share_prior", "encode_covariates"):
            _set(self, name, check_flag(getattr(self, name), argument=name))
        for name in (
            "share_prior_weight",
            "background_prior_weight",
            "neighbor_prior_weight",
            "label_prior_logit",
            "classification_weight",
        ):
            _set(self, name, check_number(getattr(self, name), argument=name, above=0))
        sparsity = check_number(self.profile_sparsity, argument="profile_sparsity", least=0, below=1)
        _set(self, "profile_sparsity", sparsity)


@dataclass(frozen=True)
class TrainingConfig:
    """Hyperparameters of the training.

    Parameters
    ----------
    max_epochs
        Exact number of passes over the cells. If None, the model is trained until the ELBO has converged, within
        `epoch_limit`.
    epoch_limit
        Largest number of epochs if `max_epochs` is None.
    min_steps
        If `max_epochs` is None, number of gradient steps before which the ELBO does not count as converged; nor does it
        before the end of the warm-up, 20 epochs, and 150,000 cells seen, as far as `epoch_limit` allows.
    batch_size
        Number of core cells of a minibatch, rounded to whole patches. If None, an eighth of the cells, between 128 and
        2,560.
    patch_size
        Largest number of cells of a patch. If None, chosen such that a minibatch has 11 to 21 patches, with an upper
        limit of 192 cells. With few patches, the gradient of a step reflects only a corner of the tissue.
    lr
        Adam's learning rate for the networks and all other parameters that cells share.
    lr_cell
        Learning rate for the neighbor weights of each cell.
    kl_warmup_steps
        Number of gradient steps over which the weight of the latent's KL divergence grows from 0 to 1, as the square of
        their completed fraction; 60% of the training if that is shorter. If the warm-up is too short, kinds of cells
        that the latent space does not yet separate stay merged. The linear maps of the latent encoder and of the
        decoder are phased in during the second third of these steps.
    thin_counts
        Whether the latent encoder sees randomly thinned counts during training, so that the latent space does not
        depend on depth.
    thin_foreign
        Share of the cells of which the latent encoder sees only own molecules during training, so that the latent space
        depends less on what cells received: each molecule is kept with the probability that it is own, as of the last
        step with its cell. The cells are drawn anew for each minibatch; 0 shows all molecules of all cells.
    gradient_clip
        Largest norm of the gradient of the shared parameters.
    checkpoint_dir
        Folder for checkpoints, written after every epoch; if None, none are written. A fit that finds a checkpoint
        there resumes from it, for example to train longer. It raises an error if the checkpoint has more epochs than
        requested, belongs to other data, settings or another seed, or is that of a query of another reference. A
        resumed training draws other random numbers than an uninterrupted one, so results differ as between seeds.

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
    thin_foreign: float = 0.5
    gradient_clip: float = 10.0
    checkpoint_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.checkpoint_dir is not None:
            folder = os.fspath(self.checkpoint_dir)  # text, which a store can hold
            if not folder:
                raise ValueError("`checkpoint_dir` is empty: name a folder, or leave it out.")
            if "://" in folder:
                raise ValueError(f"checkpoint_dir={folder!r} is a URL: name a local folder.")
            _set(self, "checkpoint_dir", os.path.expanduser(folder))
        for name in ("max_epochs", "batch_size", "patch_size"):
            if getattr(self, name) is not None:
                _set(self, name, check_integer(getattr(self, name), 1, argument=name, why="or None"))
        _set(self, "epoch_limit", check_integer(self.epoch_limit, 1, argument="epoch_limit"))
        for name in ("lr", "lr_cell"):
            _set(self, name, check_number(getattr(self, name), argument=name, above=0))
        clip = check_number(self.gradient_clip, argument="gradient_clip", above=0, finite=False)
        _set(self, "gradient_clip", clip)
        _set(self, "thin_counts", check_flag(self.thin_counts, argument="thin_counts"))
        _set(self, "thin_foreign", check_number(self.thin_foreign, argument="thin_foreign", least=0, most=1))
        for name in ("kl_warmup_steps", "min_steps"):
            _set(self, name, check_integer(getattr(self, name), 0, argument=name))


def _set(config: ModelConfig | TrainingConfig, name: str, value: object) -> None:
    """Set a setting of a frozen config to its plain value: numpy's numbers cannot be stored everywhere."""
    object.__setattr__(config, name, value)


def to_plain(config: ModelConfig | TrainingConfig) -> dict[str, Any]:
    """Return settings as a dict that a store can hold, without None (absent means None) or tuples."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    return {k: v for k, v in plain.items() if v is not None}


def from_plain(kind: type[_Config], plain: Mapping[str, Any]) -> _Config:
    """Invert :func:`to_plain`, starting from what a store returns (numpy scalars and arrays)."""
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
    """Return the settings of a call: a whole config, or the default with single settings replaced, but not both.

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
        single = ", ".join(f"--{argument}.{name}" for name in sorted(changed))
        raise ValueError(
            f"Give {listing(sorted(changed))} inside `{argument}={type(given).__name__}(...)`, not beside it; on the "
            f"command line, that is {single}."
        )
    return given
