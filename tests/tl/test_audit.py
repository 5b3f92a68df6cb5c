"""The audit measures what is known of a simulated tissue, and says so where something cannot be measured."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd

import resolvi_sd as rsd
from resolvi_sd.metrics import coexpression_rate

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def _leaky():
    sdata = rsd.datasets.simulate_tissue(
        n_cells=1200, n_genes=100, n_types=4, n_rare=0, n_samples=2, regime="xenium", rng=0, transcripts=False
    )
    rsd.tl.fit(sdata, batch_key="sample", max_epochs=30, **QUIET)
    return sdata


@pytest.fixture
def leaky(_leaky):
    """A fitted table of its own for each test."""
    return _leaky.tables["table"].copy()


def with_corrected(table, corrected):
    """The table of a fit that would have found other corrected counts."""
    table.layers["resolvi_counts"] = corrected.tocsr().astype(np.float32)
    table.layers["resolvi_counts"].sort_indices()
    table.obs["resolvi_true"] = np.asarray(corrected.sum(axis=1)).ravel() / np.asarray(table.X.sum(axis=1)).ravel()
    return table


def values(result, metric):
    return result[result["metric"] == metric].set_index("layer")["value"]


def reference_of(table, n_cells=400, rng=0):
    """Cells drawn from the true profiles, without leakage, with types of other names."""
    rng = np.random.default_rng(rng)
    rows = rng.choice(table.n_obs, n_cells, replace=False)
    counts = rng.poisson(500 * np.asarray(table.layers["true_profile"])[rows]).astype(np.float32)
    labels = ("sc_" + table.obs["cell_type"].astype(str).to_numpy()[rows]).astype(object)
    obs = pd.DataFrame({"label": labels}, index=[f"sc{i}" for i in range(n_cells)])
    return ad.AnnData(counts, obs=obs, var=table.var[[]].copy())


def test_the_truth_as_the_correction_is_found_to_be_good(leaky):
    """Own molecules in place of the corrected counts: everything leaked is gone, and nothing else."""
    result = rsd.tl.audit(with_corrected(leaky, leaky.layers["true_own"]), "cell_type", copy=True, **QUIET)
    assert values(result, "true_foreign_removed")["corrected"] == pytest.approx(1)
    assert values(result, "true_own_removed")["corrected"] == 0
    removed = 1 - leaky.layers["true_own"].sum() / leaky.X.sum()
    assert values(result, "molecules_removed")["corrected"] == pytest.approx(removed, rel=1e-5)
    assert values(result, "molecules_removed")["depth_matched"] == pytest.approx(removed, abs=0.02)
    for metric in ("coexpression_rate", "neighbor_contamination"):
        found = values(result, metric)
        assert found["corrected"] < found["depth_matched"] <= found["raw"] + 0.02, metric
    assert values(result, "leak_sensitivity")["corrected"] > values(result, "leak_sensitivity")["depth_matched"]


def test_other_corrected_counts_are_judged_as_the_fit_s_own_are(leaky):
    expected = rsd.tl.audit(with_corrected(leaky.copy(), leaky.layers["true_own"]), "cell_type", copy=True, **QUIET)
    found = rsd.tl.audit(leaky, "cell_type", corrected_layer="true_own", copy=True, **QUIET)
    pd.testing.assert_frame_equal(found.drop(columns="corrected_layer"), expected.drop(columns="corrected_layer"))
    assert set(found["corrected_layer"]) == {"true_own"} and set(expected["corrected_layer"]) == {"resolvi_counts"}
    with pytest.raises(
        KeyError, match=r"corrected_layer='other' is not in `table\.layers`; it has: .*'resolvi_counts'"
    ):
        rsd.tl.audit(leaky, "cell_type", corrected_layer="other", copy=True, **QUIET)
    for factor, message in ((2, r"up to \d+ more than was counted.*normalized"), (-1, r"values down to -\d+")):
        leaky.layers["other"] = leaky.X * factor
        with pytest.raises(ValueError, match=f"corrected_layer='other' has {message}"):
            rsd.tl.audit(leaky, "cell_type", corrected_layer="other", copy=True, **QUIET)


def test_whole_molecules_are_better_than_expectations_in_what_is_asked_of_single_cells(leaky):
    """At a cost that is no higher, exclusive genes are together less often, and more of what leaked is gone."""
    rsd.tl.decontaminated_counts(leaky, fpr=0.08, **QUIET)
    expected = rsd.tl.audit(leaky, "cell_type", copy=True, **QUIET)
    whole = rsd.tl.audit(leaky, "cell_type", corrected_layer="resolvi_decontaminated", copy=True, **QUIET)
    for metric, sign in (
        ("true_own_removed", 1),
        ("own_markers_removed_unexposed", 1),
        ("coexpression_rate", 1),
        ("neighbor_contamination", 1),
        ("true_foreign_removed", -1),
        ("leak_sensitivity", -1),
    ):
        before, after = (sign * values(result, metric)["corrected"] for result in (expected, whole))
        assert after < before, (metric, before, after)


def test_several_corrections_are_judged_as_each_is_alone(leaky):
    names = ["resolvi_counts", "true_own", "resolvi_decontaminated"]
    rsd.tl.decontaminated_counts(leaky, fpr=0.08, **QUIET)
    found = rsd.tl.audit(leaky, "cell_type", corrected_layer=names, copy=True, **QUIET)
    alone = [rsd.tl.audit(leaky, "cell_type", corrected_layer=name, copy=True, **QUIET) for name in names]
    pd.testing.assert_frame_equal(found, pd.concat(alone, ignore_index=True))
    with pytest.raises(KeyError, match=r"corrected_layer='other' is not in `table\.layers`"):
        rsd.tl.audit(leaky, "cell_type", corrected_layer=["true_own", "other"], **QUIET)
    with pytest.raises(ValueError, match=r"`corrected_layer` is empty; the table has the layers .*'resolvi_counts'"):
        rsd.tl.audit(leaky, "cell_type", corrected_layer=[], **QUIET)
    assert "resolvi_audit" not in leaky.uns
    # Counts that replace one of them make the audit one of what is gone.
    rsd.tl.audit(leaky, "cell_type", corrected_layer=names, **QUIET)
    rsd.tl.decontaminated_counts(leaky, **QUIET)
    assert "resolvi_audit" not in leaky.uns


def test_which_of_several_corrections_takes_too_much_is_said(leaky):
    leaky.layers["thinned"] = rsd.metrics.depth_matched(leaky.X, 0.6 * leaky.X, rng=1)
    leaky.layers["raw"] = leaky.X.copy()
    with pytest.warns(UserWarning) as warned:
        rsd.tl.audit(leaky, "cell_type", corrected_layer=["resolvi_counts", "raw", "thinned"], **QUIET)
    messages = [str(warning.message) for warning in warned]
    assert [message.split(" removed")[0] for message in messages] == [
        "The correction in `table.layers['raw']`",
        "The correction in `table.layers['thinned']`",
    ]
    assert "0.00% of the molecules" in messages[0] and "removes too much" in messages[1]
    assert all(warning.filename == __file__ for warning in warned)


def test_a_reference_without_counts_is_named(leaky):
    reference = with_corrected(leaky.copy(), leaky.layers["true_own"])
    reference.X = reference.X.log1p()
    with pytest.raises(ValueError, match=r"^In the reference, with reference_layer=None: `table.X`"):
        rsd.tl.audit(leaky, "cell_type", reference=reference, reference_labels_key="cell_type", copy=True, **QUIET)


def test_neighbors_that_are_gone_are_warned_of(leaky):
    part = leaky[np.arange(leaky.n_obs) % 2 == 0].copy()
    with pytest.warns(
        UserWarning, match=r"^\d+ of \d+ cells had neighbors in the fit .*treated as unexposed.*whole table"
    ):
        rsd.tl.audit(part, "cell_type", copy=True, **QUIET)
    del part.obsp["resolvi_weights"]  # nothing tells then
    rsd.tl.audit(part, "cell_type", copy=True, **QUIET)


def test_an_audit_is_of_the_counts_that_are_there(leaky):
    rsd.tl.decontaminated_counts(leaky, fpr=0.1, **QUIET)
    rsd.tl.audit(leaky, "cell_type", corrected_layer="resolvi_decontaminated", **QUIET)
    rsd.tl.decontaminated_counts(leaky, fpr=0.05, **QUIET)
    assert "resolvi_audit" not in leaky.uns
    rsd.tl.audit(leaky, "cell_type", **QUIET)
    rsd.tl.decontaminated_counts(leaky, **QUIET)
    assert set(leaky.uns["resolvi_audit"]["corrected_layer"]) == {"resolvi_counts"}
    leaky.layers["resolvi_decontaminated"] = leaky.layers["resolvi_decontaminated"].log1p()
    with pytest.raises(ValueError, match="has fractions, but .*decontaminated_counts` wrote whole molecules"):
        rsd.tl.audit(leaky, "cell_type", corrected_layer="resolvi_decontaminated", **QUIET)
    rsd.tl.decontaminated_counts(leaky, **QUIET)
    leaky.X = leaky.layers["resolvi_decontaminated"].copy()
    with pytest.raises(
        ValueError, match=r"`table.layers\['resolvi_counts'\]` has up to .* or the counts were replaced"
    ):
        rsd.tl.audit(leaky, "cell_type", **QUIET)


def test_removing_at_random_is_no_better_than_the_control(leaky):
    thinned = rsd.metrics.depth_matched(leaky.X, 0.6 * leaky.X, rng=1)
    with pytest.warns(UserWarning, match="own markers.*removes too much"):
        result = rsd.tl.audit(with_corrected(leaky, thinned), "cell_type", copy=True, **QUIET)
    for metric in ("coexpression_rate", "neighbor_contamination", "leak_sensitivity", "own_markers_removed"):
        found = values(result, metric)
        assert found["corrected"] == pytest.approx(found["depth_matched"], abs=0.05), metric
    # 40% of all molecules are gone; in an entry with own and foreign ones, those that are left count as own.
    assert 0.3 < values(result, "true_own_removed")["corrected"] < 0.4


def test_a_correction_of_nothing_is_warned_of(leaky):
    with pytest.warns(UserWarning, match=r"removed 0\.00% of the molecules"):
        result = rsd.tl.audit(with_corrected(leaky, leaky.X.copy()), "cell_type", copy=True, **QUIET)
    assert values(result, "leak_sensitivity")["corrected"] == pytest.approx(0)


def test_a_fit_is_better_than_the_control_on_all_that_tells_leakage(leaky):
    leaky.uns.pop("resolvi_audit", None)
    rsd.tl.audit(leaky, "cell_type", **QUIET)
    result = leaky.uns["resolvi_audit"]
    for metric in ("coexpression_rate", "neighbor_contamination", "leak_sensitivity", "true_foreign_removed"):
        found, sign = (
            values(result, metric),
            1 if result.set_index("metric")["better"][metric].iloc[0] == "higher" else -1,
        )
        assert sign * (found["corrected"] - found["depth_matched"]) > 0, metric
    own = values(result, "own_markers_removed")
    assert own["corrected"] < own["depth_matched"]
    assert values(result, "latent_batch_mixing")["corrected"] > 0.5


def test_with_a_reference_of_other_names(leaky):
    reference = reference_of(leaky)
    names = {name: f"sc_{name}" for name in leaky.obs["cell_type"].cat.categories}
    result = rsd.tl.audit(
        leaky, "cell_type", reference=reference, reference_labels_key="label", label_map=names, copy=True, **QUIET
    )
    cosine, purity = values(result, "reference_cosine"), values(result, "negative_marker_purity_reads")
    assert cosine["corrected"] > cosine["depth_matched"] and purity["corrected"] >= purity["depth_matched"]
    # The cosine, in a few lines of numpy.
    expected = []
    for name in leaky.obs["cell_type"].cat.categories:
        a = np.asarray(leaky.layers["resolvi_counts"][(leaky.obs["cell_type"] == name).to_numpy()].sum(0)).ravel()
        b = reference.X[(reference.obs["label"] == names[name]).to_numpy()].sum(0)
        expected.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert cosine["corrected"] == pytest.approx(np.mean(expected), rel=1e-4)
    some = dict(list(names.items())[1:])
    left_out = rf"Only in the table: '{next(iter(names))}'; only in the reference: .*`label_map="
    with pytest.warns(UserWarning, match=left_out):
        rsd.tl.audit(
            leaky, "cell_type", reference=reference, reference_labels_key="label", label_map=some, copy=True, **QUIET
        )
    with pytest.raises(ValueError, match="shares no label.*label_map="):
        rsd.tl.audit(leaky, "cell_type", reference=reference, reference_labels_key="label", **QUIET)


def test_labels_of_a_reference_are_read_as_those_of_the_table(leaky):
    reference = reference_of(leaky)
    types = leaky.obs["cell_type"].cat.categories
    days = dict(zip(types, pd.date_range("2020-01-01", periods=len(types)), strict=True))
    leaky.obs["day"] = pd.Categorical(leaky.obs["cell_type"].astype(object).map(days))
    reference.obs["day"] = pd.Categorical(reference.obs["label"].str.removeprefix("sc_").map(days))
    result = rsd.tl.audit(leaky, "day", reference=reference, reference_labels_key="day", copy=True, **QUIET)
    assert values(result, "reference_cosine").notna().all()


def test_what_cannot_be_measured_says_why(leaky):
    """Labels at random have no exclusive genes."""
    leaky.obs["random"] = np.random.default_rng(0).choice(["a", "b"], leaky.n_obs)
    result = rsd.tl.audit(leaky, "random", copy=True, **QUIET)
    row = result[result["metric"] == "coexpression_rate"].iloc[0]
    assert np.isnan(row["value"]) and "No exclusive markers at these thresholds" in row["note"]
    undefined = result[result["value"].isna()]
    assert set(undefined["metric"]) >= {"leak_sensitivity", "own_markers_removed"}
    assert (undefined["note"] != "").all() and (result.loc[result["value"].notna(), "note"] == "").all()
    assert values(result, "molecules_removed").notna().all()


@pytest.mark.filterwarnings("ignore:The correction in:UserWarning")
def test_a_correction_that_leaves_nothing_is_audited(leaky):
    leaky.layers["nothing"] = 0 * leaky.X
    reference = reference_of(leaky)
    names = {label: f"sc_{label}" for label in leaky.obs["cell_type"].cat.categories}
    settings = {"reference": reference, "reference_labels_key": "label", "label_map": names}
    result = rsd.tl.audit(leaky, "cell_type", corrected_layer="nothing", copy=True, **settings, **QUIET)
    assert values(result, "true_foreign_removed")["corrected"] == 1
    assert (result.loc[result["value"].isna(), "note"] != "").all()


def test_a_part_that_fails_midway_is_one_row_with_the_reason(leaky, monkeypatch):
    def failing(*arguments, **settings):
        if failing.calls:
            raise ValueError("not this layer")
        failing.calls += 1
        return coexpression_rate(*arguments, **settings)

    failing.calls = 0
    monkeypatch.setattr("resolvi_sd.metrics.coexpression_rate", failing)
    result = rsd.tl.audit(leaky, "cell_type", copy=True, **QUIET)
    found = result[result["metric"].str.startswith("coexpression")]
    assert found["note"].tolist() == ["not this layer"] and found["value"].isna().all()


def test_it_survives_a_store_and_a_new_fit_removes_it(_leaky, tmp_path):
    sdata = sd.SpatialData(shapes=dict(_leaky.shapes), tables={"table": _leaky.tables["table"].copy()})
    rsd.tl.audit(sdata, "cell_type", **QUIET)
    sdata.write(tmp_path / "tissue.zarr")
    again = sd.read_zarr(tmp_path / "tissue.zarr").tables["table"].uns["resolvi_audit"]
    np.testing.assert_allclose(again["value"], sdata.tables["table"].uns["resolvi_audit"]["value"])
    rsd.tl.fit(sdata, max_epochs=1, **QUIET)
    assert "resolvi_audit" not in sdata.tables["table"].uns


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labels_key": "type"}, KeyError, "labels_key='type'.*it has: .*'cell_type'"),
        ({"labels_key": "one"}, ValueError, "has 1 labels"),
        ({"labels_key": "resolvi_predicted"}, ValueError, "predictions of a fit"),
        (
            {"markers": {"type_0": ["nope"], "type_1": ["no"]}},
            ValueError,
            "None of the markers is a gene.*nope",
        ),
        ({"corrected_layer": "logarithms"}, ValueError, "holds logarithms of the counts"),
        ({"reference": "object", "reference_labels_key": "label"}, TypeError, "`reference` must be an AnnData, not"),
        ({"reference_labels_key": "label"}, ValueError, "require a `reference`"),
        (
            {"label_map": {"type_9": "x"}, "markers": {"x": ["gene_00"]}},
            KeyError,
            "label_map='type_9'.* Its keys are .* table, its values names in",
        ),
        ({"label_map": {"type_0": "x"}}, ValueError, "`label_map` would be ignored"),
        ({"reference": "strange", "reference_labels_key": "label"}, ValueError, "shares no gene with the table"),
        ({"reference": "good"}, ValueError, "reference_labels_key=.*'label'"),
        ({"reference": "rates", "reference_labels_key": "label"}, ValueError, "whole|integer"),
    ],
)
def test_bad_input(leaky, settings, error, message):
    leaky.obs["one"] = "a"
    reference = reference_of(leaky)
    strange, rates = reference.copy(), reference.copy()
    strange.var_names = [f"probe{i}" for i in range(strange.n_vars)]
    rates.X = rates.X / 7
    leaky.layers["logarithms"] = leaky.X.log1p()
    settings = {"labels_key": "cell_type"} | settings
    if "reference" in settings:
        settings["reference"] = {"strange": strange, "good": reference, "rates": rates, "object": sd.SpatialData()}[
            settings["reference"]
        ]
    with pytest.raises(error, match=message):
        rsd.tl.audit(leaky, **settings, **QUIET)
    assert "resolvi_audit" not in leaky.uns


def test_without_a_fit():
    sdata = rsd.datasets.simulate_tissue(n_cells=200, n_genes=30, rng=0, transcripts=False)
    with pytest.raises(KeyError, match=r"run .*tl\.fit"):
        rsd.tl.audit(sdata, "cell_type", **QUIET)


def test_a_section_of_several_batches_keeps_the_metrics_of_its_latent(_leaky):
    """Only mixing needs a second batch."""
    table = _leaky.tables["table"]
    part = table[table.obs["sample"] == table.obs["sample"].iloc[0]].copy()
    result = rsd.tl.audit(part, "cell_type", copy=True, **QUIET)
    assert values(result, "latent_knn_accuracy").notna().all() and values(result, "latent_silhouette").notna().all()
    assert "latent_batch_mixing" not in set(result["metric"])


def test_a_column_of_the_fit_that_is_gone_is_named(_leaky):
    table = _leaky.tables["table"].copy()
    table.uns["resolvi"]["setup"]["library_key"] = "region"
    del table.obs["sample"]
    with pytest.raises(KeyError, match=r"batch_key='sample' is not in `table.obs`; it has"):
        rsd.tl.audit(table, "cell_type", copy=True, **QUIET)


def test_markers_that_are_not_in_the_panel_are_left_out(leaky):
    pure = leaky.var["marker_of"].astype(str)
    markers = {name: pure.index[pure == name].tolist() for name in leaky.obs["cell_type"].cat.categories}
    more = {name: [*genes, "not in the panel"] for name, genes in markers.items()}
    expected = rsd.tl.audit(leaky, "cell_type", markers=markers, copy=True, **QUIET)
    with pytest.warns(UserWarning, match="Markers that are not genes of the table are left out: 'not in the panel'"):
        found = rsd.tl.audit(leaky, "cell_type", markers=more, copy=True, **QUIET)
    pd.testing.assert_frame_equal(found, expected)
    assert values(found, "leak_sensitivity").notna().all()


def test_counts_may_be_of_any_whole_type(leaky):
    expected = rsd.tl.audit(leaky, "cell_type", corrected_layer="true_own", copy=True, **QUIET)
    leaky.X, leaky.layers["true_own"] = (sp.csr_array(m).astype(np.uint32) for m in (leaky.X, leaky.layers["true_own"]))
    found = rsd.tl.audit(leaky, "cell_type", corrected_layer="true_own", copy=True, **QUIET)
    counts = ~expected["metric"].str.startswith("latent")
    pd.testing.assert_frame_equal(found[counts], expected[counts], rtol=1e-4)


def test_a_layer_without_numbers_is_named(leaky):
    leaky.layers["broken"] = leaky.layers["resolvi_counts"].copy()
    leaky.layers["broken"].data[0] = np.nan
    with pytest.raises(ValueError, match=r"corrected_layer='broken' has values that are NaN or infinite"):
        rsd.tl.audit(leaky, "cell_type", corrected_layer=["resolvi_counts", "broken"], **QUIET)


def test_markers_are_lists_of_names(leaky):
    """A name in place of a list would be taken for its letters."""
    with pytest.raises(TypeError, match=r"`markers\['type_0'\]` must be a list of names; did you mean \['gene_00'\]"):
        rsd.tl.audit(leaky, "cell_type", markers={"type_0": "gene_00"}, copy=True, **QUIET)
