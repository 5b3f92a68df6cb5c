"""What passes between the runner and the scripts that it starts; needs nothing that one interpreter might lack."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

MIN_COUNTS = 5


def parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that every method's script takes."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("data", type=Path, help=".h5ad with counts in X and obsm['spatial']")
    result.add_argument("out", type=Path, help=".npz to write")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--threads", type=int, default=2)
    result.add_argument(
        "--epochs", type=int, nargs="*", default=[], help="train anew for each number; by default settings without"
    )
    return result


class Stopwatch:
    """Seconds by name; `seconds[name]` adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def peak_memory() -> float:
    """Largest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions(*packages: str) -> dict[str, str]:
    """Versions of the interpreter and of some packages."""
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


def save(
    path: Path, record: Mapping[str, Any], *, corrected: Mapping[str, sp.csr_matrix], **arrays: np.ndarray
) -> None:
    """Write arrays, corrected counts by recipe, and what was measured."""
    parts = {}
    for name, matrix in corrected.items():
        csr = sp.csr_matrix(matrix)
        parts |= {f"corrected/{name}/{part}": getattr(csr, part) for part in ("data", "indices", "indptr")}
    np.savez(path, record=json.dumps(dict(record)), **arrays, **parts)


def load(path: Path) -> tuple[dict[str, Any], dict[str, sp.csr_matrix], dict[str, np.ndarray]]:
    """Return the record, the corrected counts by recipe, and the arrays."""
    with np.load(path) as stored:
        content = {name: stored[name] for name in stored.files}
    record = json.loads(str(content.pop("record")))
    shape = content["expression"].shape
    recipes = dict.fromkeys(name.split("/")[1] for name in content if name.startswith("corrected/"))
    corrected = {
        name: sp.csr_matrix(
            tuple(content.pop(f"corrected/{name}/{part}") for part in ("data", "indices", "indptr")), shape
        )
        for name in recipes
    }
    return record, corrected, content
