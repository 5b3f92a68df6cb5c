"""ResolVI for SpatialData: own, neighbouring and background molecules of every cell, told apart."""

from importlib.metadata import version

import lazy_loader

__version__ = version("resolvi-sd")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["datasets", "gr", "io", "metrics", "pl", "tl"],
    submod_attrs={"_model": ["ModelConfig", "TrainingConfig"], "_resolvi": ["ResolVI"]},
)
