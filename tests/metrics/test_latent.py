"""Quality of a latent space: cases by hand, brute force, and what mixing means."""

import numpy as np
import pandas as pd
import pytest

from resolvi_sd.metrics import latent_quality


def test_by_hand():
    """Points on a line, two neighbors each."""
    latent = np.array([[0.0], [1], [2.5], [4.5], [10], [11], [12.5]])
    labels = ["a", "a", "b", "a", "b", "b", "b"]
    # Neighbors: 0: 1 a, 2.5 b (tied: a); 1: 0 a, 2.5 b (a); 2.5: 1 a, 4.5 a (a, wrong); 4.5: 2.5 b, 1 a (a);
    # 10: 11 and 12.5 (b); 11: 10 and 12.5 (b); 12.5: 11 and 10 (b).
    result = latent_quality(latent, labels, n_neighbors=2)
    assert result.knn_accuracy == pytest.approx(6 / 7)
    assert result.knn_accuracy_macro == pytest.approx((1 + 3 / 4) / 2)
    assert np.isnan(result.batch_mixing)
    assert result.n_cells == 7


def test_silhouette_by_hand():
    # Own distance 1, other 10 and 11 or 9 and 10 on average: (10.5 - 1) / 10.5 at the ends, (9.5 - 1) / 9.5 inside.
    result = latent_quality(np.array([[0.0], [1], [10], [11]]), list("aabb"), n_neighbors=1)
    assert result.silhouette == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)


def test_mixing_by_hand():
    """Batches x and y of one label, 1 neighbor: of 4 cells, 2 have one of the other batch; expected 2 / 3 each."""
    latent = np.array([[0.0], [1], [10], [11.5], [30], [31]])
    batch = ["x", "y", "x", "x", "y", "y"]
    result = latent_quality(latent, list("aaaabb"), batch, n_neighbors=1)
    # Of label a: 0-1 differ, 10-11.5 do not. x has one other batch among three others (1/3), y has three (1).
    # Label b is of one batch: nothing observed, nothing expected.
    assert result.batch_mixing == pytest.approx(2 / (3 * (1 / 3) + 1))


def test_against_brute_force():
    rng = np.random.default_rng(0)
    z, labels, batch = rng.normal(size=(300, 4)), rng.choice(list("abc"), 300), rng.choice(list("xy"), 300)
    z[:, 0] += 2 * (labels == "a")
    z[:, 1] += batch == "x"
    distance = np.linalg.norm(z[:, None] - z[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    right, other, expected = [], [], []
    for i in range(300):
        votes = labels[np.argsort(distance[i])[:7]].tolist()
        right.append(max("abc", key=votes.count) == labels[i])
        same = np.flatnonzero((labels == labels[i]) & (np.arange(300) != i))
        nearest = same[np.argsort(distance[i, same])[:7]]
        other.append((batch[nearest] != batch[i]).mean())
        expected.append((batch[same] != batch[i]).mean())
    result = latent_quality(z, labels, batch, n_neighbors=7)
    assert result.knn_accuracy == pytest.approx(np.mean(right))
    assert result.batch_mixing == pytest.approx(np.sum(other) / np.sum(expected))


def test_coincident_cells_are_not_their_own_neighbors():
    """Five cells in one place, each alone with its label: leaving itself out, none can be right."""
    result = latent_quality(np.zeros((5, 2)), list("abcde"), n_neighbors=4)
    assert result.knn_accuracy == 0
    assert np.isnan(result.silhouette)


def test_mixed_and_separate_batches():
    rng = np.random.default_rng(1)
    z, batch = rng.normal(size=(2000, 3)), rng.choice(list("xy"), 2000, p=[0.3, 0.7])
    # Labels made of the batches in different parts: mixing is within labels.
    labels = np.where(rng.random(2000) < np.where(batch == "x", 0.8, 0.3), "a", "b")
    z[:, 0] += 20 * (labels == "a")
    assert latent_quality(z, labels, batch).batch_mixing == pytest.approx(1, abs=0.03)
    assert latent_quality(z + 100 * (batch == "x")[:, None], labels, batch).batch_mixing == 0


def test_drawn_cells_are_sought_among_all():
    rng = np.random.default_rng(2)
    z, labels, batch = rng.normal(size=(3000, 2)), rng.choice(list("ab"), 3000), rng.choice(list("xy"), 3000)
    z[:, 0] += 3 * (labels == "a")
    whole = latent_quality(z, labels, batch)
    part = latent_quality(z, labels, batch, max_cells=800, rng=0)
    assert part == latent_quality(z, labels, batch, max_cells=800, rng=0)
    assert part.n_cells == 800
    # Binomial standard error of the accuracy, below sqrt(0.25 / 800) = 0.018.
    assert part.knn_accuracy == pytest.approx(whole.knn_accuracy, abs=0.05)
    assert part.silhouette == pytest.approx(whole.silhouette, abs=0.05)
    assert part.batch_mixing == pytest.approx(1, abs=0.1)


def test_cells_without_a_label_are_left_out():
    latent = np.array([[0.0], [1], [10], [11], [0.4]])
    assert latent_quality(latent, ["a", "a", "b", "b", None], n_neighbors=1) == pytest.approx(
        latent_quality(latent[:4], ["a", "a", "b", "b"], n_neighbors=1), nan_ok=True
    )


def test_bad_input_is_told_what_to_do():
    z, labels = np.random.default_rng(0).normal(size=(6, 2)), list("aabbab")
    with pytest.raises(ValueError, match="1 different labels"):
        latent_quality(z, ["a"] * 6)
    with pytest.raises(ValueError, match="`batch` has 1 different labels"):
        latent_quality(z, labels, ["x"] * 6)
    with pytest.raises(ValueError, match="2 of 6 cells have no batch"):
        latent_quality(z, labels, ["x", "y", None, None, "x", "y"])
    with pytest.raises(ValueError, match="`labels` has 3 entries"):
        latent_quality(z, labels[:3])
    with pytest.raises(ValueError, match="NaN or infinite for 1 of 6"):
        latent_quality(np.where(np.arange(12).reshape(6, 2) == 3, np.nan, z), labels)
    with pytest.raises(ValueError, match="cells × dimensions"):
        latent_quality(z[:, 0], labels)
    with pytest.raises(ValueError, match="n_neighbors"):
        latent_quality(z, labels, n_neighbors=0)


@pytest.mark.parametrize(
    "kind", ["float16", "float32", "Float32", "Int8", "datetime64[ns]", "category of float32", "float64"]
)
def test_labels_are_the_same_whatever_holds_them(kind):
    """Those of single precision had other names than values, and were taken for one."""
    number = np.arange(60) % 3
    z = np.random.default_rng(0).normal(size=(60, 2)) + 3 * number[:, None]
    as_text = pd.Series(number.astype(str)).mask(np.arange(60) % 10 == 0)
    if kind == "datetime64[ns]":
        held = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"]).to_numpy()[number])
    else:
        values = number if kind == "Int8" else (number * 0.1).astype(np.float32)
        held = pd.Series(values).astype(kind.replace("category of float32", "category"))
    found = latent_quality(z, held.mask(np.arange(60) % 10 == 0), n_neighbors=5)
    assert found == pytest.approx(latent_quality(z, as_text, n_neighbors=5), nan_ok=True)
