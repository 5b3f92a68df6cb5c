"""Results: from the posterior into the table, and the fitted model back out of it."""

from resolvi_sd._results._fitted import FittedModel, Setup
from resolvi_sd._results._read import batch_codes, read_fit
from resolvi_sd._results._write import write_fit

__all__ = ["FittedModel", "Setup", "batch_codes", "read_fit", "write_fit"]
