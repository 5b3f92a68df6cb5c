"""Run the benchmark: every method in turn, each in a process of its own, on the same data."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
from cases import CASES, DEFAULT_CASES, METHODS, Case, data_folder, folder_of
from exchange import load
from plots import draw
from render import render
from score import score_raw, score_task
from sections import DATA_VARIABLE

HERE = Path(__file__).resolve().parent
# Names of a run; a new run replaces the stored one of the same name.
IDENTITY = ("case", "regime", "seed", "method")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

log = logging.getLogger("benchmark")


def main() -> None:
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    home = HERE / "_quick" if options.quick else HERE
    results = home / "results.json"
    home.mkdir(exist_ok=True)
    runs: list[dict[str, Any]] = json.loads(results.read_text()) if results.exists() else []
    if options.rescore:
        runs = [rescored(run, home) for run in runs]
        options.cases = []
    environment = {"machine": machine(), "threads": options.threads, **commit()}
    for identity, case in plan(selected(options)):
        if options.resume and stored(runs, identity, environment):
            continue
        log.info("%s, %s, seed %d: %s", *identity.values())
        data = data_folder(home / "_data", case, identity["regime"], identity["seed"])
        started = {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load": os.getloadavg()[0]}
        measured = run(case, data, home / "_runs", identity, options)
        runs = [r for r in runs if any(r[key] != identity[key] for key in IDENTITY)]
        runs.append(identity | {"kind": case.kind} | environment | started | measured)
        # After every run, so that what was measured survives an interruption.
        write(runs, home)
    write(runs, home)
    draw(runs, home)
    log.info("Wrote %s and %s", results, home / "RESULTS.md")


def write(runs: list[dict[str, Any]], home: Path) -> None:
    """Write the measurements and the tables."""
    (home / "results.json").write_text(json.dumps(runs, indent=1) + "\n")
    (home / "RESULTS.md").write_text(render(runs))


def rescored(run: dict[str, Any], home: Path) -> dict[str, Any]:
    """Score what a run found anew, where that and its data are still there."""
    case, kind = CASES.get(run["case"]), run["kind"]
    path = home / "_runs" / (_name(run) + ".npz")
    if case is None or kind == "speed":
        return run
    truth = folder_of(home / "_data", case, run["regime"], run["seed"]) / "truth.h5ad"
    if not truth.exists() or (run["method"] != "raw" and not path.exists()):
        return run
    if run["method"] == "raw":
        return run | {"scores": score_raw(kind, truth)}
    _, corrected, arrays = load(path)
    return run | {"scores": score_task(kind, truth, corrected, arrays)}


def _name(identity: dict[str, Any]) -> str:
    return "-".join(str(identity[key]) for key in IDENTITY)


def plan(cases: dict[str, Case]) -> Iterator[tuple[dict[str, Any], Case]]:
    """Yield every run: its names, in the order of `IDENTITY`, and its case."""
    for name, case in cases.items():
        for seed, regime in product(case.seeds, case.regimes):
            # Turned around from seed to seed, so that no method always runs first.
            methods = case.methods[:: -1 if seed % 2 else 1]
            for method in methods if case.kind in ("speed", "held_out") else ("raw", *methods):
                yield {"case": name, "regime": regime, "seed": seed, "method": method}, case


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="case",
        help=f"of {', '.join(CASES)}; by default {' and '.join(DEFAULT_CASES)}; all: every one that there are data for",
    )
    parser.add_argument("--regimes", nargs="+", help="only these regimes of the cases")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), help="in place of the cases' own")
    parser.add_argument("--seeds", type=int, help="number of seeds, in place of the cases' own")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", type=Path, default=HERE.parent / ".venv-scvi/bin/python")
    parser.add_argument("--resume", action="store_true", help="skip what was measured at this commit")
    parser.add_argument("--rescore", action="store_true", help="run nothing, but score anew what earlier runs found")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that everything works; kept apart")
    options = parser.parse_args()
    options.cases = options.cases or list(DEFAULT_CASES)
    if options.cases == ["all"]:
        has_data = DATA_VARIABLE in os.environ
        options.cases = [name for name, case in CASES.items() if has_data or not case.is_real]
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown}; there are {list(CASES)}")
    wanted = options.methods or [method for name in options.cases for method in CASES[name].methods]
    if not options.rescore and any(METHODS[method].peer for method in wanted) and not options.peer_python.exists():
        parser.error(
            f"there is no interpreter at {options.peer_python}: `make bench` sets it up, or --peer-python PATH"
        )
    return options


def selected(options: argparse.Namespace) -> dict[str, Case]:
    """Return the cases as the command line changes them."""
    chosen = {}
    for name in options.cases:
        case = CASES[name]
        if options.regimes:
            case = replace(case, regimes=tuple(options.regimes))
        elif options.quick:
            case = replace(case, regimes=case.regimes[:1])
        if options.methods:
            case = replace(case, methods=tuple(options.methods))
        if options.quick:
            case = replace(case, n_cells=500, n_genes=60, seeds=range(1))
        first, number = options.first_seed, options.seeds or len(case.seeds)
        chosen[name] = replace(case, seeds=range(first, first + number))
    return chosen


def stored(runs: list[dict[str, Any]], identity: dict[str, Any], environment: dict[str, Any]) -> bool:
    same = identity | environment
    return any(all(r[key] == value for key, value in same.items()) for r in runs)


def run(case: Case, data: Path, out: Path, identity: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Start one method, wait for it, and score what it found."""
    method, truth = identity["method"], data / "truth.h5ad"
    size = dict(zip(("n_cells", "n_genes"), ad.read_h5ad(truth, backed="r").shape, strict=True))
    if method == "raw":
        return size | {"scores": score_raw(case.kind, truth)}
    chosen = METHODS[method]
    out.mkdir(parents=True, exist_ok=True)
    path = out / (_name(identity) + ".npz")
    epochs: tuple[int, ...] = chosen.speed_epochs if case.kind == "speed" else ()
    if options.quick:
        epochs = (1, 2) if case.kind == "speed" else (2,)
    command = [
        str(options.peer_python if chosen.peer else sys.executable),
        str(HERE / chosen.script),
        *(str(part) for part in (data / "data.h5ad", path, "--seed", identity["seed"], "--threads", options.threads)),
        *chosen.arguments,
        *(("--task", case.kind) if case.kind in ("labels", "de") else ()),
        *(("--rate-draws", "100") if case.halved else ()),
        *(("--epochs", *map(str, epochs)) if epochs else ()),
    ]
    limits = dict.fromkeys(_THREAD_LIMITS, str(options.threads))
    messages = path.with_suffix(".log")
    with messages.open("w") as sink:
        done = subprocess.run(command, env=os.environ | limits, stdout=sink, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = "\n".join(messages.read_text().splitlines()[-20:])
        raise RuntimeError(f"{chosen.label} failed with exit code {done.returncode}; {messages} ends with\n{tail}")
    record, corrected, arrays = load(path)
    return record | size | {"scores": score_task(case.kind, truth, corrected, arrays)}


def machine() -> dict[str, Any]:
    """Describe the machine without naming it."""
    model = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": os.cpu_count(), "memory_gb": round(memory, 1), "system": platform.system()}


def commit() -> dict[str, Any]:
    """Return the commit, and whether tracked files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True).stdout

    # What the benchmark itself writes does not make the code another one.
    written = ("results.json", "*.md", "*.png")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/",
                  *(f":(exclude,top)benchmarks/{name}" for name in written))  # fmt: skip
    return {"commit": git("rev-parse", "--short=12", "HEAD").strip(), "modified": bool(changed.strip())}


if __name__ == "__main__":
    main()
