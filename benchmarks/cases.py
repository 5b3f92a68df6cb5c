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
from scipy import sparse as sp
from sections import DATA, piece

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
POISSON = "resolvi_sd_poisson"
# Of the case "reach": how far a given number of epochs gets.
SHORT = {f"resolvi_sd_{n}": n for n in (10, 20, 30, 45)}
METHODS = {
    OURS: Method("resolvi_sd", "ours.py", False, (2, 8)),
    **{
        name: Method(f"resolvi_sd, {n} epochs", "ours.py", False, (2, 8), ("--epochs", str(n)))
        for name, n in SHORT.items()
    },
    POISSON: Method("resolvi_sd, Poisson counts", "ours.py", False, (2, 8), ("--likelihood", "poisson")),
    "scvi_shipped": Method("scvi RESOLVI, as shipped", "peer_scvi.py", True, (1, 3), ("--neighbors", "shipped")),
    REFERENCE: Method("scvi RESOLVI, exact neighbors", "peer_scvi.py", True, (1, 3)),
    "scvi_paper": Method(
        "scvi RESOLVI, exact neighbors, paper's settings", "peer_scvi.py", True, (1, 3), ("--settings", "paper")
    ),
}


@dataclass(frozen=True)
class Case:
    """One question.

    `"speed"` takes the difference of two short trainings; the others train by default settings: `"quality"` judges
    corrected counts, `"labels"` predicted labels, `"de"` differential expression and `"held_out"` expected molecules.
    With `halved`, the methods see half of each cell's molecules, and are judged by the other half as well.
    """

    kind: Literal["speed", "quality", "labels", "de", "held_out"]
    n_cells: int
    n_genes: int
    regimes: tuple[str, ...]
    seeds: range
    methods: tuple[str, ...] = field(default=(OURS, "scvi_shipped", REFERENCE))
    halved: bool = False

    @property
    def is_real(self) -> bool:
        """Whether its data are those of a real section."""
        return self.kind in ("labels", "held_out")


CASES = {
    "speed": Case("speed", 20_000, 300, ("xenium",), range(3), (OURS, REFERENCE)),
    "quality": Case("quality", 5_000, 300, ("xenium", "sparse", "merfish", "high_background", "clean"), range(2)),
    "deep": Case("quality", 3_000, 1_000, ("deep",), range(2)),
    "labels": Case("labels", 5_000, 0, ("mpoa", "cosmx"), range(3), (OURS, REFERENCE)),
    "de": Case("de", 3_000, 200, ("xenium", "deep"), range(2), (OURS, REFERENCE)),
    "reach": Case("quality", 5_000, 300, ("xenium", "deep"), range(2), (OURS, *SHORT, REFERENCE), halved=True),
    "held_out": Case("held_out", 5_000, 0, tuple(DATA), range(2), (OURS, POISSON, REFERENCE), halved=True),
    "speed_genes": Case("speed", 2_500, 5_000, ("deep",), range(1), (OURS, REFERENCE)),
    "cells_5000": Case("speed", 5_000, 300, ("xenium",), range(1), (OURS, REFERENCE)),
    "cells_100000": Case("speed", 100_000, 300, ("xenium",), range(1), (OURS,)),
    "cells_300000": Case("speed", 300_000, 300, ("xenium",), range(1), (OURS,)),
    **{f"genes_{n}": Case("speed", 5_000, n, ("deep",), range(1), (OURS, REFERENCE)) for n in (300, 1_000, 2_500)},
}
DEFAULT_CASES = ("speed", "quality")


def folder_of(root: Path, case: Case, regime: str, seed: int) -> Path:
    """Name the folder of a data set after the code that makes it too: data of other code would be other data."""
    half = "-half" if case.halved else ""
    return root / f"{regime}-{case.n_cells}x{case.n_genes}{half}-seed{seed}-{_digest(case)}"


def data_folder(root: Path, case: Case, regime: str, seed: int) -> Path:
    """Return the folder with `data.h5ad` and `truth.h5ad`, made unless it is there."""
    folder = folder_of(root, case, regime, seed)
    if not (folder / "data.h5ad").exists():
        if case.kind == "labels":
            data, truth = make_labels(case.n_cells, regime, seed)
        elif case.kind == "held_out":
            data, truth = halved_piece(case.n_cells, regime, seed)
        else:
            data, truth = simulate(case, regime, seed)
        folder.mkdir(parents=True, exist_ok=True)
        truth.write_h5ad(folder / "truth.h5ad")
        data.write_h5ad(folder / "data.h5ad")
    return folder


def _digest(case: Case) -> str:
    here = Path(__file__).parent
    simulator = sorted(Path(resolvi_sd.datasets.__file__).parent.glob("*.py"))
    section = here / "sections.py"
    code = {
        "labels": [here / "labels.py", section],
        "held_out": [section],
        "de": [*simulator, here / "differential.py"],
    }.get(case.kind, simulator)
    return hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:8]


def simulate(case: Case, regime: str, seed: int) -> tuple[AnnData, AnnData]:
    """Return what the methods see and, in another file, what they must not."""
    sdata = resolvi_sd.datasets.simulate_tissue(case.n_cells, case.n_genes, regime=regime, transcripts=False, rng=seed)
    table = sdata.tables["table"]
    # The peer refuses cells without counts and asks for at least five.
    table = table[np.asarray(table.X.sum(axis=1)).ravel() >= MIN_COUNTS]
    counts = table.X.astype(np.float32).tocsr()
    counts.sort_indices()
    layers = {"own": table.layers["true_own"].tocsr(), "profile": np.asarray(table.layers["true_profile"])}
    if case.halved:
        seen = halve(counts, np.random.default_rng(seed))
        layers["held_out"] = counts - seen
        # Of the molecules that are seen, as many are expected to be own as of all.
        share = layers["own"].multiply(counts.power(-1.0))
        layers["own"] = share.multiply(seen).tocsr()
        enough = np.asarray(seen.sum(axis=1)).ravel() >= MIN_COUNTS
        table, counts = table[enough], seen[enough]
        layers = {name: layer[enough] for name, layer in layers.items()}
    data = AnnData(X=counts, obsm={"spatial": np.asarray(table.obsm["spatial"])})
    truth = AnnData(
        X=counts,
        obs={"own_share": table.obs["true_own_share"].to_numpy(), "cell_type": table.obs["cell_type"].array},
        layers=layers,
    )
    if case.kind == "de":
        data.obs_names, truth.obs_names = table.obs_names, table.obs_names
        add_comparisons(data, truth, table.obs["cell_type"])
    return data, truth


def halved_piece(n_cells: int, name: str, seed: int) -> tuple[AnnData, AnnData]:
    """Return half of the molecules of a piece of a real section, and the other half."""
    rng = np.random.default_rng(seed)
    table = piece(name, n_cells, rng, seed)
    seen = halve(table.X, rng)
    enough = np.asarray(seen.sum(axis=1)).ravel() >= MIN_COUNTS
    counts, held_out = seen[enough], (table.X - seen)[enough]
    spatial = np.asarray(table.obsm["spatial"], dtype=np.float64)[enough]
    return AnnData(counts, obsm={"spatial": spatial}), AnnData(counts, layers={"held_out": held_out})


def halve(counts: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    """Take each molecule with a probability of one half."""
    seen = counts.copy()
    seen.data = rng.binomial(counts.data.astype(np.int64), 0.5).astype(np.float32)
    seen.eliminate_zeros()
    return seen
