"""Plots of the training, the sources of the molecules, genes before and after correction, and test results."""

from resolvi_sd.pl._audit import audit
from resolvi_sd.pl._calibration import calibration
from resolvi_sd.pl._coexpression import coexpression
from resolvi_sd.pl._decontamination import decontamination
from resolvi_sd.pl._flow import flow
from resolvi_sd.pl._leakage import leakage
from resolvi_sd.pl._niche_abundance import niche_abundance
from resolvi_sd.pl._rank_genes import rank_genes
from resolvi_sd.pl._shares import shares
from resolvi_sd.pl._sources import sources
from resolvi_sd.pl._spatial import spatial
from resolvi_sd.pl._training import training
from resolvi_sd.pl._umap_compare import umap_compare
from resolvi_sd.pl._volcano import volcano

__all__ = [
    "audit",
    "calibration",
    "coexpression",
    "decontamination",
    "flow",
    "leakage",
    "niche_abundance",
    "rank_genes",
    "shares",
    "sources",
    "spatial",
    "training",
    "umap_compare",
    "volcano",
]
