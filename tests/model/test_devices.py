"""Training by several processes is that by one: the same steps, with the work divided."""

import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist

from resolvi_sd._model import TrainingConfig, devices, extend_module, train_on_devices
from resolvi_sd._model.loader import PatchStream
from resolvi_sd._model.peers import ALONE, Peers
from resolvi_sd._tiles import cut_patches
from tests.model._tissues import small_module, small_tissue

TRAINING = TrainingConfig(max_epochs=6, batch_size=100, patch_size=10, kl_warmup_steps=10)


def prepared(**settings):
    tissue, coordinates = small_tissue(n_cells=400, **settings)
    patches = cut_patches(coordinates, tissue.batch, patch_size=TRAINING.patch_size, include=tissue.molecules > 0)
    return tissue, patches, small_module(tissue)


def fit(module, tissue, patches, *, number, training=TRAINING, accelerator="cpu"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train_on_devices(
            module, tissue, patches, training, rng=np.random.default_rng(0), accelerator=accelerator, devices=number,
            show_progress_bar=False,
        )  # fmt: skip


def test_gradients_are_those_of_the_cells_of_all_processes(monkeypatch):
    """A mean over 3 and one over 7 cells, against the mean over all 10; what is not used counts as zero."""
    cells = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))

    def gradients(part):
        weight, unused = torch.ones(4, requires_grad=True), torch.ones(2, 3, requires_grad=True)
        (part @ weight).square().mean().backward()
        return weight, unused

    sent = {}

    def all_reduce(flat):
        sent[len(sent)] = flat.clone()
        flat += other

    parameters = gradients(cells[3:])
    monkeypatch.setattr(dist, "all_reduce", lambda flat: sent.update(there=flat.clone()))
    Peers(1, 2).average_gradients(parameters, 7)
    other = sent["there"]
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    weight, unused = gradients(cells[:3])
    Peers(0, 2).average_gradients([weight, unused], 3)
    whole, _ = gradients(cells)
    torch.testing.assert_close(weight.grad, whole.grad)
    assert unused.grad.shape == (2, 3) and not unused.grad.any()


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda flat: pytest.fail("sent"))
    weight = torch.ones(3, requires_grad=True)
    weight.sum().backward()
    ALONE.average_gradients([weight], 5)
    assert (weight.grad == 1).all() and ALONE.totals(1.0, 2.0, device=torch.device("cpu")) == [1.0, 2.0]


@pytest.mark.parametrize("number", [2, 3])
def test_the_processes_see_every_cell_once_in_as_many_steps(number):
    tissue, patches, _ = prepared()
    streams = [
        PatchStream(tissue, patches, batch_size=100, thin_counts=True, thin_foreign=0.5, rng=np.random.default_rng(r),
                    peers=Peers(r, number))
        for r in range(number)
    ]  # fmt: skip
    minibatches = [list(stream) for stream in streams]
    assert {len(found) for found in minibatches} == {len(streams[0])}
    core = np.concatenate([m.cells[: m.n_core].numpy() for found in minibatches for m in found])
    np.testing.assert_array_equal(np.sort(core), np.flatnonzero(tissue.molecules > 0))


def test_two_processes_train_as_one_does():
    tissue, patches, module = prepared()
    _, _, alone = prepared()
    before = alone.neighbor_logits.weight.detach().clone()
    together, expected = fit(module, tissue, patches, number=2), fit(alone, tissue, patches, number=1)

    np.testing.assert_array_equal(together["epoch"], expected["epoch"])
    np.testing.assert_allclose(together["learning_rate"], expected["learning_rate"])
    rise = expected["elbo"][-1] - expected["elbo"][0]
    np.testing.assert_allclose(together["elbo"], expected["elbo"], atol=0.15 * rise)
    assert together["elbo"][-1] - together["elbo"][0] > 0.8 * rise
    # The weights of the cells of both processes are there.
    changed = (module.neighbor_logits.weight != before).any(1).numpy()
    some = (tissue.mask.sum(1) > 1) & (tissue.molecules > 0)
    assert changed[some].all() and not changed[tissue.molecules == 0].any()
    # What cells share has gone the same way, up to the noise of the draws.
    moved, also = (m.log_concentration.detach().numpy().ravel() for m in (alone, module))
    assert np.corrcoef(moved, also)[0, 1] > 0.9
    assert not module.training and not dist.is_initialized()


def test_what_a_query_keeps_is_kept_by_all_processes():
    tissue, patches, reference = prepared()
    reference.raise_skip_weights(1.0)
    query, coordinates = small_tissue(n_cells=400, n_batches=2, seed=1)
    pieces = cut_patches(coordinates, query.batch, patch_size=10, include=query.molecules > 0)
    module = extend_module(reference, small_module(query).data)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, query, pieces, number=2)
    kept = [name for name, value in reference.state_dict().items() if value.shape == start[name].shape]
    for name in set(kept) - {"neighbor_logits.weight"}:
        assert torch.equal(module.state_dict()[name], start[name]), name
    assert "decoder.rate.weight" in kept
    grown = module.background_logits
    assert torch.equal(grown[0], start["background_logits"][0])
    assert not torch.equal(grown[1], start["background_logits"][1])


def test_an_error_of_a_process_is_raised():
    tissue, patches, module = prepared()
    with torch.no_grad():
        module.decoder.rate.weight.fill_(torch.nan)
    with pytest.raises(Exception, match="The ELBO became nan in epoch 1"):
        fit(module, tissue, patches, number=2)


def test_settings_of_several_devices_that_do_not_work_are_refused(monkeypatch, tmp_path):
    tissue, patches, module = prepared()
    with pytest.raises(NotImplementedError, match="write no checkpoints"):
        fit(module, tissue, patches, number=2, training=TrainingConfig(checkpoint_dir=str(tmp_path)))
    for numbers in ([0, 1], [1]):
        with pytest.raises(ValueError, match=r"devices=\[.*\]: for the CPU, give a number of processes"):
            fit(module, tissue, patches, number=numbers)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.backends.mps, "is_available", lambda: True)
        elsewhere.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(NotImplementedError, match="require the accelerator 'cpu' or 'cuda', not 'mps'"):
            fit(module, tissue, patches, number=2, accelerator="gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="accelerator='mps' is not available on this machine. Available: 'auto', 'cpu"):
        fit(module, tissue, patches, number=1, accelerator="mps")
    with pytest.raises(ValueError, match="devices=0: at least one device is needed"):
        fit(module, tissue, patches, number=0)
    with pytest.raises(ValueError, match="devices='two' is not known"):
        fit(module, tissue, patches, number="two")
    with pytest.raises(TypeError, match="must be 'auto', a number, or a list of numbers, not 2.0"):
        fit(module, tissue, patches, number=2.0)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match='if __name__ == "__main__"'):
        fit(module, tissue, patches, number=2)


@pytest.mark.parametrize(
    ("given", "accelerator", "there", "expected"),
    [
        ("auto", "auto", 4, [1]),
        ("3", "cpu", 0, [1, 1, 1]),
        (-1, "cpu", 0, [1]),
        (-1, "auto", 2, [[0], [1]]),
        ([0], "cuda", 2, [[0]]),
        ([-1], "cuda", 2, [[0], [1]]),
        (np.int64(2), "cpu", 0, [1, 1]),
        ([1, 3], "gpu", 4, [[1], [3]]),
        (2, "gpu", 4, [[0], [1]]),
    ],
)
def test_devices_are_chosen_as_in_lightning(monkeypatch, given, accelerator, there, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert devices._choose(accelerator, given) == expected


def test_cuda_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given in (3, [0, 2], [1, 1]):
        with pytest.raises(ValueError, match="there are 2 CUDA devices; name each only once"):
            devices._choose("cuda", given)


def test_too_few_patches_for_the_devices(monkeypatch):
    monkeypatch.setattr(devices, "_save_data", lambda *arguments: pytest.fail("too late"))
    tissue, patches, module = prepared()
    with pytest.raises(ValueError, match=r"patches of tissue are too few for 60 devices.*TrainingConfig"):
        fit(module, tissue, patches, number=60, training=TrainingConfig(batch_size=10))


def test_a_likelihood_without_overdispersion_trains_on_two_devices_too():
    tissue, coordinates = small_tissue(n_cells=400)
    patches = cut_patches(coordinates, tissue.batch, patch_size=10, include=tissue.molecules > 0)
    module = small_module(tissue, likelihood="poisson")
    history = fit(module, tissue, patches, number=2)
    assert history["elbo"][-1] > history["elbo"][0]


def test_what_ends_the_wait_ends_the_processes(monkeypatch):
    class Process:
        def __init__(self):
            self.calls = []

        def kill(self):
            self.calls.append("kill")

        def join(self):
            self.calls.append("join")

    class Context:
        processes = (Process(), Process())

        def join(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(devices, "spawn", lambda *arguments, **settings: Context())
    with pytest.raises(KeyboardInterrupt):
        devices._run((), 2)
    assert [process.calls for process in Context.processes] == [["kill", "join"]] * 2


def test_the_files_of_the_processes_are_deleted(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tissue, patches, module = prepared()
    fit(module, tissue, patches, number=2, training=TrainingConfig(max_epochs=1, batch_size=100, patch_size=10))
    assert not any(tmp_path.iterdir())
