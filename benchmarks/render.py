"""`RESULTS.md` from the stored runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from cases import METHODS, OURS, REFERENCE

Run = dict[str, Any]
_Metric = tuple[str, str | None, str | None]

# Column, where in a run's scores, where in those of its corrected counts.
_HELD_OUT: tuple[_Metric, ...] = (
    ("held-out loss", "held_out", None),
    ("held-out loss, given the seen", "held_out_given", None),
    ("held-out loss, composition", "held_out_composition", None),
)
_METRICS: tuple[_Metric, ...] = (
    *_HELD_OUT,
    ("profile error, rates", "profile_error", None),
    ("profile error, counts", None, "profile_error"),
    ("own share r, model", "share_correlation", None),
    ("own share bias, model", "share_bias", None),
    ("own share ECE, model", "share_calibration_error", None),
    ("own share r, counts", None, "share_correlation"),
    ("own share bias, counts", None, "share_bias"),
    ("foreign removed", None, "foreign_removed"),
    ("own removed", None, "own_removed"),
    ("foreign removed at 10% own", None, "foreign_removed_at_equal_own"),
    ("foreign removed at 10% own, whole", None, "foreign_removed_at_equal_own_whole"),
    ("error per molecule", None, "error_per_molecule"),
    ("latent kNN accuracy", "latent_knn", None),
    ("latent R² within types", "latent_within_type", None),
)
# Not compared: a correction that removes more foreign molecules removes more own ones; and the true own counts, being
# fewer, are farther from the profiles than the raw counts.
_NOT_COMPARED = {"foreign removed", "own removed", "profile error, counts"}
_DE_METRICS = (
    ("pairs", "power at a true FDR of 5%", "power_at_equal_fdr"),
    ("pairs", "FDR at a stated 5%", "fdr"),
    ("pairs", "power at a stated 5%", "power"),
    ("pairs", "LFC r", "correlation"),
    ("pairs", "LFC slope", "slope"),
    ("rest", "power at a true FDR of 5%", "power_at_equal_fdr"),
    ("rest", "FDR at a stated 5%", "fdr"),
    ("rest", "power at a stated 5%", "power"),
    ("rest", "LFC r", "correlation"),
    ("rest", "LFC slope", "slope"),
    ("leaked", "false calls of leaked genes", "false_calls"),
    ("leaked", "false calls of other genes", "false_calls_other"),
)
# Of cases whose data sets have sizes of their own.
_NOTES = {
    "labels": "A tenth of the labels is known.",
    "held_out": "Half of the molecules of a piece of a section. Nats for each of the other half; lower is better.",
}
# Of the corrected counts of a method; those that are expectations are compared.
_EXPECTED = {"default": "", "weighted": "; own-share recipe"}
_RECIPES = _EXPECTED | {"whole": "; whole molecules", "fpr_5": "; whole, fpr 5%", "fpr_10": "; whole, fpr 10%"}
_UNCORRECTED = {"default": "raw counts", "truth": "true own counts"}


def render(runs: list[Run]) -> str:
    """Return the tables of all cases as Markdown: medians over seeds."""
    parts = [
        "# Results\n\nWritten by `make bench` from `results.json`; what each column means is in `README.md`. "
        "Medians over seeds; ratios are medians of the ratios within a seed, to resolvi_sd."
    ]
    for case in dict.fromkeys(run["case"] for run in runs):
        of_case = [run for run in runs if run["case"] == case]
        table = {"speed": _speed, "quality": _quality, "labels": _labels, "de": _de, "held_out": _held_out}
        # Real sections have sizes of their own.
        size = _NOTES.get(case) or _size(of_case)
        parts.append(f"## {case}\n\n{size}\n\n{table[of_case[0]['kind']](of_case)}")
    parts.append(
        "## Plots\n\n![Foreign against own molecules removed; dots: as it is](removal.png)\n\n"
        "![Time and memory against cells and genes](growth.png)"
    )
    parts.append(f"## Run on\n\n{_environment(runs)}")
    return "\n\n".join(parts) + "\n"


def per_epoch(run: Run) -> float:
    """Milliseconds per cell and epoch; of two trainings, from their difference."""
    first, *_, last = (
        run["trainings"] if len(run["trainings"]) > 1 else [{"epochs": 0, "seconds": 0.0}, *run["trainings"]]
    )
    return 1e3 * (last["seconds"] - first["seconds"]) / (last["epochs"] - first["epochs"]) / run["n_cells"]


def whole(run: Run) -> float:
    """Seconds from the table to corrected counts, shares and latent."""
    return sum(run[part] for part in ("preparation_seconds", "inference_seconds")) + run["trainings"][-1]["seconds"]


def _speed(runs: list[Run]) -> str:
    timings: dict[str, Callable[[Run], float]] = {
        "training, ms per cell and epoch": per_epoch,
        "inference, s": lambda run: run["inference_seconds"],
        "expression, s": lambda run: run["expression_seconds"],
    }
    header = ["method", *(column for name in timings for column in (name, "ratio")), "peak memory, MB"]
    rows = []
    for method in _methods(runs):
        row = [METHODS[method].label]
        for timing in timings.values():
            row += [_spread(timing(run) for run in _of(runs, method)), _ratio(runs, method, timing)]
        rows.append([*row, _number([run["peak_memory_mb"] for run in _of(runs, method)], 0)])
    return _table(header, rows)


def _quality(runs: list[Run]) -> str:
    metrics = tuple(metric for metric in _METRICS if _values(runs, metric, "default"))
    header = ["method", *(name for name, *_ in metrics), "epochs", "whole run, s", "ratio"]
    parts = []
    for regime in dict.fromkeys(run["regime"] for run in runs):
        here = [run for run in runs if run["regime"] == regime]
        rows = [row for method in ("raw", *_methods(here)) for row in _quality_rows(here, method, metrics)]
        parts.append(f"### {regime}\n\n{_table(header, rows)}")
    return "\n\n".join([*parts, _wins(runs)])


def _labels(runs: list[Run]) -> str:
    """One table per data set: held-out labels."""
    header = ["method", "accuracy", "mean recall of types", "epochs", "training, s", "inference, s"]
    parts = []
    for regime in dict.fromkeys(run["regime"] for run in runs):
        here = [run for run in runs if run["regime"] == regime]
        rows = []
        for method in ("raw", *_methods(here)):
            chosen = _of(here, method)
            if not chosen:
                continue
            row = ["logistic regression on raw counts" if method == "raw" else METHODS[method].label]
            row += [_spread(run["scores"][name] for run in chosen) for name in ("accuracy", "mean_recall")]
            if method == "raw":
                rows.append([*row, "", "", ""])
                continue
            row.append(_number([run["trainings"][-1]["epochs"] for run in chosen], 0))
            timed = _timed(chosen, here)
            row.append(_number([run["trainings"][-1]["seconds"] for run in timed], 1))
            rows.append([*row, _number([run["inference_seconds"] for run in timed], 1)])
        parts.append(f"### {regime}\n\n{_size(here)}\n\n{_table(header, rows)}")
    return "\n\n".join(parts)


def _held_out(runs: list[Run]) -> str:
    """One line per data set and method."""
    header = ["data", "cells", "genes", "method", *(name for name, *_ in _HELD_OUT), "epochs"]
    rows = []
    for regime in dict.fromkeys(run["regime"] for run in runs):
        here = [run for run in runs if run["regime"] == regime]
        for method in _methods(here):
            chosen = _of(here, method)
            row = [regime, *(f"{round(median(run[size] for run in chosen)):,}" for size in ("n_cells", "n_genes"))]
            row.append(METHODS[method].label)
            row += [_number(_values(chosen, metric, "default"), 4) for metric in _HELD_OUT]
            rows.append([*row, _number([run["trainings"][-1]["epochs"] for run in chosen], 0)])
    return _table(header, rows)


def _de(runs: list[Run]) -> str:
    """One table per regime: differential expression, and rank-sum tests on raw and corrected counts."""
    header = ["method", *(f"{kind}: {name}" for kind, name, _ in _DE_METRICS), "comparisons, s"]
    parts = []
    for regime in dict.fromkeys(run["regime"] for run in runs):
        here = [run for run in runs if run["regime"] == regime]
        rows = []
        for method in ("raw", *_methods(here)):
            chosen = _of(here, method)
            recipes = {
                "own": "",
                "default": ": rank-sum test on its counts",
                "weighted": ": on its own-share counts",
                "whole": ": on its whole counts",
            }
            for recipe, suffix in recipes.items():
                scores = [_de_scores(run, recipe) for run in chosen]
                if not scores or None in scores:
                    continue
                name = "rank-sum test on raw counts" if method == "raw" else METHODS[method].label + suffix
                row = [name]
                for kind, _, metric in _DE_METRICS:
                    values = [score[kind][metric] for score in scores if score]
                    row.append(_number([value for value in values if value is not None], 3))
                seconds = [run["comparisons_seconds"] for run in _timed(chosen, here)] if recipe == "own" else []
                rows.append([*row, _number(seconds, 1)])
        parts.append(f"### {regime}\n\n{_table(header, rows)}")
    return "\n\n".join(parts)


def _de_scores(run: Run, recipe: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = run["scores"].get("own" if recipe == "own" else "wilcoxon")
    return found if recipe == "own" or found is None else found.get(recipe)


def _quality_rows(runs: list[Run], method: str, metrics: tuple[_Metric, ...]) -> list[list[str]]:
    """One row for each recipe of corrected counts; what does not depend on it stands in the first."""
    own = _of(runs, method)
    if not own:
        return []
    rows = []
    for recipe in dict.fromkeys(recipe for run in own for recipe in run["scores"]["counts"]):
        first = recipe == "default"
        label = _UNCORRECTED[recipe] if method == "raw" else METHODS[method].label + _RECIPES[recipe]
        row = [label]
        for metric in metrics:
            row.append(_number(_values(own, metric, recipe), 3) if first or metric[2] else "")
        if first and method != "raw":
            row.append(_number([run["trainings"][-1]["epochs"] for run in own], 0))
            row += [_number([whole(run) for run in _timed(own, runs)], 1), _ratio(runs, method, whole)]
        rows.append(row + [""] * (len(metrics) + 4 - len(row)))
    return rows


def _wins(runs: list[Run]) -> str:
    """In how many regimes resolvi_sd is at least as good as the reference, metric by metric."""
    if not {OURS, REFERENCE} <= {run["method"] for run in runs}:
        return ""
    regimes = list(dict.fromkeys(run["regime"] for run in runs))
    rows = []
    for metric in _METRICS:
        name = metric[0]
        if name in _NOT_COMPARED:
            continue
        row, of_all = [name], 0
        for recipe in _EXPECTED if metric[2] else ("default",):
            won, compared = 0, 0
            for regime in regimes:
                here = [run for run in runs if run["regime"] == regime]
                # Seeds are tissues: only those that both were run on compare.
                seeds = {run["seed"] for run in _of(here, OURS)} & {run["seed"] for run in _of(here, REFERENCE)}
                here = [run for run in here if run["seed"] in seeds]
                ours = _values(_of(here, OURS), metric, "default")
                theirs = _values(_of(here, REFERENCE), metric, recipe)
                if ours and theirs:
                    compared += 1
                    won += _loss(name, median(ours)) <= _loss(name, median(theirs))
            row.append(f"{won} of {compared}")
            of_all += compared
        if of_all:
            rows.append([*row, ""][:3])
    header = ["metric", "at least as good", "against its own-share recipe"]
    return f"### In how many regimes\n\nresolvi_sd against {METHODS[REFERENCE].label}.\n\n{_table(header, rows)}"


def _loss(name: str, value: float) -> float:
    """Turn a metric into one that is better when smaller."""
    if "bias" in name:
        return abs(value)
    return -value if " r, " in name or name.startswith(("foreign removed", "latent")) else value


def _values(runs: list[Run], metric: _Metric, recipe: str) -> list[float]:
    _, of_run, of_counts = metric
    # Runs of before a recipe or a metric was added do not have it.
    scores = [run["scores"] if of_run else run["scores"]["counts"].get(recipe, {}) for run in runs]
    found = [values.get(of_run or of_counts) for values in scores]
    return [value for value in found if value is not None]


def _methods(runs: list[Run]) -> list[str]:
    present = {run["method"] for run in runs}
    return [method for method in METHODS if method in present]


def _of(runs: list[Run], method: str) -> list[Run]:
    return [run for run in runs if run["method"] == method]


def _timed(chosen: list[Run], runs: list[Run]) -> list[Run]:
    """Return those of the runs that had as many threads as any: some were run for their quality only."""
    most = max(run["threads"] for run in runs)
    return [run for run in chosen if run["threads"] == most]


def _ratio(runs: list[Run], method: str, timing: Callable[[Run], float]) -> str:
    """Median over data sets of a method's time over ours."""
    ours, theirs = (
        {(run["regime"], run["seed"], run["threads"]): timing(run) for run in _of(runs, name)}
        for name in (OURS, method)
    )
    shared = ours.keys() & theirs.keys()
    return f"{median(theirs[key] / ours[key] for key in shared):.1f}" if shared else ""


def _number(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f}" if values else ""


def _spread(values: Iterable[float]) -> str:
    """Median, and the range of several."""
    known = sorted(values)
    shown = f"{median(known):.3g}"
    return shown if len(known) == 1 else f"{shown} ({known[0]:.3g} to {known[-1]:.3g})"


def _size(runs: list[Run]) -> str:
    seeds: dict[tuple[str, str], set[int]] = {}
    for run in runs:
        seeds.setdefault((run["regime"], run["method"]), set()).add(run["seed"])
    numbers = {len(of_method) for of_method in seeds.values()}
    fewest, most = min(numbers), max(numbers)
    shown = f"{most}" if fewest == most else f"{fewest} to {most}"
    cells = round(median(run["n_cells"] for run in runs))
    return f"{cells:,} cells, {runs[0]['n_genes']:,} genes, {shown} seed{'s' if most > 1 else ''}."


def _environment(runs: list[Run]) -> str:
    """List every machine, commit and set of versions that the runs were made with."""
    lines = []
    for text in dict.fromkeys(json.dumps(run["machine"]) for run in runs):
        known = json.loads(text)
        lines.append(f"- {known['cpu']}, {known['cores']} cores, {known['memory_gb']} GB, {known['system']}")
    lines.append(f"- threads: {', '.join(sorted({str(run['threads']) for run in runs}))}")
    loads = [run["load"] for run in runs]
    lines.append(f"- load average when a run started: median {median(loads):.1f}, at most {max(loads):.1f}")
    commits = dict.fromkeys(run["commit"] + (" with local changes" if run["modified"] else "") for run in runs)
    lines.append(f"- commit: {', '.join(commits)}")
    lines.append(f"- from {min(run['started'] for run in runs)} to {max(run['started'] for run in runs)}")
    for method in _methods(runs):
        for text in dict.fromkeys(json.dumps(run["versions"]) for run in _of(runs, method)):
            known = ", ".join(f"{name} {number}" for name, number in json.loads(text).items())
            lines.append(f"- {METHODS[method].label}: {known}")
    return "\n".join(lines)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
