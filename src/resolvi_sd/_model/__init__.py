"""The generative model, its training and its posterior."""

from resolvi_sd._model.config import ModelConfig, TrainingConfig, combine_configs, from_plain, to_plain
from resolvi_sd._model.decontamination import MEDIAN, Removed, highest_level, molecules_to_keep, removal_curves
from resolvi_sd._model.devices import check_accelerator, train_on_devices
from resolvi_sd._model.entry_sources import entry_sources
from resolvi_sd._model.extension import copy_module, extend_module
from resolvi_sd._model.importance import Weights, check_weights, weigh_draws, weighted_expression, weighted_own
from resolvi_sd._model.leakage import leaked_molecules
from resolvi_sd._model.loader import patch_size_of
from resolvi_sd._model.module import PER_CELL, DataSummary, Rates, ResolviModule
from resolvi_sd._model.posterior import Posterior, infer
from resolvi_sd._model.rows import classify, decode, decode_mean, encode, in_batch, latent_draws, latent_of
from resolvi_sd._model.sampling import SITES, SOURCES, Sampler, Site

__all__ = [
    "MEDIAN",
    "PER_CELL",
    "SITES",
    "SOURCES",
    "DataSummary",
    "ModelConfig",
    "Posterior",
    "Rates",
    "Removed",
    "ResolviModule",
    "Sampler",
    "Site",
    "TrainingConfig",
    "Weights",
    "check_accelerator",
    "check_weights",
    "classify",
    "combine_configs",
    "copy_module",
    "decode",
    "decode_mean",
    "encode",
    "entry_sources",
    "extend_module",
    "from_plain",
    "highest_level",
    "in_batch",
    "infer",
    "latent_draws",
    "latent_of",
    "leaked_molecules",
    "molecules_to_keep",
    "patch_size_of",
    "removal_curves",
    "to_plain",
    "train_on_devices",
    "weigh_draws",
    "weighted_expression",
    "weighted_own",
]
