"""Arrays in temporary files: they behave as others do, and leave nothing behind."""

import errno
import gc
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from resolvi_sd import _scratch
from resolvi_sd._scratch import copy_beside, is_in_file, scratch_array, scratch_file, view_file, zeros_beside


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def mapped_files(folder) -> int:
    """Temporary files in a folder that this process maps, with or without a name."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_zeros_in_a_file_can_be_written_to():
    array = scratch_array(1000, np.float32)
    assert type(array) is np.ndarray and array.dtype == np.float32 and not array.any()
    array[::3] += 2
    assert array.sum() == 2 * len(range(0, 1000, 3))
    assert is_in_file(array) and is_in_file(array[10:20].reshape(2, 5))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_file_has_no_name_and_goes_with_the_last_use(folder):
    array = scratch_array(10_000, np.int64)
    assert not any(folder.iterdir()) and mapped_files(folder) == 1
    part = array[5:]
    del array
    gc.collect()
    assert mapped_files(folder) == 1
    del part
    gc.collect()
    assert mapped_files(folder) == 0


def test_a_written_file_is_viewed_and_cannot_be_changed():
    with scratch_file() as file:
        file.write(np.arange(5, dtype=np.int32).data)
        view = view_file(file, np.int32)
    np.testing.assert_array_equal(view, np.arange(5))
    assert is_in_file(view)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_nothing_needs_no_file():
    with scratch_file() as file:
        assert view_file(file, np.float32).shape == (0,)
    assert scratch_array(0, np.float32).shape == (0,)


def test_arrays_beside_others_are_where_those_are(monkeypatch):
    monkeypatch.setattr(_scratch, "_BLOCK", 7)
    here, there = np.arange(20), scratch_array(20, np.int64)
    there[:] = here
    assert not is_in_file(here) and not is_in_file(zeros_beside(here, np.int8)) and not is_in_file(copy_beside(here))
    zeros, copy = zeros_beside(there, np.float32), copy_beside(there, np.int32)
    assert is_in_file(zeros) and zeros.dtype == np.float32 and not zeros.any()
    assert is_in_file(copy) and copy.dtype == np.int32 and (copy == here).all()
    copy[0] = 9
    assert there[0] == 0


def test_a_full_disk_is_told_of_before_anything_is_written(monkeypatch, folder):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 50, 50))
    with pytest.raises(OSError, match=r"GB do not fit. Set the environment variable TMPDIR"):
        scratch_array(100, np.float32)


def test_large_files_are_not_put_where_memory_is(monkeypatch):
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/var/tmp")
    assert _scratch.scratch_folder() == "/var/tmp"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert _scratch.scratch_folder() != "/var/tmp"


def test_a_disk_that_fills_up_is_told_what_to_do():
    with pytest.raises(OSError, match="No space left") as raised, scratch_file():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert any("TMPDIR" in note for note in raised.value.__notes__)


def test_a_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="environment variable TMPDIR, does not exist: .*gone"):
        scratch_array(5, np.float32)
