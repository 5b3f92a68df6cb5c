"""ResolVI for SpatialData: separates the own, diffused and background molecules of each cell."""

from importlib.metadata import version

import lazy_loader

__version__ = version("resolvi-sd")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["datasets", "gr", "io", "metrics", "pl", "tl"],
    submod_attrs={"_model": ["ModelConfig", "TrainingConfig"], "_resolvi": ["ResolVI"]},
)
