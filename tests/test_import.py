"""Importing the package is cheap, and its names are there before their modules are loaded."""

import json
import subprocess
import sys

import resolvi_sd

HEAVY = {"torch", "pyro", "lightning", "squidpy", "spatialdata", "spatialdata_plot", "scanpy", "anndata", "numba"}


def _modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_heavy() -> None:
    loaded = _modules_after("import resolvi_sd")
    assert "resolvi_sd" in loaded
    assert not loaded & HEAVY


def test_listing_the_names_loads_nothing_heavy() -> None:
    assert not _modules_after("import resolvi_sd; dir(resolvi_sd)") & HEAVY


def test_using_results_does_not_load_what_only_training_and_plots_need() -> None:
    loaded = _modules_after("import resolvi_sd; resolvi_sd.tl, resolvi_sd.io")
    assert "torch" in loaded and not loaded & {"lightning", "squidpy", "scanpy", "matplotlib"}


def test_public_modules_are_listed_and_importable() -> None:
    for name in ("datasets", "gr", "io", "metrics", "pl", "tl"):
        assert name in dir(resolvi_sd)
        assert getattr(resolvi_sd, name).__name__ == f"resolvi_sd.{name}"


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert resolvi_sd.__version__ == version("resolvi-sd")
