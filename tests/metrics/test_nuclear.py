"""Nuclear molecules: a case by hand, the truth of a simulation, and a real store."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
import spatialdata as sd

import resolvi_sd as rsd
from resolvi_sd.metrics import depth_matched, nuclear_agreement, nuclear_counts


def test_by_hand():
    """Two cells of a, one of b, one of b without nuclear molecules, one without a label.

    a: the nuclei are (2, 0) each. Around them lie (2, 2) and (0, 1) of the raw counts. Of the second gene half and none
    is left:
    (2, 1) becomes (4/3, 2/3); nothing is left around the second nucleus, whose cell is not compared then: raw (2, 2),
    a distance of 1/2, and corrected 1/3.
    b: the nucleus is (0, 2), around it lie (1, 1), a distance of 1/2, and nothing of the first gene is left: 0. Of the
    second gene 1 is left of 3, so that 1 of 2 nuclear molecules is gone for certain.
    """
    counts = np.array([[4, 2, 0], [2, 1, 0], [1, 3, 0], [9, 9, 0], [9, 9, 0]])
    nuclear = np.array([[2, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 0], [9, 9, 0]])
    corrected = np.array([[4, 1, 0], [2, 0, 0], [0, 1, 0], [9, 9, 0], [9, 9, 0]], dtype=float)
    labels = pd.Categorical(["a", "a", "b", "b", None], categories=["b", "a"])
    for form in (np.asarray, sp.csr_matrix):
        found = nuclear_agreement(form(counts), form(corrected), form(nuclear), labels, rng=0)
        assert found.labels == ("b", "a")
        np.testing.assert_allclose(found.raw, [1 / 2, 1 / 2])
        np.testing.assert_allclose(found.corrected, [0, 1 / 3])
        np.testing.assert_allclose(found.removed, [1 / 2, 0])
        np.testing.assert_array_equal(found.n_cells, [1, 2])
        np.testing.assert_array_equal(found.n_compared, [1, 1])


def test_scaling_cells_down_gains_nothing(tissue):
    table = tissue.tables["table"]
    scale = np.random.default_rng(0).uniform(0.3, 1, table.n_obs)
    scaled = sp.csr_matrix(sp.diags(scale) @ table.X)
    found = nuclear_agreement(table.X, scaled, nuclear_counts(tissue), table.obs["cell_type"], rng=0)
    np.testing.assert_allclose(found.corrected, found.raw)


def test_a_label_without_nuclear_molecules_is_unknown():
    found = nuclear_agreement(np.array([[1, 2, 0]]), np.array([[1, 1, 0]]), np.zeros((1, 3), int), ["a"], rng=0)
    assert np.isnan(found.raw[0])
    assert np.isnan(found.removed[0])
    assert found.n_cells[0] == 0


@pytest.fixture(scope="module")
def tissue():
    """A tissue whose transcripts in the inner half of a cell are on its nucleus."""
    sdata = rsd.datasets.simulate_tissue(n_cells=1500, n_genes=60, n_types=4, rng=0)
    points, cells = sdata.points["transcripts"].compute(), sdata.shapes["cells"]
    place = cells.index.get_indexer(points["cell_id"].astype(object))
    center = shapely.get_coordinates(cells.centroid)[place]
    radius = np.sqrt(cells.area.to_numpy() / np.pi)[place]
    inside = np.hypot(*(points[["x", "y"]].to_numpy() - center).T) < 0.5 * radius
    sdata.points["transcripts"]["overlaps_nucleus"] = sdata.points["transcripts"].map_partitions(
        lambda frame: pd.Series(inside.astype("uint8"), index=frame.index), meta=("overlaps_nucleus", "uint8")
    )
    return sdata


def test_a_perfect_correction_brings_cells_nearer_to_their_nuclei(tissue):
    """What is own is known here. Distances are 0.052, 0.091, 0.063 at the same depth, and 0.036, 0.069, 0.045 then."""
    table = tissue.tables["table"]
    found = nuclear_agreement(table.X, table.layers["true_own"], nuclear_counts(tissue), table.obs["cell_type"], rng=0)
    large = found.n_cells >= 100
    assert large.sum() == 3
    assert (found.corrected[large] < 0.85 * found.matched[large]).all()
    # Fewer molecules alone change nothing but noise, and remove nuclear molecules as well.
    np.testing.assert_allclose(found.raw[large], found.matched[large], atol=0.01)
    nuclear, own = nuclear_counts(tissue), table.layers["true_own"].astype(np.int32)
    of_label = np.bincount(table.obs["cell_type"].cat.codes, np.asarray(nuclear.sum(axis=1)).ravel())
    foreign = (nuclear - nuclear.minimum(own)).sum() / nuclear.sum()
    assert np.average(found.removed, weights=of_label) == pytest.approx(foreign)


def test_counts_of_the_nuclei(tissue):
    table = tissue.tables["table"]
    nuclear = nuclear_counts(tissue)
    assert nuclear.shape == table.shape
    assert (nuclear > table.X).nnz == 0
    points = tissue.points["transcripts"].compute()
    chosen = points[(points["overlaps_nucleus"] == 1) & (points["cell_id"] != "")]
    counted = chosen.groupby([chosen["cell_id"].astype(object), chosen["gene"].astype(object)]).size()
    assert nuclear.sum() == counted.sum()
    for cell, gene in counted.index[::97]:
        row = np.flatnonzero(table.obs["cell_id"] == cell)[0]
        assert nuclear[row, table.var_names.get_loc(gene)] == counted[cell, gene]


def test_a_value_may_mark_the_nuclei(tissue):
    expected = nuclear_counts(tissue)
    points = tissue.points["transcripts"]
    column = points["overlaps_nucleus"].map({0: "Cytoplasm", 1: "Nuclear"}, meta=("overlaps_nucleus", "object"))
    tissue.points["transcripts"]["CellComp"] = column
    found = nuclear_counts(tissue, nucleus_key="CellComp", nucleus_value="Nuclear")
    assert (found != expected).nnz == 0 and expected.nnz
    with pytest.raises(ValueError, match=r"nucleus_key='CellComp' has values such as .*'Cytoplasm'.*nucleus_value="):
        nuclear_counts(tissue, nucleus_key="CellComp")


@pytest.mark.parametrize("kind", ["boolean", "Int8", "float64"])
def test_missing_values_are_on_no_nucleus(tissue, kind):
    expected = nuclear_counts(tissue)
    points = tissue.points["transcripts"]
    tissue.points["transcripts"]["maybe"] = points["overlaps_nucleus"].map_partitions(
        lambda column: column.astype(kind).mask(column == 0), meta=("maybe", kind)
    )
    assert tissue.points["transcripts"]["maybe"].compute().isna().any()
    assert (nuclear_counts(tissue, nucleus_key="maybe") != expected).nnz == 0


def test_errors_say_what_to_do(tissue):
    counts = np.array([[2, 1, 0]])
    with pytest.raises(ValueError, match=r"more molecules than `counts` in 1 entries.*quality_key"):
        nuclear_agreement(counts, counts, counts + [[1, 0, 0]], ["a"])
    with pytest.raises(ValueError, match=r"`corrected` has more molecules than `counts` in 1 entries"):
        nuclear_agreement(counts, counts + [[0, 1, 0]], counts, ["a"])
    with pytest.raises(ValueError, match=r"shapes differ.*nuclear \(1, 2\)"):
        nuclear_agreement(counts, counts, np.ones((1, 2), int), ["a"])
    with pytest.raises(ValueError, match="`nuclear` must be raw molecule counts"):
        nuclear_agreement(counts, counts, counts / 2, ["a"])
    with pytest.raises(KeyError, match="nucleus_key='nucleus'.*'overlaps_nucleus'"):
        nuclear_counts(tissue, nucleus_key="nucleus")
    with pytest.raises(KeyError, match="quality_key='qv'"):
        nuclear_counts(tissue, quality_key="qv")
    with pytest.raises(ValueError, match="`min_quality=30` needs a column of the points: name it with `quality_key=`"):
        nuclear_counts(tissue, min_quality=30)
    with pytest.raises(
        ValueError, match=r"No transcript.*'true_cell_id' has values such as.*the table's genes.*gene_key"
    ):
        nuclear_counts(tissue, gene_key="true_cell_id")
    with pytest.raises(ValueError, match=r"No transcript of 'transcripts' is on a nucleus.*'x' of at least inf"):
        nuclear_counts(tissue, quality_key="x", min_quality=np.inf)


def test_xenium(real_data):
    """The table has the transcripts of quality 20 and more: with them, nuclear molecules are a part of its counts."""
    sdata = sd.read_zarr(real_data("xenium_breast_mini.zarr"))
    table = sdata.tables["table"]
    # This table came without names of its genes: they are the targets in alphabetical order.
    targets = sdata.points["transcripts"]["feature_name"].compute().cat.categories
    table.var_names = sorted(name for name in targets if not name.startswith(("BLANK", "NegControl", "antisense")))
    nuclear = nuclear_counts(sdata, quality_key="qv")
    assert 0 < nuclear.sum() < table.X.sum()
    assert (nuclear > table.X).nnz == 0
    assert nuclear_counts(sdata).sum() > nuclear.sum()
    found = nuclear_agreement(table.X, table.X, nuclear, np.repeat("all", table.n_obs), rng=0)
    assert found.raw[0] == found.corrected[0] > 0
    assert found.removed[0] == 0


def test_in_situ_sequencing(real_data):
    """The nuclear molecules of a layer: against the definition, cell by cell; to keep these alone removes none."""
    table = ad.read_h5ad(real_data("iss_ca1.h5ad"))
    nuclear = table.layers["nucleus_counts"]
    size = pd.qcut(table.obs["area"], 3, labels=["small", "medium", "large"])
    matched = depth_matched(table.X, nuclear, rng=0)
    found = nuclear_agreement(table.X, nuclear, nuclear, size, rng=0)
    for label, distance in zip(found.labels, found.raw, strict=True):
        rows = (size == label).to_numpy()
        inside, raw = nuclear[rows].toarray(), table.X[rows].toarray()
        around = raw - inside
        left = [(around * layer[rows].toarray() / np.maximum(raw, 1)).sum(axis=1) > 0 for layer in (matched, nuclear)]
        both = (inside.sum(axis=1) > 0) & np.all(left, axis=0)
        shares = around[both] / around[both].sum(axis=1, keepdims=True)
        p, q = (inside[both].sum(axis=1) @ shares), inside[both].sum(axis=0)
        assert distance == pytest.approx(np.abs(p / p.sum() - q / q.sum()).sum() / 2, rel=1e-5)
    assert found.n_cells.sum() == (nuclear.sum(axis=1) > 0).sum()
    assert (found.removed == 0).all() and (found.removed_matched > 0).all()


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16", "uint32", "float32"])
def test_any_type_of_counts_will_do(dtype):
    rng = np.random.default_rng(0)
    counts = rng.poisson(30, (40, 3)).clip(0, 100)
    corrected, nuclear = rng.binomial(counts, 0.8), rng.binomial(counts, 0.5)
    labels = rng.choice(["a", "b"], 40)
    expected, found = (
        nuclear_agreement(*(m.astype(kind) for m in (counts, corrected, nuclear)), labels, rng=0)
        for kind in ("int64", dtype)
    )
    for name in ("raw", "corrected", "removed"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


@pytest.mark.parametrize(("quality", "counted"), [(19.99, False), (20.0, True)])
def test_the_least_quality_is_twenty(quality, counted):
    sdata = rsd.datasets.simulate_tissue(n_cells=50, n_genes=20, rng=0)
    points = sdata.points["transcripts"]
    points["overlaps_nucleus"], points["qv"] = 1, quality
    sdata.points["transcripts"] = points
    if counted:
        assert (nuclear_counts(sdata, quality_key="qv") != sdata["table"].X).nnz == 0
    else:
        with pytest.raises(ValueError):
            nuclear_counts(sdata, quality_key="qv")


def test_distances_are_between_the_same_cells():
    """The second cell has nothing left around its nucleus, and is compared in no layer."""
    counts, nuclear = np.array([[3, 0], [1, 1]]), np.array([[1, 0], [1, 0]])
    found = nuclear_agreement(counts, np.array([[3.0, 0], [1, 0]]), nuclear, ["a", "a"], rng=0)
    assert (found.n_cells[0], found.n_compared[0]) == (2, 1)
    assert found.raw[0] == found.corrected[0] == 0
    every = nuclear_agreement(counts, counts, nuclear, ["a", "a"], rng=0)
    assert every.n_compared[0] == 2
    assert every.raw[0] == every.corrected[0] == 0.5
