"""Profiles: simulated ones look like a panel, given ones are averages of the reference."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from resolvi_sd.datasets import simulate_tissue
from resolvi_sd.datasets._profiles import exclusive_type, reference_profiles, simulate_profiles


@pytest.fixture
def reference() -> ad.AnnData:
    """Three B cells, one T cell, a cell without label and one without counts, four genes."""
    counts = np.array([[2, 0, 2, 0], [0, 0, 10, 0], [5, 0, 5, 0], [0, 3, 1, 0], [9, 9, 9, 9], [0, 0, 0, 0]])
    labels = ["B", "B", "B", "T", None, "T"]
    obs = pd.DataFrame({"cell_type": labels}, index=pd.Index([f"c{i}" for i in range(6)]))
    var = pd.DataFrame(index=pd.Index(["MS4A1", "CD3E", "ACTB", "none"]))
    return ad.AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=obs, var=var)


def _from(
    reference: ad.AnnData, n_genes: int | None = None, n_rare: int = 0
) -> tuple[list[str], list[str], np.ndarray]:
    profiles = reference_profiles(
        reference, "cell_type", n_genes=n_genes, n_rare=n_rare, gradient=0.0, rng=np.random.default_rng(0)
    )
    return profiles.types, profiles.genes, profiles.expression


def test_reference_profiles_are_means_of_scaled_cells(reference: ad.AnnData) -> None:
    types, genes, expression = _from(reference)
    assert types == ["B", "T"]
    assert genes == ["MS4A1", "CD3E", "ACTB", "none"]
    np.testing.assert_allclose(expression, [[1 / 3, 0, 2 / 3, 0], [0, 3 / 4, 1 / 4, 0]])


def test_cells_of_a_reference_may_share_a_name(reference: ad.AnnData) -> None:
    expected = _from(reference)[2]
    reference.obs_names = ["c"] * 6
    np.testing.assert_array_equal(_from(reference)[2], expected)


def test_fewer_genes_are_those_that_differ(reference: ad.AnnData) -> None:
    _, genes, expression = _from(reference, n_genes=2)
    assert genes == ["CD3E", "ACTB"]
    np.testing.assert_allclose(expression, [[0, 1], [3 / 4, 1 / 4]])


def test_tissue_from_a_reference_has_its_types_and_genes(reference: ad.AnnData) -> None:
    table = simulate_tissue(
        300, profiles=reference, profiles_labels_key="cell_type", n_rare=0, gradient=0.0, transcripts=False
    ).tables["table"]
    assert list(table.var_names) == list(reference.var_names)
    assert set(table.obs["cell_type"]) == {"B", "T"}
    b_cell = int(np.flatnonzero(table.obs["cell_type"] == "B")[0])
    np.testing.assert_allclose(table.layers["true_profile"][b_cell], [1 / 3, 0, 2 / 3, 0], rtol=1e-6)
    own = table.layers["true_own"][np.flatnonzero(table.obs["cell_type"] == "B")]
    assert own[:, [1, 3]].sum() == 0, "B cells make no molecules of genes that they do not express"
    assert dict(table.var["marker_of"]) == {"MS4A1": "B", "CD3E": "T", "ACTB": "", "none": ""}


def test_reference_is_left_alone(reference: ad.AnnData) -> None:
    before = reference.copy()
    _from(reference, n_genes=2)
    assert (reference.X != before.X).nnz == 0
    assert reference.obs.equals(before.obs)


def test_simulated_panel_has_markers_shared_genes_and_rare_types() -> None:
    profiles = simulate_profiles(10, 400, n_rare=2, gradient=0.5, rng=np.random.default_rng(1))
    np.testing.assert_allclose(profiles.expression.sum(axis=1), 1.0)
    assert profiles.frequencies.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(profiles.frequencies[-2:], 0.01)
    assert (profiles.frequencies[:-2] > 0.03).all()
    exclusive = exclusive_type(profiles)
    assert 0.03 < (exclusive >= 0).mean() < 0.4
    distance = 0.5 * np.abs(profiles.expression[:, None] - profiles.expression[None]).sum(axis=2)
    assert 0.5 < distance[np.triu_indices(10, 1)].mean() < 0.75
    # Types of a lineage are nearer to each other than to the others.
    lineage = np.arange(10) // 2
    same = (lineage[:, None] == lineage) & ~np.eye(10, dtype=bool)
    assert distance[same].mean() < 0.8 * distance[lineage[:, None] != lineage].mean()


def test_unusable_references_are_refused(reference: ad.AnnData) -> None:
    with pytest.raises(TypeError, match="AnnData, not dict"):
        simulate_tissue(50, profiles={}, profiles_labels_key="cell_type")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`profiles_labels_key`.*cell_type"):
        simulate_tissue(50, profiles=reference)
    with pytest.raises(KeyError, match=r"'label' not found.*cell_type"):
        simulate_tissue(50, profiles=reference, profiles_labels_key="label")
    with pytest.raises(ValueError, match="has 4 genes"):
        simulate_tissue(50, 5, profiles=reference, profiles_labels_key="cell_type")
    with pytest.raises(ValueError, match="has 2 types"):
        simulate_tissue(50, profiles=reference, profiles_labels_key="cell_type", n_rare=2)
    with pytest.raises(ValueError, match="whose labels are the types"):
        simulate_tissue(50, n_types=2, profiles=reference, profiles_labels_key="cell_type")
    with pytest.raises(ValueError, match="there are no `profiles`"):
        simulate_tissue(50, profiles_labels_key="cell_type")


def test_references_without_counts_are_refused(reference: ad.AnnData) -> None:
    negative = reference.copy()
    negative.X = -negative.X
    with pytest.raises(ValueError, match="must hold counts"):
        simulate_tissue(50, profiles=negative, profiles_labels_key="cell_type")
    empty_type = reference[[0, 5]].copy()
    with pytest.raises(ValueError, match=r"without any counts: \['T'\]"):
        simulate_tissue(50, profiles=empty_type, profiles_labels_key="cell_type")
    with pytest.raises(ValueError, match=r"without counts in the 1 genes: \['B'\]"):
        simulate_tissue(50, 1, profiles=reference, profiles_labels_key="cell_type", n_rare=0)


def test_logarithms_are_noticed(reference: ad.AnnData) -> None:
    reference.X = reference.X.log1p()
    with pytest.warns(UserWarning, match=r"`profiles.X` has values that are not integers, such as .* logarithms"):
        _from(reference)


def test_a_reference_on_disk(reference: ad.AnnData, tmp_path: Path) -> None:
    expected = _from(reference)[2]
    reference.write_h5ad(tmp_path / "reference.h5ad")
    np.testing.assert_array_equal(_from(ad.read_h5ad(tmp_path / "reference.h5ad", backed="r"))[2], expected)
