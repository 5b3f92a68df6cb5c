"""Analyses of cells, groups and transcripts with a fitted model: comparisons, niches, expression, the audit."""

from resolvi_sd._analysis._audit import CONTROL, CORRECTED, MAX_RELATIVE_RAW, RAW, audit_rows
from resolvi_sd._analysis._audit_input import audit_input
from resolvi_sd._analysis._bootstrap import (
    adjacent_units,
    bootstrap_means,
    effective_units,
    spatial_dependence,
    widened,
)
from resolvi_sd._analysis._cell_blocks import CellBlock, blocks_at_mean, importance_blocks
from resolvi_sd._analysis._components import principal_components
from resolvi_sd._analysis._decontaminated import MIN_OWN, Decontaminated, check_fpr, decontaminate
from resolvi_sd._analysis._draws import Draws, check_choices, named
from resolvi_sd._analysis._expression import Detection, compare_expression, detection, estimate_pseudocount
from resolvi_sd._analysis._group_expression import GroupTotals, draw_expression, group_totals
from resolvi_sd._analysis._groups import (
    JOINT,
    REST,
    Comparison,
    cell_groups,
    check_sizes,
    label_groups,
    make_comparisons,
)
from resolvi_sd._analysis._labels import draw_labels, label_probabilities
from resolvi_sd._analysis._niches import (
    NicheSums,
    Weighting,
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
from resolvi_sd._analysis._selection import CellSelection, selected_groups
from resolvi_sd._analysis._statistics import (
    DecisionRule,
    Mode,
    check_draws,
    check_pseudocount,
    posterior_expected_fdr,
    summarize_change,
)
from resolvi_sd._analysis._tables import stack_comparisons
from resolvi_sd._analysis._transcript_columns import CellIds, SourceColumns, TranscriptSample

__all__ = [
    "CONTROL",
    "CORRECTED",
    "JOINT",
    "MAX_RELATIVE_RAW",
    "MIN_OWN",
    "RAW",
    "REST",
    "CellBlock",
    "CellIds",
    "CellSelection",
    "Comparison",
    "DecisionRule",
    "Decontaminated",
    "Detection",
    "Draws",
    "ExpressionRequest",
    "GroupTotals",
    "LibrarySize",
    "Mode",
    "NicheSums",
    "SourceColumns",
    "TranscriptSample",
    "Weighting",
    "adjacent_units",
    "audit_input",
    "audit_rows",
    "blocks_at_mean",
    "bootstrap_means",
    "cell_groups",
    "check_choices",
    "check_draws",
    "check_fpr",
    "check_pseudocount",
    "check_sizes",
    "compare_expression",
    "decontaminate",
    "detection",
    "draw_expression",
    "draw_labels",
    "edge_weights",
    "effective_units",
    "estimate_pseudocount",
    "expression_draws",
    "group_totals",
    "importance_blocks",
    "importance_expression",
    "label_groups",
    "label_probabilities",
    "make_comparisons",
    "mean_expression",
    "named",
    "neighborhood_composition",
    "posterior_expected_fdr",
    "principal_components",
    "rank_genes_groups",
    "selected_groups",
    "spatial_dependence",
    "stack_comparisons",
    "summarize_change",
    "table_edges",
    "widened",
    "write_niches",
]
