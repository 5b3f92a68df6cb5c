"""The object API: the quick start as written, labels, persistence, transfer; the same numbers as `tl`."""

import json
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import resolvi_sd as rsd

QUICK = {"max_epochs": 3, "show_progress_bar": False}


@pytest.fixture
def adata():
    """A table of two samples with a layer of counts, and labels of two thirds of the cells."""
    table = rsd.datasets.simulate_tissue(
        n_cells=400, n_genes=40, n_samples=2, n_types=4, n_rare=0, rng=0, transcripts=False
    ).tables["table"]
    plain = table.copy()
    plain.layers["counts"] = plain.X.copy()
    plain.obs["label"] = plain.obs["cell_type"].astype(object)
    plain.obs.loc[np.random.default_rng(0).random(len(plain)) < 1 / 3, "label"] = "unknown"
    return plain


def trained(adata, *, semisupervised=False, **setup):
    rsd.ResolVI.setup_anndata(adata, layer="counts", spatial_key="spatial", library_key="sample", **setup)
    model = rsd.ResolVI(adata, semisupervised=semisupervised)
    model.train(**QUICK)
    return model


@pytest.fixture(params=["folder", "table"])
def load_again(request, tmp_path):
    """Come back to a model, from a folder or from its table."""

    def load(model):
        if request.param == "folder":
            model.save(tmp_path / "model")
            return rsd.ResolVI.load(tmp_path / "model", model.adata)
        model.write()
        return rsd.ResolVI.from_table(model.adata)

    return load


def two_sections(adata):
    return [adata[adata.obs["sample"] == name].copy() for name in adata.obs["sample"].cat.categories]


def test_quick_start_as_written(adata):
    rsd.ResolVI.setup_anndata(adata, layer="counts", spatial_key="spatial")
    model = rsd.ResolVI(adata)
    assert "not trained" in repr(model)
    with pytest.raises(RuntimeError, match=r"model\.train"):
        model.get_latent_representation()
    model.train(**QUICK)
    corrected = model.get_normalized_expression(adata)
    latent = model.get_latent_representation()
    assert corrected.shape == adata.shape and latent.shape == (400, 10)
    np.testing.assert_allclose(corrected.sum(axis=1), 1, rtol=1e-4)
    assert list(model.history.columns) == ["elbo", "learning_rate"] and len(model.history) == 3
    assert "400 cells × 40 genes" in repr(model) and "3 epochs" in repr(model)


def test_object_and_function_are_one_engine(adata):
    model = trained(adata)
    table = rsd.tl.fit(adata, layer="counts", library_key="sample", copy=True, **QUICK)
    np.testing.assert_allclose(model.get_latent_representation(), table.obsm["X_resolvi"], atol=1e-5)
    np.testing.assert_array_equal(model.get_corrected_counts().data, table.layers["resolvi_counts"].data)
    np.testing.assert_allclose(model.get_shares()["true"], table.obs["resolvi_true"])
    for per_gene in (True, False):
        rsd.tl.decontaminated_counts(table, fpr=0.1, per_gene=per_gene, show_progress_bar=False)
        kept = model.get_decontaminated_counts(fpr=0.1, per_gene=per_gene)
        # Neighbor weights of a table are float32, so that a molecule at the level may fall on its other side.
        assert abs(kept - table.layers["resolvi_decontaminated"]).sum() <= 1e-3 * kept.sum()
    model.write(key_added="obj")
    assert (adata.layers["obj_counts"] != table.layers["resolvi_counts"]).nnz == 0


def test_latent_mean_draw_and_distribution(adata):
    model = trained(adata)
    mean, variance = model.get_latent_representation(return_dist=True)
    draws = np.stack([model.get_latent_representation(give_mean=False, rng=i) for i in range(300)])
    np.testing.assert_allclose(draws.mean(0), mean, atol=6 * np.sqrt(variance.max() / 300))
    assert np.median(draws.var(0) / variance) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("return_mean", [True, False])
@pytest.mark.parametrize("genes", [None, 5])
def test_expression_has_the_right_shape(adata, n_samples, return_mean, genes):
    model = trained(adata)
    names = None if genes is None else list(adata.var_names[:genes])
    result = model.get_normalized_expression(
        gene_list=names, n_samples=n_samples, return_mean=return_mean, library_size=10
    )
    shape = (400, genes or 40)
    if n_samples > 1 and not return_mean:
        assert result.shape == (3, *shape)
    else:
        assert isinstance(result, pd.DataFrame) and result.shape == shape
        assert list(result.columns) == (names or list(adata.var_names))


def test_batches_can_be_exchanged_and_the_scale_of_the_counts_kept(adata):
    model = trained(adata, batch_key="sample")
    names = list(adata.obs["sample"].cat.categories)
    as_first, as_second, averaged = (
        model.get_normalized_expression(transform_batch=batch) for batch in (names[0], names[1], names)
    )
    np.testing.assert_allclose((as_first + as_second) / 2, averaged, rtol=1e-4)
    own = model.get_normalized_expression()
    first = (adata.obs["sample"] == names[0]).to_numpy()
    np.testing.assert_allclose(own[first], as_first[first], rtol=1e-5)
    rates = model.get_normalized_expression(library_size="latent")
    np.testing.assert_allclose(rates.sum(axis=1), model.posterior.molecules[:, 0], rtol=1e-3)
    with pytest.raises(KeyError, match="transform_batch='another'"):
        model.get_normalized_expression(transform_batch="another")
    with pytest.raises(ValueError, match="`transform_batch` is empty"):
        model.get_normalized_expression(transform_batch=[])
    with pytest.raises(TypeError, match=r"`gene_list` must be a list of names; did you mean \['gene_00'\]"):
        model.get_normalized_expression(gene_list="gene_00")


def test_what_is_no_table_or_no_model_is_named(adata):
    with pytest.raises(TypeError, match=r"must be an AnnData, not SpatialData.*tl.fit\(sdata\)"):
        rsd.ResolVI.setup_anndata(rsd.datasets.simulate_tissue(50, 20, rng=0))
    with pytest.raises(TypeError, match="must be a ResolVI, not str"):
        rsd.ResolVI.load_query_data(adata, "folder")
    with pytest.raises(ValueError, match="for a fit with `batch_key=`"):
        trained(adata).get_normalized_expression(transform_batch="A")


def test_labels_are_predicted_with_their_categories(adata):
    categories = ["type_3", "type_1", "unknown", "type_0", "type_2"]
    adata.obs["label"] = pd.Categorical(adata.obs["label"], categories=categories)
    rsd.ResolVI.setup_anndata(adata, layer="counts", labels_key="label")
    model = rsd.ResolVI(adata, semisupervised=True)
    model.train(max_epochs=25, show_progress_bar=False)
    soft = model.predict(soft=True)
    assert list(soft.columns) == ["type_3", "type_1", "type_0", "type_2"]
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    labels = model.predict()
    np.testing.assert_array_equal(labels, soft.columns[soft.to_numpy().argmax(1)])
    hidden = (adata.obs["label"] == "unknown").to_numpy()
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    # Guessing the most common of four types would be right in less than half of the cells.
    assert (labels == truth)[hidden].mean() > 0.8


def test_labels_that_are_set_up_but_not_used_are_warned_of(adata):
    rsd.ResolVI.setup_anndata(adata, layer="counts", labels_key="label")
    with pytest.warns(UserWarning, match=r"labels_key='label' are not used: `ResolVI\(adata, semisupervised=True\)`"):
        model = rsd.ResolVI(adata)
    model.train(**QUICK)
    with pytest.raises(ValueError, match="no labels to predict"):
        model.predict()


def test_labels_in_a_table(adata):
    adata.obs["label"] = adata.obs["label"].replace("unknown", np.nan).astype("category")
    adata.uns["label_colors"] = ["#111111", "#222222", "#333333", "#444444"]
    rsd.tl.fit(adata, layer="counts", labels_key="label", **QUICK)
    assert list(adata.obs["resolvi_predicted"].cat.categories) == list(adata.obs["label"].cat.categories)
    assert list(adata.uns["resolvi_predicted_colors"]) == list(adata.uns["label_colors"])
    assert list(adata.uns["resolvi"]["labels"]) == list(adata.obs["label"].cat.categories)
    before = adata.obsm["resolvi_probabilities"].copy()
    soft = rsd.tl.predict(adata, copy=True, soft=True, show_progress_bar=False)
    np.testing.assert_allclose(soft, before, atol=1e-5)
    labels = rsd.tl.predict(adata[:50].copy(), copy=True, show_progress_bar=False)
    assert (labels == adata.obs["resolvi_predicted"].iloc[:50]).all()
    rsd.tl.predict(adata, n_samples=5, show_progress_bar=False)
    assert not np.array_equal(adata.obsm["resolvi_probabilities"], before)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning")
def test_label_names_may_hold_a_slash(adata, tmp_path):
    adata.obs["label"] = adata.obs["label"].replace("type_0", "T/NK")
    rsd.tl.fit(adata, layer="counts", labels_key="label", **QUICK)
    adata.write_zarr(tmp_path / "a.zarr")
    import anndata as ad

    again = ad.read_zarr(tmp_path / "a.zarr")
    assert "T/NK" in rsd.tl.predict(again, copy=True, soft=True, show_progress_bar=False).columns


def test_bad_labels(adata):
    with pytest.raises(ValueError, match="needs labels"):
        rsd.ResolVI.setup_anndata(adata, layer="counts")
        rsd.ResolVI(adata, semisupervised=True)
    with pytest.raises(ValueError, match="no labels to predict: fit with `labels_key=`"):
        trained(adata).predict()
    adata.obs["label"] = "unknown"
    with pytest.raises(ValueError, match="has 0 labels besides NaN"):
        rsd.tl.fit(adata, layer="counts", labels_key="label", **QUICK)
    with pytest.raises(KeyError, match="labels_key='kind'"):
        rsd.ResolVI.setup_anndata(adata, layer="counts", labels_key="kind")
    with pytest.raises(KeyError, match="setup_anndata"):
        rsd.ResolVI(rsd.datasets.simulate_tissue(n_cells=50, n_genes=20, rng=0).tables["table"])


def test_saved_and_loaded_is_the_same(adata, tmp_path):
    model = trained(adata, semisupervised=True, labels_key="label", batch_key="sample")
    model.save(tmp_path / "model", save_anndata=True)
    again = rsd.ResolVI.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
    np.testing.assert_array_equal(again.predict(), model.predict())
    np.testing.assert_allclose(again.get_corrected_counts().data, model.get_corrected_counts().data, rtol=1e-5)
    pd.testing.assert_frame_equal(again.history, model.history)
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors", "adata.h5ad"}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    model.save(tmp_path / "model", overwrite=True)
    # What else is in the folder is not the model's.
    kept = {"model.json", "model.safetensors", "adata.h5ad", "notes.txt"}
    assert {p.name for p in (tmp_path / "model").iterdir()} == kept


def test_an_interrupted_save_leaves_no_model_and_can_be_done_again(adata, tmp_path, monkeypatch):
    model = trained(adata)
    model.save(tmp_path)

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.save(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="holds no model"):
        rsd.ResolVI.load(tmp_path, adata)
    model.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    rsd.ResolVI.load(tmp_path, adata)


def test_a_table_that_cannot_be_written_leaves_the_model_that_was_there(adata, tmp_path):
    model = trained(adata)
    model.save(tmp_path, save_anndata=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    adata.uns["not storable"] = object()
    with pytest.raises(Exception, match="not storable"):
        model.save(tmp_path, overwrite=True, save_anndata=True)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    del adata.uns["not storable"]
    model.save(tmp_path, overwrite=True, save_anndata=True)
    assert {path.name for path in tmp_path.iterdir()} == set(before)


def test_what_is_written_is_not_shared_with_the_model(adata):
    model = trained(adata, semisupervised=True, labels_key="label")
    expected = model.predict(soft=True).to_numpy()
    model.write()
    adata.obsm["resolvi_probabilities"][:] = 0
    np.testing.assert_array_equal(model.predict(soft=True), expected)


def test_a_model_is_saved_in_the_current_folder_but_not_in_a_file(adata, tmp_path, monkeypatch):
    model = trained(adata)
    monkeypatch.chdir(tmp_path)
    model.save(".")
    assert (tmp_path / "model.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        model.save("file")


def test_importance_weights_are_the_same_for_a_model_that_was_loaded(adata, tmp_path):
    model = trained(adata, semisupervised=True, labels_key="label")
    model.save(tmp_path)
    again = rsd.ResolVI.load(tmp_path, adata)
    asked = {"n_samples": 5, "weights": "importance", "rng": 0}
    found, expected = again.get_normalized_expression(**asked), model.get_normalized_expression(**asked)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_folder_may_hold_the_table_too(adata, tmp_path):
    model = trained(adata)
    model.save(tmp_path / "model", save_anndata=True)
    again = rsd.ResolVI.load(tmp_path / "model")
    expected = model.get_corrected_counts().toarray()
    np.testing.assert_allclose(again.get_corrected_counts().toarray(), expected, atol=1e-4)
    model.save(tmp_path / "alone")
    with pytest.raises(FileNotFoundError, match="There is no table of the model in .*save_anndata=True"):
        rsd.ResolVI.load(tmp_path / "alone")


def test_a_folder_that_does_not_fit_is_refused(adata, tmp_path):
    model = trained(adata)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="fitted on 400 cells.*load_query_data"):
        rsd.ResolVI.load(tmp_path / "model", adata[::-1].copy())
    with pytest.raises(ValueError, match="model was fitted on, in another order"):
        rsd.ResolVI.load(tmp_path / "model", adata[:, ::-1].copy())
    for given in (adata, None):
        with pytest.raises(FileNotFoundError, match="holds no model"):
            rsd.ResolVI.load(tmp_path, given)
    # A newer format may name its entries and files otherwise.
    (tmp_path / "model" / "model.json").write_text(json.dumps({"format": 99}))
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="format 99.*Update resolvi_sd"):
        rsd.ResolVI.load(tmp_path / "model", adata)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="something other"):
        model.save(tmp_path / "notes", overwrite=True)


def test_the_object_of_a_fitted_table(adata):
    rsd.tl.fit(adata, layer="counts", library_key="sample", **QUICK)
    model = rsd.ResolVI.from_table(adata)
    np.testing.assert_allclose(model.get_latent_representation(), adata.obsm["X_resolvi"], atol=1e-5)
    np.testing.assert_allclose(model.get_corrected_counts().data, adata.layers["resolvi_counts"].data, atol=1e-4)


def test_a_loaded_model_is_trained_with_its_labels(adata, load_again):
    model = trained(adata, semisupervised=True, labels_key="label")
    again = load_again(model)
    again.train(**QUICK)
    assert again.fitted.labels == model.fitted.labels and again.fitted.setup.labels_key == "label"
    # The same seed on the same cells; distances of a graph in the table are float32.
    np.testing.assert_allclose(again.predict(soft=True), model.predict(soft=True), atol=1e-3)


def test_a_loaded_model_without_its_labels_answers_but_is_not_trained(adata, load_again):
    model = trained(adata, semisupervised=True, labels_key="label")
    del adata.obs["label"]
    again = load_again(model)
    np.testing.assert_array_equal(again.predict(), model.predict())
    with pytest.raises(KeyError, match="labels_key='label' is not in `adata.obs`.*'cell_type'.*put them back"):
        again.train(**QUICK)


def test_a_loaded_query_answers_but_is_not_trained(adata, load_again):
    reference, query = two_sections(adata)
    mapped = rsd.ResolVI.load_query_data(query, trained(reference))
    mapped.train(**QUICK)
    again = load_again(mapped)
    np.testing.assert_array_equal(again.get_latent_representation(), mapped.get_latent_representation())
    with pytest.raises(ValueError, match=r"query and was loaded.*Map the query again.*load_query_data"):
        again.train(**QUICK)


def test_a_query_without_training(adata):
    reference, query = two_sections(adata)
    model = trained(reference, semisupervised=True, labels_key="label")
    shuffled = query[:, np.random.default_rng(0).permutation(40)].copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mapped = rsd.ResolVI.load_query_data(shuffled, model)
    assert any("`model.adata`, is a copy" in str(w.message) for w in caught)
    assert mapped.adata is not shuffled and list(mapped.adata.var_names) == list(query.var_names)
    assert len(mapped.predict()) == query.n_obs
    np.testing.assert_allclose(mapped.get_latent_representation(), model.get_latent_representation(query), atol=1e-5)
    assert (mapped.get_corrected_counts().sum(1) <= query.layers["counts"].sum(1) + 1e-3).all()


def test_a_query_learns_its_own_cells_and_batches_only(adata):
    reference, query = two_sections(adata)
    names = list(adata.obs["sample"].cat.categories)
    model = trained(reference, batch_key="sample")
    mapped = rsd.ResolVI.load_query_data(query, model)
    assert mapped.fitted.batches == tuple(names)
    before = {k: v.clone() for k, v in mapped.fitted.module.state_dict().items()}
    mapped.train(**QUICK)
    changed = {k for k, v in mapped.fitted.module.state_dict().items() if (v != before[k]).any()}
    assert "neighbor_logits.weight" in changed
    assert changed <= {"neighbor_logits.weight", "background_logits", "share_prior_logits"} | {
        k for k in changed if "category" in k
    }
    after = mapped.fitted.module.state_dict()
    for name in changed - {"neighbor_logits.weight"}:
        np.testing.assert_array_equal(after[name][:1], before[name][:1])


def test_a_query_that_is_not_frozen_departs_from_the_reference(adata):
    reference, query = two_sections(adata)
    model = trained(reference)
    before = {k: v.clone() for k, v in model.fitted.module.state_dict().items()}
    mapped = rsd.ResolVI.load_query_data(query, model, freeze=False)
    mapped.train(**QUICK)
    after = mapped.fitted.module.state_dict()
    assert (after["decoder.rate.bias"] != before["decoder.rate.bias"]).any()
    for name, value in model.fitted.module.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_genes_of_a_query_are_matched_by_name(adata):
    model = trained(adata)
    fewer = adata[:, 3:].copy()
    # Not `pytest.warns`: it raises what else was caught again, past the filters for third parties.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mapped = rsd.ResolVI.load_query_data(fewer, model)
    assert any("3 of 40 genes of the reference are not in the query" in str(w.message) for w in caught)
    assert mapped.get_normalized_expression().shape == (400, 40)
    other = adata.copy()
    other.var_names = [f"other_{i}" for i in range(40)]
    with pytest.raises(ValueError, match="shares no gene"):
        rsd.ResolVI.load_query_data(other, model)


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.filterwarnings("ignore:.*genes")
def test_the_scale_of_the_counts_is_that_of_the_genes_of_the_query(adata, n_samples):
    model = trained(adata)
    genes = np.arange(40) % 3 > 0
    query = rsd.ResolVI.load_query_data(adata[:, genes].copy(), model)
    own = query.get_corrected_counts()
    for chosen in (None, list(adata.var_names[genes])):
        rates = query.get_normalized_expression(library_size="latent", n_samples=n_samples, gene_list=chosen)
        measured = rates[list(adata.var_names[genes])].to_numpy()
        np.testing.assert_allclose(measured.sum(axis=1), np.asarray(own.sum(axis=1)).ravel(), rtol=1e-3)
    query.write()
    rsd.tl.normalized_expression(query.adata, library_size="latent", n_samples=n_samples)
    np.testing.assert_allclose(
        query.adata.layers["resolvi_expression"][:, genes].sum(axis=1), measured.sum(axis=1), rtol=1e-3
    )
    np.testing.assert_allclose(query.get_normalized_expression().sum(axis=1), 1, rtol=1e-4)


def test_no_cells_have_no_expression(adata):
    assert trained(adata).get_normalized_expression(adata[:0].copy()).shape == (0, 40)


def test_batches_are_those_of_the_fit_whatever_the_table_has_of_them(adata, load_again):
    """The order of categories may change, and a section may be looked at by itself."""
    adata.obs["sample"] = adata.obs["sample"].cat.reorder_categories(adata.obs["sample"].cat.categories[::-1])
    model = trained(adata, batch_key="sample")
    corrected, shares = model.get_corrected_counts(), model.get_shares()
    adata.obs["sample"] = adata.obs["sample"].cat.reorder_categories(adata.obs["sample"].cat.categories[::-1])
    again = load_again(model)
    assert abs(again.get_corrected_counts() - corrected).max() < 1e-3
    np.testing.assert_allclose(again.get_shares(), shares, atol=1e-4)
    model.write()
    for name in adata.obs["sample"].cat.categories:
        rows = (adata.obs["sample"] == name).to_numpy()
        part = rsd.ResolVI.from_table(adata[rows].copy())
        assert "2 batches" in repr(part)
        assert abs(part.get_corrected_counts() - corrected[rows]).max() < 1e-3


def test_a_saved_model_recognizes_other_batches(adata, tmp_path):
    model = trained(adata, batch_key="sample")
    model.save(tmp_path / "model")
    other = adata.copy()
    first, second = (np.flatnonzero(other.obs["sample"] == name)[0] for name in other.obs["sample"].cat.categories)
    other.obs["sample"] = other.obs["sample"].to_numpy()
    other.obs.iloc[[first, second], other.obs.columns.get_loc("sample")] = other.obs["sample"].iloc[[second, first]]
    with pytest.raises(ValueError, match=r"other values of the columns 'sample' of `obs`, in 2 of 400"):
        rsd.ResolVI.load(tmp_path / "model", other)


@pytest.mark.filterwarnings("ignore:The '(future.infer_string|mode.chained_assignment)' option:DeprecationWarning")
def test_a_saved_model_recognizes_other_sizes(adata, tmp_path):
    adata.obs["area"] = np.random.default_rng(0).gamma(5, 10, 400)
    model = trained(adata, size_factor_key="area")
    model.save(tmp_path / "model")
    assert (
        abs(rsd.ResolVI.load(tmp_path / "model", adata).get_corrected_counts() - model.get_corrected_counts()).max()
        < 1e-3
    )
    model.write()
    adata.obs["area"] *= 22
    with pytest.raises(ValueError, match="other values of the columns 'area' of `obs`, in 400 of 400 cells"):
        rsd.ResolVI.load(tmp_path / "model", adata)
    with pytest.raises(ValueError, match="other values of the columns 'area' of `obs`, in 400 of 400 cells"):
        model.save(tmp_path / "other", save_anndata=True)
    with pytest.warns(UserWarning, match="columns 'area' of `obs` are not those of the fit: of 64 cells"):
        rsd.tl.latent(adata, show_progress_bar=False)
    with pytest.warns(UserWarning, match=r"cells of the query are 22 times as large as those of the reference"):
        rsd.ResolVI.load_query_data(adata.copy(), model)
    adata.obs["size"] = adata.obs.pop("area") / 22
    rsd.ResolVI.load_query_data(adata.copy(), model, size_factor_key="size")
    with pytest.raises(ValueError, match="size_factor_key='size' would be ignored"):
        rsd.ResolVI.load_query_data(adata.copy(), trained(adata), size_factor_key="size")


@pytest.mark.parametrize("part", ["model.json", "model.safetensors"])
def test_a_damaged_file_is_named(adata, tmp_path, part):
    trained(adata).save(tmp_path / "model")
    path = tmp_path / "model" / part
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{part} is damaged"):
        rsd.ResolVI.load(tmp_path / "model", adata)


def test_cells_in_another_order_are_told_from_other_cells(adata, tmp_path):
    trained(adata).save(tmp_path / "model")
    with pytest.raises(ValueError, match="the 400 of `adata` are the same in another order: restore that of the fit"):
        rsd.ResolVI.load(tmp_path / "model", adata[::-1].copy())
    with pytest.raises(ValueError, match="the 399 of `adata` are others: pass the table of the fit"):
        rsd.ResolVI.load(tmp_path / "model", adata[1:].copy())


def test_a_backed_table_stays_where_it_is(adata, tmp_path):
    adata.write_h5ad(tmp_path / "own.h5ad")
    backed = ad.read_h5ad(tmp_path / "own.h5ad", backed="r")
    model = trained(backed)
    latent = model.get_latent_representation()
    for overwrite in (False, True):
        model.save(tmp_path / "model", save_anndata=True, overwrite=overwrite)
        assert str(backed.filename) == str(tmp_path / "own.h5ad")
        np.testing.assert_array_equal(model.get_latent_representation(), latent)
        np.testing.assert_allclose(
            rsd.ResolVI.load(tmp_path / "model").get_latent_representation(), latent, rtol=1e-4, atol=1e-4
        )


def test_a_table_without_coordinates_is_saved_with_its_model(tmp_path):
    sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=30, rng=0, transcripts=False)
    del sdata.tables["table"].obsm["spatial"]
    rsd.tl.fit(sdata, **QUICK)
    model = rsd.ResolVI.from_table(sdata)
    model.save(tmp_path / "model", save_anndata=True)
    for loaded in (rsd.ResolVI.load(tmp_path / "model"), rsd.ResolVI.load(tmp_path / "model", sdata.tables["table"])):
        np.testing.assert_allclose(loaded.get_shares(), model.get_shares(), atol=1e-4)


def test_a_table_whose_counts_changed_is_not_saved_with_the_model(adata, tmp_path):
    model = trained(adata)
    adata.layers["counts"] = adata.layers["counts"] / 2
    with pytest.raises(ValueError, match="have changed since"):
        model.save(tmp_path / "model", save_anndata=True)
    assert not (tmp_path / "model").exists()


def test_a_reference_is_not_its_own_query(adata):
    model = trained(adata)
    with pytest.raises(ValueError, match="query is the table of the reference"):
        rsd.ResolVI.load_query_data(adata, model)
    assert rsd.ResolVI.load_query_data(adata.copy(), model).is_trained


def test_a_query_of_a_new_batch_comes_back_as_it_was(adata, load_again):
    reference, query = two_sections(adata)
    mapped = rsd.ResolVI.load_query_data(query, trained(reference, batch_key="sample"))
    assert "trained on the reference only" in repr(mapped) and not len(mapped.history)
    corrected = mapped.get_corrected_counts()
    assert abs(load_again(mapped).get_corrected_counts() - corrected).max() < 1e-3


def test_a_query_may_have_its_counts_elsewhere(adata):
    reference, query = two_sections(adata)
    model = trained(reference)
    expected = rsd.ResolVI.load_query_data(query, model).get_corrected_counts()
    del query.layers["counts"]
    with pytest.raises(KeyError, match=r"layer='counts' is not in `query\.layers`.* name another, or layer='X'"):
        rsd.ResolVI.load_query_data(query, model)
    found = rsd.ResolVI.load_query_data(query, model, layer="X")
    assert abs(found.get_corrected_counts() - expected).max() == 0
    query.layers["raw"], query.X = query.X, query.X * 0
    found = rsd.ResolVI.load_query_data(query, model, layer="raw")
    assert abs(found.get_corrected_counts() - expected).max() == 0


def test_a_spatialdata_object_is_no_table(adata, tmp_path):
    sdata = rsd.datasets.simulate_tissue(n_cells=50, n_genes=10, rng=0, transcripts=False)
    model = trained(adata)
    model.save(tmp_path)
    for call in (
        rsd.ResolVI,
        rsd.ResolVI.setup_anndata,
        model.get_latent_representation,
        model.write,
        lambda data: rsd.ResolVI.load_query_data(data, model),
        lambda data: rsd.ResolVI.load(tmp_path, data),
    ):
        with pytest.raises(TypeError, match=r"must be an AnnData, not SpatialData.*sdata\.tables"):
            call(sdata)


def test_the_table_of_the_model_is_that_also_where_it_is_named(adata):
    model = trained(adata)
    asked = {"weights": "importance", "n_samples": 3, "show_progress_bar": False}
    expected = model.get_normalized_expression(**asked)
    pd.testing.assert_frame_equal(model.get_normalized_expression(adata, **asked), expected)
    adata._inplace_subset_obs(np.arange(adata.n_obs)[::-1])
    with pytest.raises(ValueError, match="cells of the table are not those .* in another order"):
        model.get_normalized_expression(adata, **asked)


def test_genes_may_come_from_a_generator(adata):
    model = trained(adata)
    found = model.get_normalized_expression(gene_list=(name for name in adata.var_names[:3]))
    assert list(found.columns) == list(adata.var_names[:3])


def test_results_do_not_replace_what_the_model_reads(adata):
    rsd.tl.fit(adata, layer="counts", labels_key="label", **QUICK)
    rsd.ResolVI.setup_anndata(adata, layer="counts", labels_key="resolvi_predicted")
    model = rsd.ResolVI(adata, semisupervised=True)
    model.train(**QUICK)
    with pytest.raises(ValueError, match=r"reads obs\['resolvi_predicted'\].*Choose another"):
        model.write()
    model.write(key_added="second")
    assert "second_predicted" in adata.obs


def test_a_loaded_model_is_quiet_where_it_is_asked_to_be(adata, tmp_path, capsys):
    trained(adata).save(tmp_path)
    again = rsd.ResolVI.load(tmp_path, adata)
    again.get_normalized_expression(library_size="latent", show_progress_bar=False)
    assert capsys.readouterr().err == ""


def test_measured_sizes_are_saved_with_the_model(tmp_path):
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=30, rng=0, transcripts=False)
    del sdata.tables["table"].obs["area"]
    rsd.tl.fit(sdata, size_factor_key="area", **QUICK)
    table = sdata.tables["table"]
    assert "area" not in table.obs
    model = rsd.ResolVI.from_table(sdata)
    model.save(tmp_path, save_anndata=True)
    again = rsd.ResolVI.load(tmp_path)
    asked = {"library_size": "latent", "size_scaling": True, "show_progress_bar": False}
    pd.testing.assert_frame_equal(
        again.get_normalized_expression(**asked), model.get_normalized_expression(**asked), rtol=1e-4, atol=1e-4
    )
    again.write(key_added="again")
    np.testing.assert_array_equal(again.adata.obs["again_size"], table.obs["resolvi_size"])


@pytest.mark.filterwarnings("ignore:This looks like spot data")
@pytest.mark.parametrize("case", ["regions", "pixels", "lattice"])
def test_neighbors_are_saved_with_the_model(case, tmp_path):
    """Sections may be regions of a SpatialData object, coordinates those of its elements, and distances equal."""
    n_samples = 2 if case == "regions" else 1
    data = rsd.datasets.simulate_tissue(n_cells=400, n_genes=30, n_samples=n_samples, rng=0, transcripts=False)
    table = data.tables["table"]
    if case == "pixels":
        table.obsm["spatial"] = table.obsm["spatial"] / 0.2125
    if case == "lattice":
        data = table
        del table.uns["spatialdata_attrs"]
        places = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
        table.obsm["spatial"] = 0.2125 * places[: table.n_obs]
    rsd.tl.fit(data, **QUICK)
    rsd.ResolVI.from_table(data).save(tmp_path)
    again = rsd.ResolVI.load(tmp_path, table)
    assert abs(again.get_corrected_counts() - table.layers["resolvi_counts"]).max() < 1e-3
    again.write(key_added="again")
    for name in ("weights", "flow", "distances"):
        assert abs(table.obsp[f"again_{name}"] - table.obsp[f"resolvi_{name}"]).max() < 1e-3


def test_a_query_whose_training_fails_is_left_as_it_was(adata):
    reference, query = two_sections(adata)
    mapped = rsd.ResolVI.load_query_data(query, trained(reference), freeze=False)
    before = mapped.get_latent_representation()
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        mapped.train(max_epochs=3, lr=1e30, show_progress_bar=False)
    np.testing.assert_array_equal(mapped.get_latent_representation(), before)


def test_batches_to_decode_with_may_be_numbers(adata):
    adata.obs["batch"] = np.where(adata.obs["sample"] == adata.obs["sample"].iloc[0], 0, 1)
    model = trained(adata, batch_key="batch")
    of = model.get_normalized_expression
    np.testing.assert_array_equal(of(transform_batch=1), of(transform_batch=["1"]))
    np.testing.assert_array_equal(of(transform_batch=[0, 1, 0]), of(transform_batch=["0", "1"]))


def test_a_model_does_not_read_the_table_of_another(adata, tmp_path):
    trained(adata).save(tmp_path / "model", save_anndata=True)
    trained(adata).save(tmp_path / "model", overwrite=True)
    with pytest.raises(FileNotFoundError, match="There is no table of the model.*pass it"):
        rsd.ResolVI.load(tmp_path / "model")
    assert (tmp_path / "model" / "adata.h5ad").exists()  # what is there may be the only copy


def test_numbers_of_numpy_are_numbers(adata, tmp_path):
    config = rsd.ModelConfig(n_latent=np.int64(5), profile_sparsity=np.float32(0.5), share_prior=np.array([6, 3, 1]))
    rsd.ResolVI.setup_anndata(adata, layer="counts", n_neighbors=np.int64(6))
    model = rsd.ResolVI(adata, config=config)
    model.train(np.int64(2), batch_size=np.int64(100), show_progress_bar=False)
    model.save(tmp_path)
    again = rsd.ResolVI.load(tmp_path, adata)
    assert again.config == config and config.share_prior == (6.0, 3.0, 1.0) and type(config.n_latent) is int
    for settings in ({"encode_covariates": "false"}, {"adapt_share_prior": 0}):
        with pytest.raises(TypeError, match="must be True or False"):
            rsd.ModelConfig(**settings)
    with pytest.raises(TypeError, match="`thin_counts` must be True or False"):
        rsd.TrainingConfig(thin_counts="no")
    with pytest.raises(ValueError, match="`thin_foreign` must be"):
        rsd.TrainingConfig(thin_foreign=1.5)
    with pytest.raises(ValueError, match="`checkpoint_dir` is empty"):
        rsd.TrainingConfig(checkpoint_dir="")


def test_other_counts_are_noticed(adata, tmp_path):
    model = trained(adata)
    model.save(tmp_path / "model")
    other = adata.copy()
    other.layers["counts"] = other.layers["counts"].minimum(2).tocsr()
    with pytest.warns(UserWarning, match="do not seem to be those of the fit.*saved with the model"):
        rsd.ResolVI.load(tmp_path / "model", other)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rsd.ResolVI.load(tmp_path / "model", adata.copy())
        model.get_latent_representation(show_progress_bar=False)
    adata.layers["counts"] = other.layers["counts"]
    for read in (model.get_latent_representation, model.get_normalized_expression):
        with pytest.warns(UserWarning, match="do not seem to be those of the fit.*at the fit"):
            read(show_progress_bar=False)


def test_flags_are_true_or_false(adata):
    rsd.ResolVI.setup_anndata(adata, layer="counts", labels_key="label")
    with pytest.raises(TypeError, match="`semisupervised` must be True or False, not 'no'"):
        rsd.ResolVI(adata, semisupervised="no")
    with pytest.raises(TypeError, match="`freeze` must be True or False, not 0"):
        rsd.ResolVI.load_query_data(adata.copy(), trained(adata), freeze=0)


def test_other_numbers_of_molecules_are_noticed(adata, tmp_path):
    """The latent does not depend on them."""
    model = trained(adata)
    model.save(tmp_path / "model")
    model.write()
    other = adata.copy()
    other.layers["counts"] = 2 * other.layers["counts"]
    said = r"counts in `table.layers\['counts'\]` are not those of the fit: of {} cells .*, {} have other numbers"
    with pytest.warns(UserWarning, match=said.format(400, 400)):
        rsd.ResolVI.load(tmp_path / "model", other)
    for read in (rsd.ResolVI.from_table, lambda table: rsd.tl.latent(table, show_progress_bar=False)):
        with pytest.warns(UserWarning, match=said.format(64, 64)):
            read(other)
    corrected = model.get_corrected_counts()
    adata.layers["counts"] = other.layers["counts"]
    for call in (model.write, model.get_latent_representation, lambda **_: model.write(other)):
        with pytest.warns(UserWarning, match=said.format(64, 64)):
            call(show_progress_bar=False)
    with pytest.raises(ValueError, match=said.format(64, 64)):
        model.differential_expression("cell_type", show_progress_bar=False)
    assert abs(model.get_corrected_counts() - corrected).max() == 0


def test_other_batches_of_its_table_are_noticed(adata):
    model = trained(adata, batch_key="sample")
    adata.obs["sample"] = adata.obs["sample"].to_numpy()[::-1]
    with pytest.warns(UserWarning, match="columns 'sample' of `obs` are not those of the fit: of 400 cells"):
        model.get_normalized_expression(show_progress_bar=False)


def test_a_view_becomes_a_table_of_its_own(adata):
    rsd.ResolVI.setup_anndata(adata, layer="counts")
    view = adata[:300]
    model = rsd.ResolVI(view)
    assert not view.is_view
    model.train(**QUICK)
    before = model.get_latent_representation(show_progress_bar=False)
    adata._inplace_subset_obs(np.arange(400) > 200)
    np.testing.assert_array_equal(model.get_latent_representation(show_progress_bar=False), before)


def test_what_a_table_has_is_listed_without_what_a_call_adds(adata):
    model = trained(adata)
    for call in (
        lambda: model.pseudobulk("cell_type", sample_key="donor"),
        lambda: model.pseudobulk("cell_type", layer="nope"),
        lambda: model.differential_niche_abundance("domain", labels_key="cell_type", sample_key="donor"),
    ):
        with pytest.raises(KeyError, match="is not in `adata") as found:
            call()
        assert "resolvi" not in str(found.value)


def test_a_query_in_another_order_keeps_its_layers(adata):
    model = trained(adata)
    adata.layers["logs"], adata.varm["loadings"] = adata.X.log1p(), np.arange(40.0)[:, None]
    query = adata[:, ::-1].copy()
    with pytest.warns(UserWarning, match="is a copy with these genes"):
        mapped = rsd.ResolVI.load_query_data(query, model).adata
    assert {"counts", "logs", "true_own"} <= set(mapped.layers)
    for name in ("counts", "logs", "true_own"):
        np.testing.assert_array_equal(mapped.layers[name].toarray(), adata.layers[name].toarray())
    np.testing.assert_array_equal(mapped.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(mapped.varm["loadings"], adata.varm["loadings"])


def test_an_interrupted_training_leaves_the_model_as_it_was(adata, monkeypatch):
    model = trained(adata)
    latent, shares = model.get_latent_representation(show_progress_bar=False), model.get_shares()

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("resolvi_sd._resolvi.infer_posterior", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.train(1, rng=5, show_progress_bar=False)
    np.testing.assert_array_equal(model.get_latent_representation(show_progress_bar=False), latent)
    pd.testing.assert_frame_equal(model.get_shares(), shares)


def test_a_table_of_several_regions_has_as_many_sections():
    table = rsd.datasets.simulate_tissue(n_cells=200, n_genes=20, n_samples=2, rng=0, transcripts=False)["table"]
    rsd.ResolVI.setup_anndata(table)
    region = table.obs["region"].astype(str).to_numpy()
    graph = rsd.ResolVI(table)._input.graph
    assert (region[graph.index] == region[:, None])[graph.mask].all()


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        ({"run": [None, *["a"] * 399]}, {"batch_key": "run"}, ValueError, "missing|no value"),
        ({"spatial": np.full((400, 2), np.nan)}, {}, ValueError, "NaN|finite"),
        ({}, {"spatial_key": "places"}, KeyError, "spatial_key='places'"),
    ],
)
def test_the_setup_is_checked(adata, change, arguments, error, message):
    for name, values in change.items():
        (adata.obsm if name == "spatial" else adata.obs)[name] = values
    with pytest.raises(error, match=message):
        rsd.ResolVI.setup_anndata(adata, layer="counts", **arguments)
    assert "resolvi_setup" not in adata.uns
