"""What is run: cases, methods, and the simulated data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from anndata import AnnData
from differential import add_comparisons
from exchange import MIN_COUNTS
from labels import make_labels

import resolvi_sd.datasets


@dataclass(frozen=True)
class Method:
    """A script that is run in an interpreter of its own.

    `peer` says whether that is the peer's; `speed_epochs` are the two trainings whose difference gives the time of an
    epoch without fixed costs.
    """

    label: str
    script: str
    peer: bool
    speed_epochs: tuple[int, int]
    arguments: tuple[str, ...] = ()


OURS = "resolvi_sd"
REFERENCE = "scvi_exact"
METHODS = {
    OURS: Method("resolvi_sd", "ours.py", False, (2, 8)),
    "scvi_shipped": Method("scvi RESOLVI, as shipped", "peer_scvi.py", True, (1, 3), ("--neighbors", "shipped")),
    REFERENCE: Method("scvi RESOLVI, exact neighbours", "peer_scvi.py", True, (1, 3)),
    "scvi_paper": Method(
        "scvi RESOLVI, exact neighbours, paper's settings", "peer_scvi.py", True, (1, 3), ("--settings", "paper")
    ),
}


@dataclass(frozen=True)
class Case:
    """One question.

    `"speed"` takes the difference of two short trainings; the others train by default settings: `"quality"` judges
    corrected counts, `"labels"` predicted labels and `"de"` differential expression.
    """

    kind: Literal["speed", "quality", "labels", "de"]
    n_cells: int
    n_genes: int
    regimes: tuple[str, ...]
    seeds: range
    methods: tuple[str, ...] = field(default=(OURS, "scvi_shipped", REFERENCE))


CASES = {
    "speed": Case("speed", 20_000, 300, ("xenium",), range(3), (OURS, REFERENCE)),
    "quality": Case("quality", 5_000, 300, ("xenium", "sparse", "merfish", "high_background", "clean"), range(2)),
    "deep": Case("quality", 3_000, 1_000, ("deep",), range(2)),
    "labels": Case("labels", 5_000, 0, ("mpoa", "cosmx"), range(3), (OURS, REFERENCE)),
    "de": Case("de", 3_000, 200, ("xenium", "deep"), range(2), (OURS, REFERENCE)),
    "speed_genes": Case("speed", 4_000, 5_000, ("deep",), range(1), (OURS, REFERENCE)),
}
DEFAULT_CASES = ("speed", "quality")


def data_folder(root: Path, case: Case, regime: str, seed: int) -> Path:
    """Return the folder with `data.h5ad` and `truth.h5ad`, made unless it is there.

    Named after the code that makes them too: data of other code would be other data.
    """
    folder = root / f"{regime}-{case.n_cells}x{case.n_genes}-seed{seed}-{_digest(case)}"
    if not (folder / "data.h5ad").exists():
        data, truth = make_labels(case.n_cells, regime, seed) if case.kind == "labels" else simulate(case, regime, seed)
        folder.mkdir(parents=True, exist_ok=True)
        truth.write_h5ad(folder / "truth.h5ad")
        data.write_h5ad(folder / "data.h5ad")
    return folder


def _digest(case: Case) -> str:
    here = Path(__file__).parent
    simulator = sorted(Path(resolvi_sd.datasets.__file__).parent.glob("*.py"))
    code = {"labels": [here / "labels.py"], "de": [*simulator, here / "differential.py"]}.get(case.kind, simulator)
    return hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:8]


def simulate(case: Case, regime: str, seed: int) -> tuple[AnnData, AnnData]:
    """Return what the methods see and, in another file, what they must not."""
    sdata = resolvi_sd.datasets.simulate_tissue(case.n_cells, case.n_genes, regime=regime, transcripts=False, rng=seed)
    table = sdata.tables["table"]
    # The peer refuses cells without counts and asks for at least five.
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS]
    counts = table.X.astype(np.float32).tocsr()
    counts.sort_indices()
    data = AnnData(X=counts, obsm={"spatial": np.asarray(table.obsm["spatial"])})
    truth = AnnData(
        X=counts,
        obs={"own_share": table.obs["true_own_share"].to_numpy()},
        layers={"own": table.layers["true_own"].tocsr(), "profile": np.asarray(table.layers["true_profile"])},
    )
    if case.kind == "de":
        data.obs_names, truth.obs_names = table.obs_names, table.obs_names
        add_comparisons(data, truth, table.obs["cell_type"])
    return data, truth
