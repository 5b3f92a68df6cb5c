"""SpatialData or AnnData: one view of counts, coordinates, sections and batches."""

from resolvi_sd._tables._coordinates import annotation, check_element, instance_rows
from resolvi_sd._tables._counts import table_counts
from resolvi_sd._tables._genes import align_genes
from resolvi_sd._tables._labels import Labels, read_labels
from resolvi_sd._tables._resolve import Groups, cross, group_by, one_group, resolve_table
from resolvi_sd._tables._view import CellPositions, TableView, cell_positions, table_view

__all__ = [
    "CellPositions",
    "Groups",
    "Labels",
    "TableView",
    "align_genes",
    "annotation",
    "cell_positions",
    "check_element",
    "cross",
    "group_by",
    "instance_rows",
    "one_group",
    "read_labels",
    "resolve_table",
    "table_counts",
    "table_view",
]
