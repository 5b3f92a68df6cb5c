"""Metrics of a correction: pure functions on arrays."""

from resolvi_sd.metrics._calibration import Calibration, RankUniformity, calibration, coverage, rank_uniformity
from resolvi_sd.metrics._coexpression import Coexpression, coexpression_odds_ratio, coexpression_rate
from resolvi_sd.metrics._depth_matched import depth_matched
from resolvi_sd.metrics._exclusive_pairs import exclusive_pairs, pairs_from_markers
from resolvi_sd.metrics._exposure import ExposureAudit, exposure_audit
from resolvi_sd.metrics._latent import LatentQuality, latent_quality
from resolvi_sd.metrics._marker_purity import NegativeMarkerPurity, negative_marker_purity
from resolvi_sd.metrics._markers import Markers, given_markers, marker_genes
from resolvi_sd.metrics._neighbor_contamination import NeighborContamination, neighbor_contamination
from resolvi_sd.metrics._nuclear import NuclearAgreement, nuclear_agreement, nuclear_counts
from resolvi_sd.metrics._predictability import leakage_predictability
from resolvi_sd.metrics._reference import ReferenceFidelity, reference_fidelity
from resolvi_sd.metrics._truth import Removal, profile_error, removal

__all__ = [
    "Calibration",
    "Coexpression",
    "ExposureAudit",
    "LatentQuality",
    "Markers",
    "NegativeMarkerPurity",
    "NeighborContamination",
    "NuclearAgreement",
    "RankUniformity",
    "ReferenceFidelity",
    "Removal",
    "calibration",
    "coexpression_odds_ratio",
    "coexpression_rate",
    "coverage",
    "depth_matched",
    "exclusive_pairs",
    "exposure_audit",
    "given_markers",
    "latent_quality",
    "leakage_predictability",
    "marker_genes",
    "negative_marker_purity",
    "neighbor_contamination",
    "nuclear_agreement",
    "nuclear_counts",
    "pairs_from_markers",
    "profile_error",
    "rank_uniformity",
    "reference_fidelity",
    "removal",
]
