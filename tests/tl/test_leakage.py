"""Leakage between types adds up to the flow of the fit, and finds the genes that leaked."""

import numpy as np
import pandas as pd
import pytest

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}


def test_pairs_add_up_to_the_flow(fitted):
    table = fitted.tables["table"]
    rsd.tl.leakage(fitted, "cell_type", n_genes=1000, **QUIET)
    result = table.uns["resolvi_leakage"]
    codes = table.obs["cell_type"].cat.codes.to_numpy()
    names = table.obs["cell_type"].cat.categories
    flow = table.obsp["resolvi_flow"].tocoo()
    expected = np.zeros((len(names), len(names)))
    np.add.at(expected, (codes[flow.col], codes[flow.row]), flow.data)
    found = result["pairs"].pivot(index="source", columns="target", values="molecules").loc[names, names]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)
    # All genes were kept, so that they add up to the pairs.
    by_gene = result["genes"].groupby(["source", "target"], observed=False)["molecules"].sum()
    np.testing.assert_allclose(by_gene.to_numpy(), result["pairs"]["molecules"], rtol=1e-5, atol=1e-6)
    counted = table.X[codes == 2].sum()
    row = result["pairs"].query("source == @names[0] and target == @names[2]").iloc[0]
    assert row["fraction"] == pytest.approx(row["molecules"] / counted)
    assert row["per_cell"] == pytest.approx(row["molecules"] / (codes == 2).sum())


def test_leaked_genes_are_those_of_the_source():
    """What a type gave to another is, gene by gene, near what it really gave."""
    sdata = rsd.datasets.simulate_tissue(
        n_cells=1500, n_genes=60, n_types=4, n_rare=0, regime="xenium", rng=0, transcripts=False
    )
    rsd.tl.fit(sdata, **QUIET)
    result = rsd.tl.leakage(sdata, "cell_type", n_genes=60, copy=True, **QUIET)
    table = sdata.tables["table"]
    assert "resolvi_leakage" not in table.uns
    truth = table.obsp["true_flow"].tocoo()
    codes = table.obs["cell_type"].cat.codes.to_numpy()
    size = len(table.obs["cell_type"].cat.categories)
    expected = np.zeros((size, size))
    np.add.at(expected, (codes[truth.col], codes[truth.row]), truth.data)
    found = result["pairs"]["molecules"].to_numpy().reshape(size, size)
    between = ~np.eye(size, dtype=bool)
    assert np.corrcoef(found[between], expected[between])[0, 1] > 0.8
    # The most leaked genes into another type are genes that the source has more of than the target.
    own = pd.DataFrame(table.layers["true_own"].toarray(), columns=table.var_names).groupby(codes).mean()
    own = own.div(own.sum(axis=1), axis=0)
    other = result["genes"][result["genes"]["source"].astype(str) != result["genes"]["target"].astype(str)]
    top = other.groupby(["source", "target"], observed=True).head(5)
    ratio = [
        np.log(own.loc[s, g] + 1e-4) - np.log(own.loc[t, g] + 1e-4)
        for s, t, g in zip(top["source"].cat.codes, top["target"].cat.codes, top["gene"], strict=True)
    ]
    assert np.mean(np.array(ratio) > 0) > 0.8


def test_cells_without_a_type_are_left_out(fitted):
    table = fitted.tables["table"]
    whole = rsd.tl.leakage(fitted, "cell_type", copy=True, **QUIET)["pairs"]["molecules"].sum()
    table.obs["some"] = table.obs["cell_type"].where(np.arange(table.n_obs) % 2 == 0)
    assert 0 < rsd.tl.leakage(fitted, "some", copy=True, **QUIET)["pairs"]["molecules"].sum() < 0.6 * whole


def test_it_survives_a_store(fitted, tmp_path):
    import spatialdata as sd

    rsd.tl.leakage(fitted, "cell_type", **QUIET)
    table = fitted.tables["table"]
    fitted.write(tmp_path / "tissue.zarr")
    again = sd.read_zarr(tmp_path / "tissue.zarr").tables["table"].uns["resolvi_leakage"]
    pd.testing.assert_frame_equal(
        again["pairs"], table.uns["resolvi_leakage"]["pairs"], check_index_type=False, check_categorical=False
    )


def test_bad_input(fitted):
    with pytest.raises(KeyError, match=r"no predicted labels.*labels_key=\.\.\."):
        rsd.tl.leakage(fitted, **QUIET)
    with pytest.raises(KeyError, match="labels_key='type'"):
        rsd.tl.leakage(fitted, "type", **QUIET)
    fitted.tables["table"].obs["none"] = np.nan
    with pytest.raises(ValueError, match="No cell has a label"):
        rsd.tl.leakage(fitted, "none", **QUIET)
    assert "resolvi_leakage" not in fitted.tables["table"].uns


def test_cells_that_the_fit_took_for_unlabeled_have_no_type():
    sdata = rsd.datasets.simulate_tissue(
        n_cells=500, n_genes=40, n_types=4, n_rare=0, n_samples=2, rng=5, transcripts=False
    )
    table = sdata["table"]
    label = table.obs["cell_type"].astype(str).to_numpy().astype(object)
    known = np.random.default_rng(0).random(table.n_obs) < 0.5
    table.obs["label"], table.obs["missing"] = np.where(known, label, "unknown"), np.where(known, label, np.nan)
    quiet = {"show_progress_bar": False}
    rsd.tl.fit(sdata, labels_key="label", max_epochs=5, **quiet)
    for function, settings in (
        (rsd.tl.leakage, quiet),
        (rsd.tl.audit, quiet),
        (rsd.tl.niche_abundance, {}),
        (rsd.tl.differential_expression, {"group1": "type_0", "n_samples": 50, **quiet}),
        (rsd.tl.differential_niche_abundance, {"group1": "type_0", "n_samples": 50}),
        (rsd.tl.pseudobulk, {}),
    ):
        copy = {} if function is rsd.tl.pseudobulk else {"copy": True}
        by_label, by_missing = (function(sdata, key, **settings, **copy) for key in ("label", "missing"))
        for result in (by_label, by_missing):
            text = result.obs.to_string() if function is rsd.tl.pseudobulk else str(result)
            assert "unknown" not in text, function.__name__
        if isinstance(by_label, pd.DataFrame):
            numbers = [result.select_dtypes("number") for result in (by_label, by_missing)]
            pd.testing.assert_frame_equal(*numbers)


def test_fractions_of_genes_are_of_what_the_target_has(fitted):
    table = fitted.tables["table"]
    genes = rsd.tl.leakage(fitted, "cell_type", n_genes=5, copy=True, **QUIET)["genes"]
    counted = pd.DataFrame(table.X.toarray(), columns=table.var_names).groupby(table.obs["cell_type"].to_numpy()).sum()
    expected = [row.molecules / counted.loc[row.target, row.gene] for row in genes.itertuples()]
    np.testing.assert_allclose(genes["fraction"], expected, rtol=1e-4)
