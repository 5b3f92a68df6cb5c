"""Training on one device or on several, with one process per device and the patches divided among them."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from multiprocessing import current_process
from numbers import Integral
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from resolvi_sd._model.config import TrainingConfig
from resolvi_sd._model.extension import keep_known_rows
from resolvi_sd._model.loader import PatchStream, batch_size_of
from resolvi_sd._model.module import PER_CELL, ResolviModule
from resolvi_sd._model.peers import Peers
from resolvi_sd._scratch import scratch_folder
from resolvi_sd._tiles import Patches, Tissue

__all__ = ["check_accelerator", "train_on_devices"]

_CSR = ("data", "indices", "indptr")


def train_on_devices(
    module: ResolviModule,
    tissue: Tissue,
    patches: Patches,
    config: TrainingConfig,
    *,
    rng: np.random.Generator,
    accelerator: str = "auto",
    devices: int | str | list[int] = "auto",
    show_progress_bar: bool = True,
) -> dict[str, np.ndarray]:
    """Fit the parameters of `module` in place; see :func:`resolvi_sd._model.training.train`.

    With several devices, a process is started for each of them. The data are written to files in a temporary folder,
    which all processes map into memory, and which is deleted at the end. A minibatch is divided among the processes,
    whose gradients are averaged over its cells in every step, so that a step is equivalent to one on a single device
    with the same number of cells.

    Parameters
    ----------
    module, tissue, patches, config, rng, show_progress_bar
        As for one device.
    accelerator
        `"auto"`, `"cpu"`, `"cuda"`, `"gpu"` or `"mps"`; several devices must be `"cpu"` (processes) or `"cuda"`.
    devices
        `"auto"` for one device; a number of devices; a list of the numbers of CUDA devices; or -1 for all CUDA devices.

    Raises
    ------
    ValueError
        If the accelerator is not available, there are not enough devices, or too few patches for them.
    NotImplementedError
        If several devices are of another kind, or would have to write checkpoints.
    torch.multiprocessing.ProcessRaisedException
        If a process fails, with its message; the other processes are terminated.
    OSError
        If there is not enough space for the files.
    RuntimeError
        If a script starts processes while one of them imports it: it needs `if __name__ == "__main__":`.
    """
    from resolvi_sd._model.training import train  # imports Lightning, a third of the total import time

    chosen = _choose(accelerator, devices)
    settings: dict[str, Any] = {"accelerator": check_accelerator(accelerator), "show_progress_bar": show_progress_bar}
    if len(chosen) == 1:
        return train(module, tissue, patches, config, rng=rng, devices=chosen[0], **settings)
    if config.checkpoint_dir is not None:
        raise NotImplementedError(
            f"devices={devices!r}: several devices write no checkpoints. Leave `checkpoint_dir` out, or train on one."
        )
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError(
            "Training on several devices starts processes that import this script, and the script starts a training "
            'when it is imported: put its code under `if __name__ == "__main__":`.'
        )
    # Raises if there are too few patches, before anything is started.
    batch_size = batch_size_of(config, len(patches.order))
    peers = Peers(0, len(chosen))
    PatchStream(tissue, patches, batch_size=batch_size, thin_counts=False, thin_foreign=0.0, rng=rng, peers=peers)
    # Allow the same amount again for the model and its results.
    scratch = scratch_folder(2 * sum(array.nbytes for array in _arrays(tissue, patches).values()))
    with tempfile.TemporaryDirectory(prefix="resolvi_sd-", dir=scratch, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _save_data(folder, module, tissue, patches)
        work = (folder, chosen, config, rng.spawn(len(chosen)), torch.initial_seed(), _threads(len(chosen)), settings)
        _run(work, len(chosen))
        return _load_results(folder, module, patches, len(chosen))


def check_accelerator(accelerator: str) -> str:
    """Return which of Lightning's accelerators is meant; raise ValueError if it is unknown or not available."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return "cuda" if available["cuda"] else "cpu"
    kind = accelerator
    if kind == "gpu":
        kind = "mps" if available["mps"] and not available["cuda"] else "cuda"
    if not available.get(kind):
        found = ", ".join(repr(name) for name, there in available.items() if there)
        problem = "available on this machine" if kind in available else "known"
        raise ValueError(f"accelerator={accelerator!r} is not {problem}. Available: 'auto', {found}.")
    return kind


def _choose(accelerator: str, devices: int | str | list[int]) -> list[Any]:
    """Return Lightning's `devices` argument for each process."""
    if not isinstance(devices, (str, list, Integral)):
        raise TypeError(f"`devices` must be 'auto', a number, or a list of numbers, not {devices!r}.")
    if isinstance(devices, str):
        if devices != "auto" and not devices.removeprefix("-").isdigit():
            raise ValueError(f"devices={devices!r} is not known: it is 'auto', a number, or a list of numbers.")
        devices = 1 if devices == "auto" else int(devices)
    kind = check_accelerator(accelerator)
    if devices in (-1, [-1]):
        devices = list(range(torch.cuda.device_count())) if kind == "cuda" else 1
    number = len(devices) if isinstance(devices, list) else int(devices)
    if number < 1:
        raise ValueError(f"devices={devices!r}: at least one device is needed.")
    if kind == "cpu" and isinstance(devices, list):
        raise ValueError(f"devices={devices!r}: for the CPU, give a number of processes, e.g. `devices={number}`.")
    if number == 1:
        return [devices if isinstance(devices, list) else 1]
    if kind not in ("cpu", "cuda"):
        raise NotImplementedError(
            f"devices={devices!r}: several devices require the accelerator 'cpu' or 'cuda', not {kind!r}. Choose one."
        )
    if kind == "cpu":
        return [1] * number
    numbers = devices if isinstance(devices, list) else list(range(number))
    if max(numbers) >= torch.cuda.device_count() or len(set(numbers)) < number:
        raise ValueError(
            f"devices={devices!r}: there are {torch.cuda.device_count()} CUDA devices; name each only once."
        )
    return [[device] for device in numbers]


def _threads(n_processes: int) -> int:
    return max(1, torch.get_num_threads() // n_processes)


def _run(work: tuple[Any, ...], number: int) -> None:
    """Run the processes until they finish; if waiting is interrupted for any reason, kill them."""
    with _exits_if_terminated():
        context = spawn(_work, args=work, nprocs=number, join=False)
        try:
            while not context.join():
                pass
        except BaseException:
            for process in context.processes:
                process.kill()
                process.join()
            raise


@contextmanager
def _exits_if_terminated() -> Iterator[None]:
    """Let a termination end this process with its usual status, but only after the others were ended."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _arrays(tissue: Tissue, patches: Patches) -> dict[str, np.ndarray]:
    """Return the arrays that the processes need, keyed by the names of their files."""
    arrays = {name: array for name, array in {**vars(tissue), **vars(patches)}.items() if name != "counts"}
    arrays |= {f"counts-{part}": getattr(tissue.counts, part) for part in _CSR}
    return arrays | {"counts-shape": np.array(tissue.counts.shape)}


def _save_data(folder: Path, module: ResolviModule, tissue: Tissue, patches: Patches) -> None:
    for name, array in _arrays(tissue, patches).items():
        np.save(folder / f"{name}.npy", array)
    torch.save(module, folder / "module.pt")


def _load_data(folder: Path) -> tuple[ResolviModule, Tissue, Patches]:
    def load(name: str) -> np.ndarray:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    value, column, indptr = (load(f"counts-{part}") for part in _CSR)
    counts = sp.csr_matrix((value, column, indptr), shape=tuple(load("counts-shape")))
    arrays = {f.name: load(f.name) for f in fields(Tissue) if f.name != "counts"}
    patches = Patches(**{f.name: load(f.name) for f in fields(Patches)})
    # Written by the process that started this one, into a folder of its own.
    module: ResolviModule = torch.load(folder / "module.pt", weights_only=False)
    keep_known_rows(module)
    return module, Tissue(counts, **arrays), patches


def _work(
    rank: int,
    folder: Path,
    devices: list[Any],
    config: TrainingConfig,
    generators: list[np.random.Generator],
    seed: int,
    n_threads: int,
    settings: dict[str, Any],
) -> None:
    """Train as one of several processes, and write the results."""
    from resolvi_sd._model.training import train

    tempfile.tempdir = str(folder)  # is deleted even if this process is killed
    torch.set_num_threads(n_threads)
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    peers = Peers(rank, len(devices))
    on_cuda = settings["accelerator"] == "cuda"
    if on_cuda:
        torch.cuda.set_device(devices[rank][0])
    meeting = dist.FileStore(str(folder / "meeting"), peers.number)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if on_cuda else "gloo", store=meeting, rank=rank, world_size=peers.number)
    module, tissue, patches = _load_data(folder)
    # Every process draws separate noise for its own cells, which also differs from that used to draw the parameters.
    torch.manual_seed(seed + 1 + rank)
    settings = settings | {"show_progress_bar": settings["show_progress_bar"] and rank == 0}
    history = train(
        module, tissue, patches, config, rng=generators[rank], devices=devices[rank], peers=peers, **settings
    )
    state = module.state_dict()
    np.save(folder / f"neighbors-{rank}.npy", state.pop(PER_CELL)[_cells(patches, peers)].numpy())
    if rank == 0:
        results = {"state": state, "history": {name: torch.from_numpy(values) for name, values in history.items()}}
        torch.save(results, folder / "results.pt")
    dist.destroy_process_group()


def _cells(patches: Patches, peers: Peers) -> np.ndarray:
    """Rows of the cells that a process trains on."""
    return np.concatenate([patches.cells(patch) for patch in peers.own(patches)])


def _load_results(folder: Path, module: ResolviModule, patches: Patches, number: int) -> dict[str, np.ndarray]:
    results = torch.load(folder / "results.pt", weights_only=True)
    module.load_state_dict(results["state"], strict=False)
    with torch.no_grad():
        for rank in range(number):
            rows = torch.from_numpy(_cells(patches, Peers(rank, number)))
            module.neighbor_logits.weight[rows] = torch.from_numpy(np.load(folder / f"neighbors-{rank}.npy"))
    module.eval()
    return {name: values.numpy() for name, values in results["history"].items()}
