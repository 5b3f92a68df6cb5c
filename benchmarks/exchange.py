"""What passes between the runner and the scripts that it starts; needs nothing that one interpreter might lack."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

MIN_COUNTS = 5
# Column of `obs` with batches, if there are several.
BATCH = "batch"
# Column of `obs` with labels and what stands for none; `obsm` with the sides of comparisons, 1, 2 or 0 for neither.
LABEL, UNLABELED = "label", "unlabelled"
COMPARISONS = "comparisons"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that every method's script takes."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("data", type=Path, help=".h5ad with counts in X and obsm['spatial']")
    result.add_argument("out", type=Path, help=".npz to write")
    result.add_argument("--task", choices=("restore", "labels", "de"), default="restore")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--threads", type=int, default=2)
    result.add_argument(
        "--epochs", type=int, nargs="*", default=[], help="train anew for each number; by default settings without"
    )
    result.add_argument(
        "--rate-draws", type=int, default=0, help="draws of the rates that unseen molecules are judged by; not timed"
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


class Phase:
    """Stands in for a function that a method calls, and keeps the time and arguments of its last call."""

    def __init__(self, module: Any, name: str) -> None:
        self.function = getattr(module, name)
        setattr(module, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args = args
        watch = Stopwatch()
        with watch("call"):
            result = self.function(*args, **kwargs)
        self.seconds = watch.seconds["call"]
        return result


def peak_memory() -> float:
    """Largest resident memory of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike `ru_maxrss`, which starts at what the parent process had.
        found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions(*packages: str) -> dict[str, str]:
    """Versions of the interpreter and of some packages."""
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


def ranked(table: Any, *, called: str) -> dict[str, np.ndarray]:
    """Return the calls, changes and ranks of one comparison, genes in their order.

    Genes are ranked by their posterior probability; those of equal probability, which is mostly 1 up to the number of
    draws, by the mean of the log fold change over its standard deviation.
    """
    mean, spread = table["lfc_mean"].to_numpy(dtype=float), table["lfc_std"].to_numpy(dtype=float)
    ratio = np.abs(mean) / np.maximum(spread, 1e-12)
    strength = table["proba_de"].to_numpy(dtype=float) + 1e-6 * ratio / (1 + ratio)
    return {"called": table[called].to_numpy(dtype=bool), "change": mean, "strength": strength}


def stacked(results: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the results of all comparisons, comparisons × genes, under the names that they are saved by."""
    return {f"de_{name}": np.stack([result[name] for result in results]) for name in results[0]}


def save(
    path: Path, record: Mapping[str, Any], *, corrected: Mapping[str, sp.csr_matrix], **arrays: np.ndarray
) -> None:
    """Write arrays, corrected counts by recipe, and what was measured."""
    parts: dict[str, Any] = {**arrays}
    for name, matrix in corrected.items():
        csr = sp.csr_matrix(matrix)
        parts |= {f"corrected/{name}/{part}": getattr(csr, part) for part in ("data", "indices", "indptr", "shape")}
    np.savez(path, record=json.dumps(dict(record)), **parts)


def load(path: Path) -> tuple[dict[str, Any], dict[str, sp.csr_matrix], dict[str, np.ndarray]]:
    """Return the record, the corrected counts by recipe, and the arrays."""
    with np.load(path) as stored:
        content = {name: stored[name] for name in stored.files}
    record = json.loads(str(content.pop("record")))
    recipes = dict.fromkeys(name.split("/")[1] for name in content if name.startswith("corrected/"))
    corrected = {
        name: sp.csr_matrix(
            tuple(content.pop(f"corrected/{name}/{part}") for part in ("data", "indices", "indptr")),
            tuple(content.pop(f"corrected/{name}/shape")),
        )
        for name in recipes
    }
    return record, corrected, content
