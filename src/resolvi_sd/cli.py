"""Functions of `tl` as commands, for pipelines: `resolvi-sd fit my.zarr --library_key sample --plot sources.png`.

A command reads a SpatialData store (.zarr) or a table (.h5ad), calls the function of the same name, and writes the
results into it. Options are the arguments of the function, as described in its documentation; they can also be read
from a file (`--settings run.yaml`).
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
from anndata import AnnData, read_h5ad
from jsonargparse import ArgumentParser
from spatialdata import SpatialData, read_zarr

from resolvi_sd import __version__, io, pl, tl
from resolvi_sd._docstrings import parameter_texts
from resolvi_sd._keys import Keys
from resolvi_sd._tables import resolve_table
from resolvi_sd._validation import check_picture, check_place

__all__ = ["main"]


class _Shown(NamedTuple):
    """Further output for a result: its plot, and the property of `Keys` that names its DataFrame in `uns`."""

    plot: str | None = None
    frame: str | None = None


# The command whose result is a separate table.
_EXPORT = "pseudobulk"
_COMMANDS = {
    "fit": _Shown("sources"),
    "map_query": _Shown("sources"),
    "decontaminated_counts": _Shown("decontamination"),
    "normalized_expression": _Shown(),
    "leakage": _Shown("leakage"),
    "audit": _Shown("audit", "audit"),
    "differential_expression": _Shown("volcano", "de"),
    "niche_abundance": _Shown(),
    "differential_niche_abundance": _Shown("niche_abundance", "dna"),
    _EXPORT: _Shown(),
}
# Files of which a group in zarr format has one.
_ZARR = ("zarr.json", ".zgroup")
# Arguments of the functions that are not options, and options that are not arguments.
_NO_OPTIONS: set[str | int] = {"data", "query", "reference", "copy", "write"}
_NO_ARGUMENTS = {"data", "reference", "output", "backed", "settings", "plot", "csv"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Parameters
    ----------
    arguments
        Command line; None means that of the process.

    Raises
    ------
    SystemExit
        If the command line is invalid (status 2), or if the data are (with a message, status 1).

    Examples
    --------
    >>> import tempfile, resolvi_sd as rsd
    >>> from resolvi_sd.cli import main
    >>> path = tempfile.mkdtemp() + "/tissue.zarr"
    >>> rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, rng=0).write(path)
    >>> main(["fit", path, "--max_epochs", "2", "--show_progress_bar", "false"])
    >>> rsd.io.results_state(path)
    'complete'
    """
    parser = _make_parser()
    parsed = parser.instantiate(parser.parse_args(_settings_first(sys.argv[1:] if arguments is None else arguments)))
    name: str = parsed.command
    try:
        with _spoken():
            _run(name, vars(parsed[name]))
    except (ValueError, TypeError, KeyError, OSError, ArithmeticError, NotImplementedError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        raise SystemExit(f"resolvi-sd {name}: {message}") from error


def _settings_first(arguments: Sequence[str]) -> list[str]:
    """Move `--settings FILE` behind the command, so that what else is on the command line overrides the file."""
    files: list[str] = []
    others: list[str] = []
    parts = iter(arguments)
    for part in parts:
        if part == "--settings":
            files += [part, *islice(parts, 1)]
        else:
            (files if part.startswith("--settings=") else others).append(part)
    return [*others[:1], *files, *others[1:]]


def _make_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="resolvi-sd", description=__doc__, version=__version__)
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (plot, frame) in _COMMANDS.items():
        function = getattr(tl, name)
        summary = (function.__doc__ or "").partition("\n")[0]
        command = ArgumentParser(description=summary)
        command.add_argument("data", type=Path, help="SpatialData store (.zarr) or table (.h5ad)")
        if name == "map_query":
            command.add_argument("reference", type=Path, help="store or table with a fitted model")
        if name == "audit":
            command.add_argument("--reference", type=Path | None, help="table (.h5ad) of single-cell counts")
        if name == _EXPORT:
            command.add_argument("output", type=Path, help="table (.h5ad) to write; it must not exist")
        else:
            command.add_argument("--output", type=Path | None, help="copy of DATA to write into; it must not exist")
        command.add_function_arguments(function, skip=_NO_OPTIONS)
        _add_shared_help(command, function)
        command.add_argument("--backed", action="store_true", help="leave the counts on disk")
        command.add_argument("--settings", action="config", help="file (.yaml) with options")
        if plot:
            command.add_argument("--plot", type=Path | None, help=f"file for a plot of the result, made by pl.{plot}")
        if frame:
            command.add_argument("--csv", type=Path | None, help="file for the result, in addition to the table")
        commands.add_subcommand(name, command, help=summary)
    return parser


def _add_shared_help(command: ArgumentParser, function: Callable[..., Any]) -> None:
    """Add the help of arguments that are described together, which jsonargparse does not find."""
    texts = parameter_texts(function)
    for action in command._actions:
        if action.help is None and action.dest in texts:
            action.help = texts[action.dest]


@contextmanager
def _spoken() -> Iterator[None]:
    """Show the log messages of the package, and warnings without their line of code.

    Warnings by zarr about an upcoming default, which it emits for every array, are suppressed.
    """
    logger, handler = logging.getLogger("resolvi_sd"), logging.StreamHandler()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("ignore", message="zarr v3 autosharding")
            yield
    finally:
        logger.removeHandler(handler)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"warning: {message}\n")


def _run(name: str, options: dict[str, Any]) -> None:
    path, output = options["data"], options["output"]
    kind = ".h5ad" if name == _EXPORT or path.is_file() else ".zarr"
    _check_input(path, options["table_key"])
    _check_outputs(path, output, kind=kind, plot=options.get("plot"), csv=options.get("csv"))
    given = {key: value for key, value in options.items() if key not in _NO_ARGUMENTS}
    if name == _EXPORT:
        _write_table(tl.pseudobulk(_read(path, given["table_key"], backed=options["backed"]), **given), output)
        return
    reference = options.get("reference")
    if reference is not None:
        reference_key = given.get("reference_table_key", "table")
        _check_input(reference, reference_key)
        if name == "map_query" and output is None:
            _check_other_table(path, given["table_key"], reference, reference_key)
        given["reference"] = _read(reference, reference_key, backed=False)
    if path.is_dir():
        with _copy_of(path, output) as store:
            data, table_key = _run_on_store(name, store, given, backed=options["backed"])
    else:
        data, table_key = _run_on_table(name, path, output, given, backed=options["backed"]), given["table_key"]
    try:
        _show(_COMMANDS[name], data, table_key, Keys(given["key_added"]), options)
    except Exception as error:
        place = str(output or path)
        raise OSError(f"The results are in {place!r}, but the plot or csv of them failed: {error}") from error


def _show(shown: _Shown, data: SpatialData | AnnData, table_key: str, keys: Keys, options: Mapping[str, Any]) -> None:
    """Write the plot and the DataFrame of a result, as far as they were asked for."""
    if shown.frame and options["csv"] is not None:
        resolve_table(data, table_key).uns[getattr(keys, shown.frame)].to_csv(options["csv"], index=False)
    if shown.plot and options["plot"] is not None:
        _draw(shown.plot, data, table_key=table_key, key_added=keys.prefix, save=options["plot"])


def _draw(plot: str, data: SpatialData | AnnData, **arguments: Any) -> None:
    """Save a plot of a result, and close the figure."""
    import matplotlib.pyplot as plt

    axes = getattr(pl, plot)(data, **arguments, return_ax=True)
    plt.close((axes[0] if isinstance(axes, list) else axes).get_figure(root=True))


def _check_input(path: Path, table_key: str) -> None:
    """Raise if an input does not exist or is of another kind, or does not have the table that is asked for."""
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist.")
    if path.is_file() and not h5py.is_hdf5(path):
        raise ValueError(f"{str(path)!r} is not a table in h5ad format.")
    if path.is_dir() and not any((path / name).exists() for name in _ZARR):
        raise ValueError(f"{str(path)!r} is a folder, but not a SpatialData store in zarr format.")
    if path.is_file() and table_key != "table":
        raise ValueError(f"{str(path)!r} is a single table, so there is none to choose as {table_key!r}.")


def _check_other_table(path: Path, table_key: str, reference: Path, reference_key: str) -> None:
    """Raise if a query is the table of its reference."""
    if reference.samefile(path) and reference_key == table_key:
        raise ValueError(
            f"The query {str(path)!r} is the reference, whose fit would be replaced. Name another table of the store "
            "with --table_key, or a place for a copy with --output."
        )


def _check_outputs(path: Path, output: Path | None, *, kind: str, plot: Path | None, csv: Path | None) -> None:
    """Raise, before anything is computed, if an output cannot be written."""
    if output is not None and output.exists():
        raise FileExistsError(f"The output {str(output)!r} exists already: remove it, or name another place.")
    if output is not None and output.suffix != kind:
        raise ValueError(f"The output {str(output)!r} must be of the kind {kind!r}: its name has to end so.")
    if output is not None and path.absolute() in output.absolute().parents:
        raise ValueError(f"The output {str(output)!r} lies in its input.")
    if output is None and path.is_file():
        check_place(path.resolve(), argument="DATA")
    for place, argument in ((output, "--output"), (csv, "--csv")):
        if place is not None:
            check_place(place, argument=argument)
    if plot is not None:
        check_picture(plot, argument="--plot")


def _read(path: Path, table_key: str, *, backed: bool) -> SpatialData | AnnData:
    if not path.is_dir():
        return read_h5ad(path, backed="r" if backed else None)
    if not (path / "tables").is_dir() and (path / "obs").is_dir():
        raise ValueError(
            f"{str(path)!r} is a table in zarr format, but a zarr store must hold a SpatialData object here. Write the "
            "table as h5ad: `anndata.read_zarr(path).write_h5ad(...)`."
        )
    return io.read_backed(path, table_key) if backed else read_zarr(path)


@contextmanager
def _copy_of(store: Path, output: Path | None) -> Iterator[Path]:
    """Yield the store itself or, if `output` is given, a copy of it, which is removed again if the command fails."""
    if output is None:
        yield store
        return
    output.mkdir()
    try:
        shutil.copytree(store, output, dirs_exist_ok=True, copy_function=shutil.copyfile)
        _make_writable(output)
        yield output
    except BaseException:
        _make_writable(output)
        shutil.rmtree(output, ignore_errors=True)
        raise


def _make_writable(copy: Path) -> None:
    """Let the owner write into all folders of a copy, which have the modes of a store that may be write-protected."""
    for folder, _, _ in os.walk(copy):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)


def _run_on_store(name: str, store: Path, given: dict[str, Any], *, backed: bool) -> tuple[SpatialData, str]:
    """Run a command on a store, and return the object and the name of the table with the results."""
    table_key, key_added = given["table_key"], given["key_added"]
    sdata = _read(store, table_key, backed=backed)
    io.check_writable(sdata, table_key, key_added=key_added)
    if _gets_new_table(name, sdata.tables[table_key], given):
        # With `backed`, the object does not contain all tables of the store.
        added = given["table_added"] or Keys(key_added).mapped_table(table_key)
        if (store / "tables" / added).exists():
            raise ValueError(f"The store has a table {added!r} already: choose another --table_added.")
    tables = set(sdata.tables)
    getattr(tl, name)(sdata, **given)
    added = set(sdata.tables) - tables
    if added:  # the table of a query whose genes differ from those of the reference
        (table_key,) = added
        sdata.write_element(table_key)
    else:
        io.write_results(sdata, table_key, key_added=key_added)
    return sdata, table_key


def _gets_new_table(name: str, table: AnnData, given: dict[str, Any]) -> bool:
    """Return whether the results go into a new table: those of a query whose genes are not those of the reference."""
    if name != "map_query":
        return False
    reference = resolve_table(given["reference"], given["reference_table_key"])
    return not table.var_names.equals(reference.var_names)


def _run_on_table(name: str, path: Path, output: Path | None, given: dict[str, Any], *, backed: bool) -> AnnData:
    table = _read(path, given["table_key"], backed=backed)
    if _gets_new_table(name, table, given):
        if output is None:
            raise ValueError(
                "The genes of the query are not those of the reference in the same order, so that the results go into "
                "a new table with the reference's genes: name it with --output."
            )
        table = tl.map_query(table, copy=True, **given)
    else:
        getattr(tl, name)(table, **given)
    _write_table(table, output or path)
    return table


def _write_table(table: AnnData, path: Path) -> None:
    """Write a table completely before it replaces an existing file, if any, whose links and mode are kept."""
    place = path.resolve()
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as folder:
        written = Path(folder) / place.name
        table.write_h5ad(written)
        if place.exists():
            shutil.copymode(place, written)
        os.replace(written, place)
