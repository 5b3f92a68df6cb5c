"""SpatialData or AnnData: one view of counts, coordinates, sections and batches."""

from resolvi_sd._tables._resolve import resolve_table
from resolvi_sd._tables._view import CellPositions, TableView, cell_positions, table_view

__all__ = ["CellPositions", "TableView", "cell_positions", "resolve_table", "table_view"]
