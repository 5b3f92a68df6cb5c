"""A common view of SpatialData and AnnData: counts, coordinates, sections and batches."""

from resolvi_sd._tables._areas import CellSizes, Quantity, cell_sizes
from resolvi_sd._tables._counts import table_counts
from resolvi_sd._tables._genes import align_genes, means_x, missing_genes, query_layer
from resolvi_sd._tables._groups import Groups, cross, group_by, one_group, read_groups
from resolvi_sd._tables._instances import annotation, check_element, instance_rows, plain_ids, system_of
from resolvi_sd._tables._label_image import full_resolution, label_axes
from resolvi_sd._tables._labels import read_labels, warn_of_text_for_missing
from resolvi_sd._tables._matrices import read_matrix
from resolvi_sd._tables._outlines import Outlines, cell_outlines
from resolvi_sd._tables._resolve import resolve_table
from resolvi_sd._tables._sizes import read_sizes, size_unit
from resolvi_sd._tables._transcripts import TranscriptColumns, Transcripts, read_transcripts
from resolvi_sd._tables._view import TableView, cell_positions, cell_sections, check_place_used, own_regions, table_view

__all__ = [
    "CellSizes",
    "Groups",
    "Outlines",
    "Quantity",
    "TableView",
    "TranscriptColumns",
    "Transcripts",
    "align_genes",
    "annotation",
    "cell_outlines",
    "cell_positions",
    "cell_sections",
    "cell_sizes",
    "check_element",
    "check_place_used",
    "cross",
    "full_resolution",
    "group_by",
    "instance_rows",
    "label_axes",
    "means_x",
    "missing_genes",
    "one_group",
    "own_regions",
    "plain_ids",
    "query_layer",
    "read_groups",
    "read_labels",
    "read_matrix",
    "read_sizes",
    "read_transcripts",
    "resolve_table",
    "size_unit",
    "system_of",
    "table_counts",
    "table_view",
    "warn_of_text_for_missing",
]
