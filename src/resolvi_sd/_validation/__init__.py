"""Checks of user input, run before any work; messages say what was given, what exists and what to do."""

from resolvi_sd._validation._counts import (
    check_counts,
    check_has_molecules,
    check_not_corrected,
    check_number_type,
    first_fraction,
)
from resolvi_sd._validation._files import check_picture, check_place
from resolvi_sd._validation._names import (
    MOST_CATEGORIES,
    MOST_LISTED,
    check_complete,
    check_key,
    check_markers,
    check_names,
    check_no_measurement,
    check_result,
    check_unique,
    group_name,
    group_names,
    listing,
    matrix_name,
    shortened,
    unlabeled_name,
)
from resolvi_sd._validation._numbers import check_flag, check_integer, check_number, check_positive_int
from resolvi_sd._validation._places import check_coordinates, warn_of_overlapping_sections, warn_of_spots, warn_of_units
from resolvi_sd._validation._tables import STORED, check_cells, check_genes, check_is_table, check_takes_results
from resolvi_sd._validation._warning import warn_user

__all__ = [
    "MOST_CATEGORIES",
    "MOST_LISTED",
    "STORED",
    "check_cells",
    "check_complete",
    "check_coordinates",
    "check_counts",
    "check_flag",
    "check_place",
    "check_genes",
    "check_has_molecules",
    "check_integer",
    "check_is_table",
    "check_key",
    "check_markers",
    "check_names",
    "check_no_measurement",
    "check_not_corrected",
    "check_number",
    "check_number_type",
    "check_picture",
    "check_positive_int",
    "check_result",
    "check_takes_results",
    "check_unique",
    "first_fraction",
    "group_name",
    "group_names",
    "listing",
    "matrix_name",
    "shortened",
    "unlabeled_name",
    "warn_of_units",
    "warn_of_overlapping_sections",
    "warn_of_spots",
    "warn_user",
]
