"""The generative model, its training and its posterior."""

from resolvi_sd._model.config import ModelConfig, TrainingConfig, from_plain, to_plain
from resolvi_sd._model.devices import train_on_devices
from resolvi_sd._model.extension import extend_module
from resolvi_sd._model.leakage import leaked_molecules
from resolvi_sd._model.loader import patch_size_of
from resolvi_sd._model.module import DataSummary, Rates, ResolviModule
from resolvi_sd._model.posterior import Posterior, infer
from resolvi_sd._model.rows import classify, decode, encode, latent_draws

__all__ = [
    "DataSummary",
    "ModelConfig",
    "Posterior",
    "Rates",
    "ResolviModule",
    "TrainingConfig",
    "classify",
    "decode",
    "encode",
    "extend_module",
    "from_plain",
    "infer",
    "latent_draws",
    "leaked_molecules",
    "patch_size_of",
    "to_plain",
    "train_on_devices",
]
