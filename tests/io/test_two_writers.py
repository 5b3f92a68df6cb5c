"""Writers of one store at the same time: they wait for each other, and none of them loses what another wrote."""

import subprocess
import sys
import textwrap
import threading

import pytest
import spatialdata as sd
from _stores import (
    add_results,
    assert_same,
    consolidated_nodes,
    nodes_on_disk,
    read_table,
    results_of,
)

from resolvi_sd.io import _files, results_state, write_results
from resolvi_sd.io._lock import only_writer

fcntl = pytest.importorskip("fcntl", reason="folders cannot be locked on this platform")


def test_a_writer_waits_for_another_one(v3, rng, caplog):
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    caplog.set_level("INFO", logger="resolvi_sd")
    writer = threading.Thread(target=write_results, args=(sdata,))
    with only_writer(v3):
        writer.start()
        writer.join(timeout=0.3)
        assert writer.is_alive()
        assert results_state(v3) == "absent"
    writer.join(timeout=30)
    assert results_state(v3) == "complete"
    assert f"writing to {v3}" in caplog.text


def test_two_tables_written_at_once_are_both_in_the_consolidated_metadata(v3, rng, monkeypatch):
    sdata = sd.read_zarr(v3)
    sdata["more"] = sdata["table"].copy()
    sdata.write_element("more")
    sdata.write_consolidated_metadata()
    writers, replace_json = {}, _files.replace_json

    def start_another(path, content, *, hidden):
        """In the middle of a write: the root's copy of the metadata is read already, and not yet replaced."""
        if path == v3 / "zarr.json" and "more" not in writers:
            writers["more"] = threading.Thread(target=write_results, args=(sdata, "more"))
            writers["more"].start()
            writers["more"].join(timeout=0.5)
        replace_json(path, content, hidden=hidden)

    monkeypatch.setattr(_files, "replace_json", start_another)
    for name in ("table", "more"):
        add_results(sdata[name], rng)
    write_results(sdata)
    writers["more"].join(timeout=30)

    assert results_state(v3) == results_state(v3, "more") == "complete"
    assert consolidated_nodes(v3) == nodes_on_disk(v3)
    for name in ("table", "more"):
        assert_same(results_of(read_table(v3, name)), results_of(sdata[name]))


def test_a_writer_that_died_holds_nobody_up(v3, rng):
    script = f"""
        import os
        from pathlib import Path
        from resolvi_sd.io._lock import only_writer
        with only_writer(Path({str(v3)!r})):
            os._exit(9)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    write_results(sdata)
    assert results_state(v3) == "complete"


def test_a_file_system_without_locks_is_written_to_with_a_warning(v3, rng, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    sdata = sd.read_zarr(v3)
    add_results(sdata["table"], rng)
    write_results(sdata)
    assert results_state(v3) == "complete"
    assert "cannot be locked" in caplog.text


def test_nothing_of_the_lock_is_left_in_the_store(v3):
    before = sorted(path.name for path in v3.iterdir())
    with only_writer(v3):
        assert sorted(path.name for path in v3.iterdir()) == before
