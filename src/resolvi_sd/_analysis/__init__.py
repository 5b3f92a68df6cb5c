"""What a fitted model says of cells, groups and transcripts: comparisons, niches, expression, the audit."""

from resolvi_sd._analysis._audit import MAX_RELATIVE_RAW, AuditInput, Reference, audit_rows
from resolvi_sd._analysis._bootstrap import bootstrap_means, widened
from resolvi_sd._analysis._cell_blocks import CellBlock, blocks_at_mean, importance_blocks
from resolvi_sd._analysis._decontaminated import MIN_OWN, Decontaminated, check_fpr, decontaminate
from resolvi_sd._analysis._entry_sources import entry_sources
from resolvi_sd._analysis._expression import Detection, compare_expression, detection, estimate_pseudocount
from resolvi_sd._analysis._group_expression import GroupTotals, draw_expression, group_totals
from resolvi_sd._analysis._groups import (
    CellGroups,
    Comparison,
    cell_groups,
    check_sizes,
    label_groups,
    make_comparisons,
)
from resolvi_sd._analysis._labels import draw_labels, label_probabilities
from resolvi_sd._analysis._niches import (
    Weighting,
    block_totals,
    edge_weights,
    neighborhood_composition,
    table_edges,
    write_niches,
)
from resolvi_sd._analysis._normalized import (
    ExpressionRequest,
    LibrarySize,
    expression_draws,
    importance_expression,
    mean_expression,
)
from resolvi_sd._analysis._rank_genes import rank_genes_groups
from resolvi_sd._analysis._statistics import Mode, check_settings, posterior_expected_fdr, summarise_change
from resolvi_sd._analysis._tables import stack_comparisons
from resolvi_sd._analysis._transcripts import Placement, estimate_scale, posterior_sources

__all__ = [
    "MAX_RELATIVE_RAW",
    "MIN_OWN",
    "AuditInput",
    "CellBlock",
    "CellGroups",
    "Comparison",
    "Decontaminated",
    "Detection",
    "GroupTotals",
    "ExpressionRequest",
    "LibrarySize",
    "Mode",
    "Placement",
    "Reference",
    "Weighting",
    "audit_rows",
    "block_totals",
    "blocks_at_mean",
    "bootstrap_means",
    "cell_groups",
    "check_fpr",
    "check_settings",
    "check_sizes",
    "compare_expression",
    "decontaminate",
    "detection",
    "draw_expression",
    "draw_labels",
    "edge_weights",
    "entry_sources",
    "estimate_pseudocount",
    "estimate_scale",
    "expression_draws",
    "group_totals",
    "importance_blocks",
    "importance_expression",
    "label_groups",
    "label_probabilities",
    "make_comparisons",
    "mean_expression",
    "neighborhood_composition",
    "posterior_expected_fdr",
    "posterior_sources",
    "rank_genes_groups",
    "stack_comparisons",
    "summarise_change",
    "table_edges",
    "widened",
    "write_niches",
]
