"""Spatial neighbors, contacts and sizes of cells."""

from resolvi_sd.gr._contacts import contacts
from resolvi_sd.gr._neighbors import neighbors
from resolvi_sd.gr._sizes import cell_sizes

__all__ = ["cell_sizes", "contacts", "neighbors"]
