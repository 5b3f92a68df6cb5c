"""One compiled function at a time."""

import threading

__all__ = ["ONE_AT_A_TIME"]

# Numba's portable threading layer ends the process when two threads enter a parallel function at once.
ONE_AT_A_TIME = threading.Lock()
