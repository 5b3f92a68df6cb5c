"""Training of the model, with Lightning running the loop."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from resolvi_sd._model.config import TrainingConfig
from resolvi_sd._model.elbo import negative_elbo
from resolvi_sd._model.loader import PatchStream, batch_size_of
from resolvi_sd._model.module import PER_CELL, ResolviModule
from resolvi_sd._model.peers import ALONE, Peers
from resolvi_sd._model.row_adam import RowAdam
from resolvi_sd._model.schedule import DecayWhenFlat
from resolvi_sd._tiles import Minibatch, Patches, Tissue

__all__ = ["train"]

_CHECKPOINT = "resolvi"
# Number of steps over which the ELBO is averaged to determine whether it still rises; how often each cell, and how many
# cells in total, are seen before that is checked.
_WINDOW_STEPS = 64
_MIN_EPOCHS = 20
_FEWEST_CELLS_SEEN = 150_000
# Largest share of the training over which the divergence is warmed up.
_LONGEST_WARMUP = 0.6
# Settings that may differ between a training and the one that it resumes.
_LENGTH = ("max_epochs", "epoch_limit", "checkpoint_dir")


class _Loop(pl.LightningModule):
    """Training loop with an optimizer for the parameters that cells share and a sparse one for neighbor weights."""

    def __init__(
        self,
        module: ResolviModule,
        config: TrainingConfig,
        schedule: DecayWhenFlat,
        stream: PatchStream,
        fingerprint: str,
        peers: Peers,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module, self.config, self.schedule, self.stream = module, config, schedule, stream
        self.fingerprint, self.peers = fingerprint, peers
        self.n_steps = len(stream)
        self.warmup_steps = min(config.kl_warmup_steps, round(_LONGEST_WARMUP * schedule.n_epochs * self.n_steps))
        self.learning_rate: list[float] = []
        self._sum, self._cells = 0.0, 0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        cells = RowAdam(self.module.neighbor_logits.parameters(), lr=self.config.lr_cell)
        named = self.module.named_parameters()
        shared = [p for name, p in named if p.requires_grad and name != PER_CELL]
        return [cells, torch.optim.Adam(shared, lr=self.config.lr, fused=True)] if shared else [cells]

    def transfer_batch_to_device(self, batch: Minibatch, device: torch.device, dataloader_idx: int) -> Minibatch:
        return batch if device.type == "cpu" else batch.to(device)

    def training_step(self, minibatch: Minibatch, index: int) -> None:
        progress = self.current_epoch + index / self.n_steps
        factor = self.schedule.factor(progress)
        warmed_up = min(1.0, (progress * self.n_steps + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        # The first third of the warm-up is for the shares; during the second, the decoder's linear map is phased in.
        self.module.raise_skip_weights(3.0 * warmed_up - 1.0)
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer, rate in zip(optimizers, (self.config.lr_cell, self.config.lr), strict=False):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.zero_grad()
        loss, own_share = negative_elbo(self.module, minibatch, warmed_up**2)
        elbo = -float(loss.detach())
        if not math.isfinite(elbo):
            raise FloatingPointError(
                f"The ELBO became {elbo} in epoch {self.current_epoch + 1}. Lower the learning rate "
                "(`TrainingConfig(lr=...)`) and check the counts for extreme values."
            )
        self.stream.remember(minibatch, own_share)
        self.manual_backward(loss)
        for shared in optimizers[1:]:
            # Gradients of the neighbor weights concern only the cells here, and their optimizer is independent of
            # scale.
            self.peers.average_gradients(shared.param_groups[0]["params"], minibatch.n_core)
            self.clip_gradients(shared, gradient_clip_val=self.config.gradient_clip)
        for optimizer in optimizers:
            optimizer.step()
        self._sum += elbo * minibatch.n_core
        self._cells += minibatch.n_core

    def on_train_epoch_end(self) -> None:
        total, cells = self.peers.totals(self._sum, self._cells, device=self.device)
        elbo = total / cells
        self._sum, self._cells = 0.0, 0
        self.learning_rate.append(self.config.lr * self.schedule.factor(self.current_epoch + 1 - 1 / self.n_steps))
        self.schedule.observe(elbo)
        self.trainer.should_stop = self.schedule.finished

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["fingerprint"] = self.fingerprint
        checkpoint["schedule"] = {"elbo": list(self.schedule.elbo), "decay_from": self.schedule.decay_from}
        checkpoint["learning_rate"] = list(self.learning_rate)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.schedule.take_up(**checkpoint["schedule"])
        self.learning_rate = checkpoint["learning_rate"]


class _ProgressBar(Callback):
    """Progress bar over all steps, with the ELBO and the learning rate of the last epoch."""

    def __init__(self, schedule: DecayWhenFlat) -> None:
        self.schedule = schedule

    def on_train_start(self, trainer: pl.Trainer, loop: _Loop) -> None:
        total = self.schedule.n_epochs * loop.n_steps
        self.bar = tqdm(
            desc="Training", total=total, initial=trainer.current_epoch * loop.n_steps, unit="step", dynamic_ncols=True
        )

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.bar.update()

    def on_train_epoch_start(self, trainer: pl.Trainer, loop: _Loop) -> None:
        self._show_last_epoch(loop)

    def on_train_end(self, trainer: pl.Trainer, loop: _Loop) -> None:
        self._show_last_epoch(loop)

    def _show_last_epoch(self, loop: _Loop) -> None:
        if loop.learning_rate:
            done, elbo, rate = len(self.schedule.elbo), self.schedule.elbo[-1], loop.learning_rate[-1]
            self.bar.total = max(self.schedule.n_epochs * loop.n_steps, self.bar.n)
            self.bar.set_postfix(epoch=done, elbo=f"{elbo:.2f}", lr=f"{rate:.1e}")

    def teardown(self, trainer: pl.Trainer, loop: _Loop, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.total = self.bar.n
            self.bar.close()


def train(
    module: ResolviModule,
    tissue: Tissue,
    patches: Patches,
    config: TrainingConfig,
    *,
    rng: np.random.Generator,
    accelerator: str = "cpu",
    devices: int | str | list[int] = 1,
    peers: Peers = ALONE,
    show_progress_bar: bool = True,
) -> dict[str, np.ndarray]:
    """Fit the parameters of `module` in place, on one device.

    Parameters
    ----------
    module
        The model; afterwards, it is on the CPU and in evaluation mode.
    tissue
        All cells.
    patches
        Patches of the training cells.
    config
        Settings of the training.
    rng
        Generator for the order of patches and the thinning; torch's seed is set by the caller.
    accelerator, devices
        Lightning's accelerator, and one device of this kind.
    peers
        Processes that train together. Each process only fits the neighbor weights of its own patches.
    show_progress_bar
        Whether to show a progress bar.

    Returns
    -------
    History, one value per epoch: `epoch` (int64), `elbo` (nats per cell, with the KL weight at that time) and
    `learning_rate` (float64).
    """
    batch_size = batch_size_of(config, len(patches.order))
    stream = PatchStream(
        tissue,
        patches,
        batch_size=batch_size,
        thin_counts=config.thin_counts,
        thin_foreign=config.thin_foreign,
        rng=rng,
        peers=peers,
    )
    n_steps = len(stream)
    window = math.ceil(_WINDOW_STEPS / n_steps)
    min_epochs = max(
        math.ceil(config.min_steps / n_steps),
        # The ELBO falls while the weight of the divergence grows, so both windows come after the warm-up.
        math.ceil(config.kl_warmup_steps / n_steps) + 2 * window,
        # Each of the small minibatches of small tissues is less informative.
        min(max(_MIN_EPOCHS, math.ceil(_FEWEST_CELLS_SEEN / len(patches.order))), config.epoch_limit // 2),
    )
    schedule = DecayWhenFlat(config.max_epochs, config.epoch_limit, min_epochs=min_epochs, window=window)
    if config.checkpoint_dir is not None and Path(config.checkpoint_dir).is_file():
        raise NotADirectoryError(f"checkpoint_dir={config.checkpoint_dir!r} is a file: name a folder.")
    fingerprint = "" if config.checkpoint_dir is None else _fingerprint(module, tissue, config)
    loop = _Loop(module, config, schedule, stream, fingerprint, peers)
    callbacks: list[Callback] = [_ProgressBar(schedule)] if show_progress_bar else []
    resume = None
    if config.checkpoint_dir is not None:
        callbacks.append(
            ModelCheckpoint(config.checkpoint_dir, filename=_CHECKPOINT, save_top_k=1, enable_version_counter=False)
        )
        resume = Path(config.checkpoint_dir) / f"{_CHECKPOINT}.ckpt"
        if resume.exists():
            # Load the history before the trainer gets its number of epochs; none are left if the training had finished.
            _take_up(loop, resume)
    with _quiet_lightning(), TemporaryDirectory(prefix="resolvi-") as nowhere:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            max_epochs=schedule.n_epochs,
            callbacks=callbacks,
            enable_checkpointing=config.checkpoint_dir is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            use_distributed_sampler=False,
            # In a Slurm job, Lightning would take the number of processes from its variables, requeue the job on a
            # signal and resume from any checkpoint that it finds in the working directory, whatever its data.
            plugins=[LightningEnvironment()],
            default_root_dir=nowhere,
        )
        try:
            with _interruptible():
                trainer.fit(
                    loop,
                    DataLoader(stream, batch_size=None),
                    ckpt_path=str(resume) if resume is not None and resume.exists() else None,
                    weights_only=True,
                )
        finally:
            # Lightning's objects refer to each other, and would keep large arrays alive until garbage collection.
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
            stream.close()
    module.to("cpu").eval()
    return {
        "epoch": np.arange(1, len(schedule.elbo) + 1),
        "elbo": np.array(schedule.elbo),
        "learning_rate": np.array(loop.learning_rate),
    }


def _fingerprint(module: ResolviModule, tissue: Tissue, config: TrainingConfig) -> str:
    """Return a digest of everything that a training must share with one that it resumes, which is all but its length.

    The initial parameters are represented by the seed or, for a query, by its reference, because the bits of random
    numbers depend on the kind of processor.
    """
    learned = [(name, parameter.requires_grad) for name, parameter in module.named_parameters()]
    settings = replace(config, **{name: getattr(TrainingConfig, name) for name in _LENGTH})
    model = (module.config, module.data.n_labels, module.known_rows, module.origin, learned)
    digest = hashlib.sha256(repr((model, settings, torch.initial_seed())).encode())
    parts = {**vars(tissue), "counts": tissue.counts.data, "gene": tissue.counts.indices, "rows": tissue.counts.indptr}
    for name, array in parts.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _take_up(loop: _Loop, path: Path) -> None:
    """Load the history so far into the loop; raise unless the checkpoint is of the same training and not longer."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # anything may be raised, depending on what the file holds
        raise ValueError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); it may have been cut off when it was "
            "written or copied. Delete it to train from the start, or choose another `checkpoint_dir`."
        ) from error
    if checkpoint.get("fingerprint") != loop.fingerprint:
        raise ValueError(
            f"The checkpoint {path} is of another training: with other data, other settings of the model or of the "
            "training, another seed (`rng=`) or, for a query, another reference. Choose another "
            "`checkpoint_dir`, or delete it to train from the start."
        )
    loop.on_load_checkpoint(checkpoint)
    done, wanted = len(loop.schedule.elbo), loop.schedule.n_epochs
    if done > wanted:
        raise ValueError(
            f"The checkpoint {path} has {done} epochs, but the training is to have {wanted}. Request more epochs, "
            "choose another `checkpoint_dir`, or delete it."
        )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Keep Ctrl-C a KeyboardInterrupt, and a termination a failure.

    Lightning would end the process for either, ignoring further interrupts, and with the status of a success.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        if end.code is None:  # SIGTERM
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning, which announces devices and recommends data-loader workers, which would slow it down."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
