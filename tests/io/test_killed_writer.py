"""A writer killed at any moment: the store opens, nothing of the user's is lost, and another call finishes."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
import zarr
from _stores import (
    add_few_results,
    add_results,
    assert_same,
    assert_same_table,
    consolidate,
    digests,
    every_state,
    read_table,
    results_of,
    without_results,
)

from resolvi_sd.io import _files, results_state, write_results


def _check(state, user, old, new, final):
    """What must hold of a store whose writer was killed, for every reader; returns what it is said to hold."""
    table = read_table(state)
    assert_same_table(without_results(table), user)
    found = results_state(state)
    stored = results_of(table)
    if found == "absent":
        assert not stored and not old
    elif found == "complete":
        is_new = np.array_equal(stored["obsm", "X_resolvi"], new["obsm", "X_resolvi"])
        assert_same(stored, new if is_new else old)
        if is_new:  # then nothing is left to do, but for what is hidden
            assert {k: v for k, v in digests(state).items() if not k.startswith(".resolvi_write/")} == final
    return found


def _finish(state, found, sdata, *, from_memory):
    """Call the writer again: with the results in memory or, where there are none to write, in a new process."""
    if found == "incomplete" and not from_memory:
        write_results(sd.read_zarr(state))
    else:
        sdata.path = state
        write_results(sdata)
    assert results_state(state) == "complete"


@pytest.mark.parametrize(
    ("zarr_format", "replaces"),
    [
        pytest.param("v3", True),
        pytest.param("v3", False, marks=pytest.mark.slow),
        pytest.param("v2", True, marks=pytest.mark.slow),
    ],
)
def test_a_store_survives_a_kill_at_any_moment(templates, tmp_path, rng, monkeypatch, zarr_format, replaces):
    root = tmp_path / "store.zarr"
    shutil.copytree(templates / f"{zarr_format}.zarr", root)
    sdata = sd.read_zarr(root)
    user, old = sdata["table"].copy(), {}
    if replaces:
        add_few_results(sdata["table"], rng, expression=True)  # which the next fit does not have
        write_results(sdata)
        old = results_of(sdata["table"].copy())
    add_few_results(sdata["table"], rng, expression=False)
    new = results_of(sdata["table"])

    states = every_state(monkeypatch, lambda: write_results(sdata), root, tmp_path)

    final = digests(root)
    assert_same_table(read_table(root), sdata["table"])
    found = []
    for i, state in enumerate(states):
        found.append(_check(state, user, old, new, final))
        _finish(state, found[-1], sdata, from_memory=i % 4 == 0)
        assert digests(state) == final  # so no hidden folder is left either
    before = ["complete" if replaces else "absent"] * found.index("incomplete")
    n_incomplete = found.count("incomplete")
    assert found == before + ["incomplete"] * n_incomplete + ["complete"] * (len(found) - len(before) - n_incomplete)


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", ["v2", "v3"])
def test_readers_of_consolidated_metadata_survive_it_too(templates, tmp_path, rng, monkeypatch, zarr_format):
    root = tmp_path / "store.zarr"
    shutil.copytree(templates / f"{zarr_format}.zarr", root)
    sdata = sd.read_zarr(root)
    user = sdata["table"].copy()
    add_few_results(sdata["table"], rng, expression=True)
    write_results(sdata)
    consolidate(root / "tables/table")  # which `spatialdata.read_zarr` then goes by
    consolidate(root)
    add_few_results(sdata["table"], rng, expression=False)

    for i, state in enumerate(every_state(monkeypatch, lambda: write_results(sdata), root, tmp_path)):
        table = zarr.open_group(state, mode="r", use_consolidated=True)["tables/table"]
        assert_same_table(without_results(ad.io.read_elem(table)), user)
        assert_same_table(without_results(read_table(state)), user)
        if i % 5 == 0:
            sdata.path = state
            write_results(sdata)
            assert_same_table(read_table(state), sdata["table"])


def _interrupt_half_way(sdata, monkeypatch):
    calls, move = [], _files.move

    def interrupt(source, target):
        calls.append(target)
        if len(calls) == 4:
            raise KeyboardInterrupt
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_results(sdata)


def test_an_interrupted_call_can_be_repeated(v3, rng, monkeypatch):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    _interrupt_half_way(sdata, monkeypatch)
    assert results_state(sdata) == "incomplete"

    write_results(sdata)

    assert_same_table(read_table(v3), sdata["table"])
    assert not list(v3.glob(".resolvi*"))


def test_an_error_of_the_file_system_says_what_to_do(v3, rng, monkeypatch):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "move", fail)
    with pytest.raises(OSError, match="No space left") as error:
        write_results(sdata)
    assert "write_results(sdata, ...)` again" in error.value.__notes__[0]


def test_other_writers_get_on_with_a_store_that_was_left_half_done(v3, rng, monkeypatch):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    _interrupt_half_way(sdata, monkeypatch)

    again = sd.read_zarr(v3)
    again["more"] = without_results(again["table"])
    again.write_element("more")
    add_results(again["more"], rng)
    write_results(again, "more")

    assert sorted(sd.read_zarr(v3).tables) == ["more", "table"]
    assert results_state(v3, "more") == "complete"
    assert results_state(v3) == "incomplete"
    write_results(again)
    assert_same(results_of(read_table(v3)), results_of(sdata["table"]))
    assert not list(v3.glob(".resolvi*"))


def test_what_was_left_is_not_put_into_a_table_written_anew(v3, rng, monkeypatch, caplog):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    _interrupt_half_way(sdata, monkeypatch)
    again = sd.read_zarr(v3)
    again["table"] = without_results(again["table"])[5:].copy()
    again.delete_element_from_disk("table")
    again.write_element("table")

    with pytest.raises(KeyError, match=r"resolvi_sd\.tl\.fit"):
        write_results(again)

    assert "written anew" in caplog.text
    assert read_table(v3).n_obs == again["table"].n_obs
    assert results_state(v3) == "absent"
    assert not list(v3.glob(".resolvi*"))


def test_results_that_were_written_by_others_meanwhile_are_kept(v3, rng, monkeypatch):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    _interrupt_half_way(sdata, monkeypatch)
    again = sd.read_zarr(v3)
    add_results(again["table"], rng)
    again.delete_element_from_disk("table")
    again.write_element("table")
    assert results_state(v3) == "complete"

    write_results(again)

    assert_same_table(read_table(v3), again["table"])


@pytest.mark.slow
def test_a_killed_process(v3, rng):
    """The same with a process that really dies, without Python's clean-up."""
    script = f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np, spatialdata as sd
        from _stores import add_results
        from resolvi_sd.io import _files, write_results
        sdata = sd.read_zarr({str(v3)!r})
        add_results(sdata["table"], np.random.default_rng(1))
        move, calls = _files.move, []
        def die(source, target):
            calls.append(target)
            if len(calls) == 4:
                os._exit(9)
            move(source, target)
        _files.move = die
        write_results(sdata)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, env=os.environ)
    assert done.returncode == 9
    sdata = sd.read_zarr(v3)
    user = without_results(sdata["table"])
    assert results_state(v3) == "incomplete"

    write_results(sdata)

    add_results(sdata["table"], rng)  # the same seed
    assert_same(results_of(read_table(v3)), results_of(sdata["table"]))
    assert_same_table(without_results(read_table(v3)), user)
