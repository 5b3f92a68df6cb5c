"""Tools: the functions that users call."""

from resolvi_sd.tl._assign_transcripts import assign_transcripts
from resolvi_sd.tl._audit import audit
from resolvi_sd.tl._decontaminated_counts import decontaminated_counts
from resolvi_sd.tl._differential_expression import differential_expression
from resolvi_sd.tl._differential_niche_abundance import differential_niche_abundance
from resolvi_sd.tl._fit import fit
from resolvi_sd.tl._latent import latent
from resolvi_sd.tl._leakage import leakage
from resolvi_sd.tl._map_query import map_query
from resolvi_sd.tl._niche_abundance import niche_abundance
from resolvi_sd.tl._normalized_expression import normalized_expression
from resolvi_sd.tl._posterior_summary import posterior_summary
from resolvi_sd.tl._predict import predict
from resolvi_sd.tl._pseudobulk import pseudobulk
from resolvi_sd.tl._rank_genes_groups import rank_genes_groups
from resolvi_sd.tl._sample_posterior import sample_posterior

__all__ = [
    "assign_transcripts",
    "audit",
    "decontaminated_counts",
    "differential_expression",
    "differential_niche_abundance",
    "fit",
    "latent",
    "leakage",
    "map_query",
    "niche_abundance",
    "normalized_expression",
    "posterior_summary",
    "predict",
    "pseudobulk",
    "rank_genes_groups",
    "sample_posterior",
]
