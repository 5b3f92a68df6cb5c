"""Spatial neighbors."""

from resolvi_sd.gr._neighbors import neighbors

__all__ = ["neighbors"]
