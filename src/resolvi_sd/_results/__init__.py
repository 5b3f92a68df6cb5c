"""Results: written from the posterior into the table, and read back as a fitted model."""

from resolvi_sd._results._colors import label_colors
from resolvi_sd._results._fitted import FittedModel
from resolvi_sd._results._folder import TABLE_FILE, check_holds_table, load_folder, save_folder
from resolvi_sd._results._read import (
    category_codes,
    check_whole,
    check_within_counts,
    corrected_counts,
    corrected_layer_name,
    fitted_counts,
    kept_counts,
    naming_the_fit,
    read_fit,
    unmeasured_genes,
)
from resolvi_sd._results._same_input import (
    CellColumns,
    check_columns_of_fit,
    check_kept_counts,
    checked_counts,
    encode_some,
    some_rows,
    warn_of_other_columns,
    warn_of_other_counts,
    warn_of_other_input,
    warn_of_replaced_counts,
)
from resolvi_sd._results._tissue import restore, restore_tissue, warn_of_lost_neighbors, warn_of_partial_neighbors
from resolvi_sd._results._write import (
    check_room,
    most_probable,
    remove_audits,
    write_fit,
    write_labels,
)

__all__ = [
    "TABLE_FILE",
    "CellColumns",
    "FittedModel",
    "category_codes",
    "check_columns_of_fit",
    "check_holds_table",
    "check_kept_counts",
    "check_room",
    "check_whole",
    "check_within_counts",
    "checked_counts",
    "corrected_counts",
    "corrected_layer_name",
    "encode_some",
    "fitted_counts",
    "kept_counts",
    "label_colors",
    "load_folder",
    "most_probable",
    "naming_the_fit",
    "read_fit",
    "remove_audits",
    "restore",
    "restore_tissue",
    "save_folder",
    "some_rows",
    "unmeasured_genes",
    "warn_of_lost_neighbors",
    "warn_of_other_columns",
    "warn_of_other_counts",
    "warn_of_other_input",
    "warn_of_partial_neighbors",
    "warn_of_replaced_counts",
    "write_fit",
    "write_labels",
]
