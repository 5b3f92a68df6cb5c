"""The package's logger: silent until the application configures logging."""

from __future__ import annotations

import logging

__all__ = ["logger"]

logger = logging.getLogger("resolvi_sd")
