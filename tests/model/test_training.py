"""Training: the ELBO rises, only the cells of a step are updated, and it stops when it should."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from resolvi_sd._model import TrainingConfig
from resolvi_sd._model.elbo import negative_elbo
from resolvi_sd._model.loader import PatchStream
from resolvi_sd._model.schedule import DecayWhenFlat
from resolvi_sd._model.training import train
from resolvi_sd._tiles import cut_patches
from tests.model._tissues import small_module, small_tissue


def run(config, *, seed=0, tissue_and_coordinates=None, **kwargs):
    tissue, coordinates = tissue_and_coordinates or small_tissue(n_cells=200)
    module = small_module(tissue)
    patches = cut_patches(coordinates, tissue.batch, patch_size=config.patch_size or 20, include=tissue.molecules > 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        history = train(
            module, tissue, patches, config, rng=np.random.default_rng(seed), show_progress_bar=False, **kwargs
        )
    return module, history


def test_elbo_rises_and_history_is_whole():
    _, history = run(TrainingConfig(max_epochs=8, batch_size=50, patch_size=20, kl_warmup_steps=0))
    assert list(history["epoch"]) == list(range(1, 9))
    assert history["elbo"][-1] > history["elbo"][0] + 1
    assert history["learning_rate"][0] == pytest.approx(1e-2)
    assert history["learning_rate"][-1] < 5e-3


def test_the_linear_maps_come_in_over_the_second_third_of_the_warm_up(monkeypatch):
    weights = []

    def recorded(module, minibatch, kl_weight):
        weights.append(float(module.decoder.skip_weight))
        assert module.latent_encoder.skip_weight == module.decoder.skip_weight
        return negative_elbo(module, minibatch, kl_weight)

    monkeypatch.setattr("resolvi_sd._model.training.negative_elbo", recorded)
    module, _ = run(TrainingConfig(max_epochs=15, batch_size=50, patch_size=20, kl_warmup_steps=30))
    steps = len(weights)
    assert steps > 50
    np.testing.assert_allclose(weights, np.clip(3 * np.arange(1, steps + 1) / 30 - 1, 0, 1), atol=1e-6)
    assert module.latent_encoder.skip.weight.abs().max() > 0
    # Those that were trained already, as a reference's, stay.
    module.raise_skip_weights(0.0)
    assert module.decoder.skip_weight == module.latent_encoder.skip_weight == 1


def test_same_seed_same_parameters():
    config = TrainingConfig(max_epochs=3, batch_size=50, patch_size=20)
    first, second, other = (run(config, seed=seed)[0] for seed in (1, 1, 2))
    for name, parameter in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], parameter, rtol=0, atol=0, msg=name)
    assert not torch.equal(other.decoder.rate.weight, first.decoder.rate.weight)


def test_cells_without_counts_are_not_trained_on():
    tissue, coordinates = small_tissue(n_cells=200)
    assert tissue.molecules[0] == 0
    before = small_module(tissue).neighbor_logits.weight
    module, _ = run(
        TrainingConfig(max_epochs=2, batch_size=50, patch_size=20), tissue_and_coordinates=(tissue, coordinates)
    )
    changed = (module.neighbor_logits.weight != before).any(1).numpy()
    assert not changed[0]
    assert changed[(tissue.mask.sum(1) > 1) & (tissue.molecules > 0)].all()


def test_a_run_that_was_stopped_resumes_where_it_was(tmp_path):
    folder = str(tmp_path)
    run(TrainingConfig(max_epochs=2, batch_size=50, patch_size=20, checkpoint_dir=folder))
    _, history = run(TrainingConfig(max_epochs=5, batch_size=50, patch_size=20, checkpoint_dir=folder))
    _, whole = run(TrainingConfig(max_epochs=5, batch_size=50, patch_size=20))
    assert list(history["epoch"]) == [1, 2, 3, 4, 5]
    # The epochs after the break go on from the ELBO that was reached, not from the start.
    assert history["elbo"][2] > whole["elbo"][0] + 0.5


def test_a_checkpoint_of_other_data_or_settings_is_refused(tmp_path):
    training = TrainingConfig(max_epochs=1, batch_size=50, patch_size=20, checkpoint_dir=str(tmp_path))
    run(training)
    for other in (small_tissue(n_cells=200, seed=1), small_tissue(n_cells=150)):
        with pytest.raises(ValueError, match=r"resolvi.ckpt is of another training"):
            run(training, tissue_and_coordinates=other)
    with pytest.raises(ValueError, match=r"training, another seed"):
        run(training, seed=7)
    with pytest.raises(ValueError, match=r"other settings"):
        run(replace(training, lr=1e-3))
    run(replace(training, max_epochs=3))
    with pytest.raises(ValueError, match=r"has 3 epochs, but the training is to have 2"):
        run(replace(training, max_epochs=2))


def test_a_training_that_had_come_to_its_end_does_not_go_on(tmp_path):
    config = TrainingConfig(epoch_limit=6, batch_size=50, patch_size=20, checkpoint_dir=str(tmp_path))
    module, history = run(config)
    again, same = run(config)
    np.testing.assert_array_equal(same["elbo"], history["elbo"])
    for name, parameter in module.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], parameter, rtol=0, atol=0, msg=name)


def test_a_training_that_had_reached_its_limit_goes_on_with_a_higher_one(tmp_path):
    config = TrainingConfig(epoch_limit=6, batch_size=50, patch_size=20, checkpoint_dir=str(tmp_path))
    _, history = run(config)
    _, longer = run(replace(config, epoch_limit=30))
    assert len(longer["elbo"]) > 20
    np.testing.assert_array_equal(longer["elbo"][:6], history["elbo"])


def test_only_a_limit_is_forgotten():
    flat = [-100.0 - 50.0 * 0.5**epoch for epoch in range(40)]
    schedule = DecayWhenFlat(max_epochs=None, epoch_limit=1000, min_epochs=5, window=5)
    schedule.take_up(flat, 30)
    assert schedule.decay_from == 30
    steep = [float(epoch) for epoch in range(20)]
    schedule.take_up(steep, 14)
    assert schedule.decay_from is None and not schedule.finished
    schedule = DecayWhenFlat(max_epochs=None, epoch_limit=20, min_epochs=5, window=5)
    schedule.take_up(steep, 14)
    assert schedule.decay_from == 14 and schedule.finished


def test_checkpoints_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainingConfig(max_epochs=2, batch_size=50, patch_size=20, checkpoint_dir="~/checkpoints")
    _, history = run(config)
    assert (tmp_path / "checkpoints" / "resolvi.ckpt").exists()
    _, longer = run(replace(config, max_epochs=3))
    np.testing.assert_array_equal(longer["elbo"][:2], history["elbo"])
    with pytest.raises(ValueError, match="checkpoint_dir='s3://bucket/folder' is a URL: name a local folder"):
        TrainingConfig(checkpoint_dir="s3://bucket/folder")


@pytest.mark.parametrize("left", [0, 0.5, None])
def test_a_damaged_checkpoint_is_named(tmp_path, left):
    config = TrainingConfig(max_epochs=1, batch_size=50, patch_size=20, checkpoint_dir=str(tmp_path))
    run(config)
    path = tmp_path / "resolvi.ckpt"
    whole = path.read_bytes()
    path.write_bytes(b"something else" if left is None else whole[: int(left * len(whole))])
    with pytest.raises(ValueError, match=r"The checkpoint .*resolvi.ckpt cannot be read.* Delete it"):
        run(replace(config, max_epochs=2))


def stream_of(tissue, patches, *, batch_size=48, thin_counts=True, thin_foreign=0.5):
    settings = {"batch_size": batch_size, "thin_counts": thin_counts, "thin_foreign": thin_foreign}
    return PatchStream(tissue, patches, **settings, rng=np.random.default_rng(0))


def test_every_cell_is_in_one_minibatch_of_an_epoch():
    tissue, coordinates = small_tissue(n_cells=200)
    patches = cut_patches(coordinates, tissue.batch, patch_size=16, include=tissue.molecules > 0)
    stream = stream_of(tissue, patches)
    core = np.concatenate([b.cells[: b.n_core].numpy() for b in stream])
    np.testing.assert_array_equal(np.sort(core), np.flatnonzero(tissue.molecules > 0))


def test_a_given_number_of_epochs_is_kept():
    schedule = DecayWhenFlat(max_epochs=10, epoch_limit=100, min_epochs=1, window=5)
    for _ in range(10):
        assert not schedule.finished
        schedule.observe(-100.0)
    assert schedule.finished
    assert schedule.factor(6.9) == 1 and schedule.factor(8.5) == pytest.approx(0.5) and schedule.factor(10) == 0.02


def test_training_stops_when_the_elbo_is_flat_and_not_before():
    schedule = DecayWhenFlat(max_epochs=None, epoch_limit=1000, min_epochs=5, window=5)
    curve = -100 - 50 * np.exp(-np.arange(1000) / 10)
    for elbo in curve:
        schedule.observe(elbo)
        if schedule.finished:
            break
    done = len(schedule.elbo)
    # Gained in 5 epochs over gained so far is e^(-t/10)(e^(1/2) - 1) on average: 0.4 % at t of about 50.
    assert 40 < schedule.decay_from < 70
    assert done == schedule.decay_from + round(schedule.decay_from * 3 / 7)


def test_the_limit_holds_when_the_elbo_never_gets_flat():
    schedule = DecayWhenFlat(max_epochs=None, epoch_limit=30, min_epochs=5, window=5)
    for elbo in np.arange(100.0):
        schedule.observe(elbo)
        if schedule.finished:
            break
    assert len(schedule.elbo) == 30
    assert schedule.factor(29.9) < 0.1


@pytest.mark.parametrize(
    ("setting", "value"), [("max_epochs", 0), ("lr", -1.0), ("batch_size", 0), ("patch_size", 0), ("min_steps", -1)]
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"`{setting}` must be .* not {value}"):
        TrainingConfig(**{setting: value})


def test_an_interrupt_is_one_and_does_not_deafen(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("resolvi_sd._model.training.negative_elbo", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(TrainingConfig(max_epochs=2, batch_size=50, patch_size=20))
    assert signal.getsignal(signal.SIGINT) is handler


def moved_by_one_epoch(training=None, **config):
    """Largest change of each parameter in an epoch."""
    tissue, coordinates = small_tissue(n_cells=200)
    module = small_module(tissue, **config)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    patches = cut_patches(coordinates, tissue.batch, patch_size=16, include=tissue.molecules > 0)
    settings = TrainingConfig(**({"max_epochs": 1, "batch_size": 48, "patch_size": 16} | (training or {})))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train(module, tissue, patches, settings, rng=np.random.default_rng(0), show_progress_bar=False)
    return {name: float((value - before[name]).abs().max()) for name, value in module.state_dict().items()}


def test_each_learning_rate_is_of_its_parameters():
    moved = moved_by_one_epoch({"lr": 1e-6, "lr_cell": 0.1})
    assert moved["neighbor_logits.weight"] > 0.05 and moved["log_range"] < 1e-4
    moved = moved_by_one_epoch({"lr": 0.1, "lr_cell": 1e-6})
    assert moved["neighbor_logits.weight"] < 1e-4 and moved["log_range"] > 0.05


def test_the_prior_of_the_shares_is_learned_only_if_asked():
    fixed, learned = moved_by_one_epoch(adapt_share_prior=False), moved_by_one_epoch()
    for name in ("share_prior_logits", "share_prior_slopes"):
        assert fixed[name] == 0 and learned[name] > 0


def test_the_gradient_is_clipped(monkeypatch):
    norms, step = [], torch.optim.Adam.step

    def recorded(self, *args, **kwargs):
        result = step(self, *args, **kwargs)
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))))
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    moved_by_one_epoch({"gradient_clip": 1e-3})
    assert norms and max(norms) <= 1.01e-3


def test_the_divergence_is_warmed_up_over_at_most_three_fifths_of_the_training(monkeypatch):
    weights = []

    def recorded(module, minibatch, kl_weight):
        weights.append(kl_weight)
        return negative_elbo(module, minibatch, kl_weight)

    monkeypatch.setattr("resolvi_sd._model.training.negative_elbo", recorded)
    run(TrainingConfig(max_epochs=5, batch_size=50, patch_size=20, kl_warmup_steps=10**6))
    assert np.argmax(np.array(weights) >= 1) / len(weights) == pytest.approx(0.6, abs=0.1)


def test_counts_are_thinned_around_three_quarters_of_the_median(monkeypatch):
    tissue, coordinates = small_tissue(n_cells=3000)
    patches = cut_patches(coordinates, tissue.batch, patch_size=4, include=tissue.molecules > 0)
    sizes = []
    monkeypatch.setattr(
        "resolvi_sd._model.loader.cut_minibatch", lambda *args, thinned_size, **rest: sizes.append(thinned_size)
    )
    list(stream_of(tissue, patches, batch_size=4, thin_foreign=0.0))
    median = np.median(tissue.molecules[tissue.molecules > 0])
    sizes = np.array([size[0] for size in sizes])
    assert np.log(sizes / median).mean() == pytest.approx(-0.3, abs=0.07)


@pytest.mark.parametrize("thin_counts", [True, False])
def test_the_encoder_sees_only_what_was_found_to_be_own(thin_counts):
    tissue, coordinates = small_tissue(n_cells=300)
    patches = cut_patches(coordinates, tissue.batch, patch_size=16, include=tissue.molecules > 0)
    own_genes = np.arange(tissue.n_genes) % 3 > 0
    for share in (0, 0.5, 1):
        stream = stream_of(tissue, patches, thin_counts=thin_counts, thin_foreign=share)
        for minibatch in stream:
            # Nothing is known to be foreign before the first step.
            if not thin_counts:
                assert (minibatch.features.value > 0).all()
            stream.remember(minibatch, torch.from_numpy(own_genes[minibatch.counts.gene].astype(np.float32)))
        foreign_seen, cells = 0, 0
        for minibatch in stream:
            seen = minibatch.core_features.to_dense().numpy() > 0
            has_both = [(minibatch.counts.to_dense().numpy()[:, genes] > 0).any(1) for genes in (own_genes, ~own_genes)]
            both = np.logical_and(*has_both)
            cells, foreign_seen = cells + both.sum(), foreign_seen + seen[both][:, ~own_genes].any(1).sum()
            if not thin_counts:
                np.testing.assert_array_equal(seen[:, own_genes], minibatch.counts.to_dense().numpy()[:, own_genes] > 0)
        assert cells > 200
        if share == 1 or not thin_counts:
            assert foreign_seen / cells == pytest.approx(1 - share, abs=0.1)


def test_shares_are_remembered_by_entry():
    tissue, coordinates = small_tissue(n_cells=300)
    patches = cut_patches(coordinates, tissue.batch, patch_size=16, include=tissue.molecules > 0)
    stream = stream_of(tissue, patches, thin_foreign=1.0)
    rng = np.random.default_rng(1)
    share = sp.csr_matrix((rng.random(tissue.counts.nnz), tissue.counts.indices, tissue.counts.indptr))
    for minibatch in stream:
        core = minibatch.cells[: minibatch.n_core].numpy()
        stream.remember(minibatch, torch.from_numpy(share[core].data.astype(np.float32)))
    core = np.array([7, 3, 250, 11])
    kept = stream._kept(core, np.array([True, True, True, False]))
    expected = np.concatenate([share[core[:3]].data, np.ones(tissue.counts[core[3]].nnz)])
    np.testing.assert_allclose(kept, expected, atol=0.5 / 255 + 1e-6)


def test_a_slurm_job_is_no_reason_to_count_processes_or_to_resume(monkeypatch, tmp_path):
    """Lightning resumes from `hpc_ckpt_*.ckpt` of any training in the folder, if it sees Slurm's variables."""
    slurm = {"JOB_ID": "77", "JOB_NAME": "fit", "NTASKS": "4", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another training")
    _, history = run(TrainingConfig(max_epochs=2, batch_size=50, patch_size=20))
    assert len(history["elbo"]) == 2


def test_a_terminated_process_has_not_succeeded():
    code = """
import signal
import resolvi_sd as rsd
from resolvi_sd._model import training
objective = training.negative_elbo
def terminated(*arguments):
    signal.raise_signal(signal.SIGTERM)
    return objective(*arguments)
training.negative_elbo = terminated
tissue = rsd.datasets.simulate_tissue(n_cells=150, n_genes=20, rng=0, transcripts=False)
rsd.tl.fit(tissue, max_epochs=50, show_progress_bar=False)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 128 + signal.SIGTERM
