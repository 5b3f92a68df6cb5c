"""Metrics of a correction: pure functions on arrays."""

from resolvi_sd.metrics._truth import Removal, profile_error, removal

__all__ = ["Removal", "profile_error", "removal"]
