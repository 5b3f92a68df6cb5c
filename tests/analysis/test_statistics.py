"""The statistics of comparisons, on draws whose answers are known."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy import stats
from scipy.stats import norm

from resolvi_sd._analysis import (
    DecisionRule,
    adjacent_units,
    bootstrap_means,
    cell_groups,
    check_draws,
    check_pseudocount,
    check_sizes,
    detection,
    draw_labels,
    edge_weights,
    effective_units,
    estimate_pseudocount,
    label_probabilities,
    make_comparisons,
    neighborhood_composition,
    posterior_expected_fdr,
    rank_genes_groups,
    spatial_dependence,
    summarize_change,
    widened,
)
from resolvi_sd._analysis._labels import LabelProbabilities
from resolvi_sd._analysis._shrinkage import _scales, shrunk_probability
from resolvi_sd._analysis._statistics import add_calls
from resolvi_sd._keys import Keys
from resolvi_sd._setup import Setup
from resolvi_sd._tables import group_by, read_labels

CHANGE = DecisionRule("change", delta=0.25, fdr=0.05)


def test_probabilities_are_frequencies_and_log_odds_stay_finite():
    change = np.array([[1, -1, 0.1, 0], [1, -1, 0.1, 0], [1, 1, 0.1, 0], [1, -1, 0.1, 0]], np.float32)
    table = summarize_change(change, CHANGE)
    np.testing.assert_allclose(table["proba_de"], [1, 0.75, 0, 0])
    np.testing.assert_allclose(table["bayes_factor"], np.log([7, 3, 1 / 7, 1 / 7]))
    np.testing.assert_allclose(table["proba_de_se"][1], np.sqrt(0.75 * 0.25 / 4))
    np.testing.assert_allclose(table["lfc_median"], [1, -1, 0.1, 0])
    np.testing.assert_array_equal(table["is_de_fdr"], [True, False, False, False])
    np.testing.assert_allclose(
        summarize_change(change, DecisionRule("vanilla", delta=0, fdr=0.05))["proba_de"], [1, 0.75, 1, 0.5]
    )


def test_a_difference_without_direction_is_no_difference():
    change = np.random.default_rng(0).normal(0, 5, (4000, 1)).astype(np.float32)  # nearly all beyond 0.25
    table = summarize_change(change, CHANGE)
    assert (np.abs(change) > 0.25).mean() > 0.95 and table["proba_de"][0] < 0.55


def test_the_standard_error_is_the_spread_of_repetitions():
    rng = np.random.default_rng(1)
    runs = [summarize_change(rng.normal(0.5, 1, (400, 1)), CHANGE) for _ in range(300)]
    spread = np.std([run["proba_de"][0] for run in runs])
    assert spread == pytest.approx(np.mean([run["proba_de_se"][0] for run in runs]), rel=0.15)


def test_calls_keep_the_stated_rate_when_probabilities_are_calibrated():
    rng = np.random.default_rng(2)
    probability = rng.beta(0.5, 0.5, 20_000)
    true = rng.random(20_000) < probability
    for fdr in (0.05, 0.2):
        called = posterior_expected_fdr(probability) <= fdr
        assert 1 - true[called].mean() == pytest.approx(fdr, abs=0.01)


def test_pseudocount_comes_from_genes_that_are_not_expressed_or_from_the_depth():
    expression = np.linspace(0.001, 0.02, 20)
    none, all_ = np.zeros(20), np.ones(20)
    assert estimate_pseudocount(expression, expression / 2, none, none, depth=100) == pytest.approx(0.0181, rel=1e-3)
    assert estimate_pseudocount(expression, expression, none, all_, depth=100) == pytest.approx(1e-4)


@pytest.fixture
def table():
    counts = np.array([[2, 0], [0, 0], [4, 1], [0, 3], [1, 1]], np.float32)
    return AnnData(counts, obs=pd.DataFrame({"group": ["b", "a", "b", "c", None]}, index=list("vwxyz")))


def test_detection_of_unions_is_that_of_their_cells(table):
    import scipy.sparse as sp

    groups = cell_groups(table, "group", argument="groupby")
    assert groups.names == ("a", "b", "c") and groups.codes.tolist() == [1, 0, 1, 2, -1]
    found = detection(sp.csr_matrix(table.X), groups, genes=np.arange(table.n_vars), among=np.ones(5, bool))
    np.testing.assert_allclose(found.mean([0, 1]), table.X[:3].mean(0))
    np.testing.assert_allclose(found.fraction([0, 1]), (table.X[:3] > 0).mean(0))


def test_comparisons_are_each_group_with_the_others_together(table):
    groups = cell_groups(table, "group", argument="groupby")
    everywhere = np.ones(5, bool)
    found = make_comparisons(groups, None, None, among=everywhere)
    assert [(c.name1, c.second, c.name2) for c in found] == [
        ("a", (1, 2), "rest"),
        ("b", (0, 2), "rest"),
        ("c", (0, 1), "rest"),
    ]
    found = make_comparisons(groups, "b", ["a", "c"], among=everywhere)
    assert [(c.first, c.second, c.name2) for c in found] == [(1, (0, 2), "a + c")]


def test_composition_by_hand():
    import scipy.sparse as sp

    distances = sp.csr_matrix(([1.0, 3.0, 2.0], ([0, 0, 1], [1, 2, 0])), shape=(4, 4))
    labels = np.array([[1, 0], [0.5, 0.5], [0, 0], [0, 1]])
    uniform = edge_weights(distances > 0, "uniform")
    np.testing.assert_allclose(neighborhood_composition(uniform, labels)[:2], [[0.5, 0.5], [1, 0]])  # no label: out
    assert np.isnan(neighborhood_composition(uniform, labels)[2:]).all()
    labels[2] = [0, 1]
    near, far = np.exp(-0.5), np.exp(-1.5)  # the median distance is 2
    np.testing.assert_allclose(
        neighborhood_composition(edge_weights(distances, "distance"), labels)[0, 0],
        0.5 * near / (near + far),
        rtol=1e-6,
    )


def test_drawn_labels_have_their_probabilities():
    adata = AnnData(np.ones((20_000, 1), np.float32))
    adata.obsm["resolvi_probabilities"] = np.tile([0.2, 0.0, 0.8], (20_000, 1))
    adata.obsm["resolvi_probabilities"][0] = np.nan
    adata.uns["resolvi"] = {"labels": np.array(["a", "b", "T/NK"], dtype=object)}
    drawn = draw_labels(label_probabilities(adata, Keys(), None), np.random.default_rng(0))
    assert (drawn[1:].sum(1) == 1).all() and (drawn[0] == 0).all()
    np.testing.assert_allclose(drawn[1:].mean(0), [0.2, 0, 0.8], atol=0.01)


def test_the_bootstrap_has_the_standard_error_of_a_mean_over_blocks():
    rng = np.random.default_rng(0)
    blocks = rng.normal(5, 1, (400, 1, 1))
    draws = bootstrap_means(10 * blocks[None], np.full((400, 1), 10.0), n_samples=4000, rng=rng)
    assert draws.mean() == pytest.approx(blocks.mean(), abs=0.01)
    assert draws.std() == pytest.approx(blocks.std() / 20, rel=0.1)


def test_a_group_in_one_block_is_uncertain():
    totals = np.array([[[[10.0], [0.0]]] + [[[0.0], [0.0]]] * 9])  # group 0: one block of ten cells, all of the label
    n_cells = np.array([[10.0, 0.0]] + [[0.0, 10.0]] * 9)
    draws = bootstrap_means(totals, n_cells, n_samples=4000, rng=np.random.default_rng(0))
    # Two exponential weights, one of them with the overall mean of 0.1: uniform between 0.1 and 1.
    np.testing.assert_allclose(np.quantile(draws[:, 0, 0], [0.1, 0.5, 0.9]), [0.19, 0.55, 0.91], atol=0.03)


def test_scanpy_layout_is_sorted_by_score():
    table = pd.DataFrame(
        {
            "group1": ["A", "A", "A"],
            "group2": "rest",
            "gene": ["x", "y", "z"],
            "proba_de": [0.1, 0.9, 0.8],
            "expected_fdr": [0.4, 0.1, 0.15],
            "lfc_mean": [0.0, -2.0, 1.0],
            "lfc_std": [0.0, 1.0, 0.5],
        }
    )
    ranked = rank_genes_groups(table, groupby="type", layer=None)
    assert ranked["names"]["A"].tolist() == ["z", "x", "y"]
    np.testing.assert_allclose(ranked["scores"]["A"], [2, 0, -2])
    np.testing.assert_allclose(ranked["pvals"]["A"], [0.2, 0.9, 0.1])


@pytest.mark.parametrize("mode", ["change", "vanilla"])
def test_shrunk_probabilities_are_those_under_the_prior_that_the_changes_came_from(mode):
    rng = np.random.default_rng(0)
    changed = rng.random(20_000) < 0.4
    truth = np.where(changed, rng.normal(0, 1.5, 20_000), 0.0)
    error = rng.uniform(0.2, 1.5, 20_000)
    found = rng.normal(truth, error)
    probability = shrunk_probability(found, error, DecisionRule(mode, delta=0.25, fdr=0.05))
    # Bayes with the known prior: 0.6 at zero, 0.4 normal.
    variance = 1.5**2 + error**2
    odds = 0.4 / 0.6 * norm.pdf(found, 0, np.sqrt(variance)) / norm.pdf(found, 0, error)
    center, spread = found * 1.5**2 / variance, error * 1.5 / np.sqrt(variance)
    least = 0.25 if mode == "change" else 0.0
    beyond = np.maximum(norm.sf((least - center) / spread), norm.cdf((-least - center) / spread))
    share = odds / (1 + odds)
    expected = share * beyond + (0 if mode == "change" else 0.5 * (1 - share))
    # Which of two directions, if any, says little where zero and next to zero are told apart by nothing.
    np.testing.assert_allclose(probability, expected, atol=0.06 if mode == "change" else 0.12)
    # And so calls keep their rate.
    called = posterior_expected_fdr(probability) <= 0.05
    right = (np.sign(found) == np.sign(truth)) & (np.abs(truth) >= least) & changed
    if mode == "change":
        assert called.sum() > 500 and 1 - right[called].mean() == pytest.approx(0.05, abs=0.015)


def test_where_nothing_changes_large_errors_make_no_calls():
    rng = np.random.default_rng(1)
    error = rng.uniform(0.1, 3, 500)
    change = rng.normal(0, error, (2000, 500)).astype(np.float32) + rng.normal(0, error).astype(np.float32)
    table = summarize_change(change, CHANGE)
    assert table["is_de_fdr"].sum() > 40  # each by itself
    shrunk = shrunk_probability(table["lfc_mean"].to_numpy(float), table["lfc_std"].to_numpy(float), CHANGE)
    assert not (posterior_expected_fdr(shrunk) <= 0.05).any()


def test_draws_without_spread_are_no_error():
    same = np.zeros(5)
    np.testing.assert_array_equal(shrunk_probability(same, same, CHANGE), 0)
    np.testing.assert_allclose(shrunk_probability(same, same, DecisionRule("vanilla", delta=0.25, fdr=0.05)), 0.5)


def test_with_a_varied_prior_a_label_may_have_been_missed_by_chance():
    """Of blocks with one label each, a fifth have the label that a group of twelve blocks lacks."""
    of_label = np.r_[np.zeros(12), np.tile([1.0, 0, 0, 0], 12)]
    n_cells = np.stack([np.arange(60) < 12, np.arange(60) >= 12], axis=1) * 10.0
    totals = (n_cells * of_label[:, None])[None, :, :, None]
    mean, varied = (
        bootstrap_means(totals, n_cells, varied_prior=varied, n_samples=4000, rng=np.random.default_rng(0))[:, 0, 0]
        for varied in (False, True)
    )
    assert mean.max() < 0.2 < np.quantile(varied, 0.99)
    assert mean.mean() == pytest.approx(varied.mean(), abs=0.005) == pytest.approx(0.2 / 13, abs=0.003)


def test_one_large_unit_counts_as_little_more_than_one():
    n_cells = np.array([[50, 900], [50, 60], [50, 60], [50, 0]])
    np.testing.assert_allclose(effective_units(n_cells), [4, 1020**2 / (900**2 + 2 * 60**2)])


@pytest.mark.parametrize(("shared", "expected"), [(False, 1.0), (True, 2.0)])
def test_adjacent_units_that_share_half_of_their_deviation_double_the_variance(shared, expected):
    """The variance of the sum of e[i] + e[i + 1] over a ring is twice that of independent ones of the same variance."""
    noise = np.random.default_rng(0).normal(size=(2000, 2, 3))
    value = noise + (np.roll(noise, 1, axis=0) if shared else np.random.default_rng(1).normal(size=noise.shape))
    ring = sp.csr_matrix((np.ones(2000), (np.arange(2000), np.roll(np.arange(2000), 1))))
    adjacent = adjacent_units(ring, np.arange(2000))
    assert (adjacent != adjacent.T).nnz == 0 and adjacent.nnz == 4000 and set(adjacent.data) == {1.0}
    found = spatial_dependence(value + 5, np.ones((2000, 2)), adjacent)
    assert found == pytest.approx(expected, abs=0.06)


def test_dependence_of_few_units_is_unbiased():
    rng = np.random.default_rng(0)
    every = sp.csr_matrix(np.ones((6, 6)) - np.eye(6))
    for _ in range(5):  # deviations sum to zero, so that all of them together say nothing
        value = rng.normal(size=(6, 2, 2))
        assert spatial_dependence(value, np.ones((6, 2)), every) == pytest.approx(1)


@pytest.mark.parametrize("n_units", [3, 5, 12])
def test_intervals_of_few_units_cover_the_truth(n_units):
    """Of units whose log means are drawn around zero; a bootstrap alone covers too little."""
    rng = np.random.default_rng(3)
    inside, bare, runs = 0, 0, 400
    for _ in range(runs):
        value = np.exp2(rng.normal(0, 0.3, n_units))
        # A second group, far larger, so that what is common to all (the prior) is known.
        totals = np.zeros((1, 2 * n_units, 2, 1))
        n_cells = np.zeros((2 * n_units, 2))
        totals[0, :n_units, 0, 0], n_cells[:n_units, 0] = 100 * value, 100
        totals[0, n_units:, 1, 0], n_cells[n_units:, 1] = 100, 100
        draws = np.log2(bootstrap_means(totals, n_cells, n_samples=400, rng=rng))
        wide = widened(draws, np.array([n_units, n_units]), rng=rng)
        for i, these in enumerate((draws, wide)):
            low, high = np.quantile(these[:, 0, 0], [0.05, 0.95])
            covered = low <= np.log2(np.exp(0.5 * (0.3 * np.log(2)) ** 2)) <= high  # the mean of a log-normal
            bare, inside = bare + (covered and i == 0), inside + (covered and i == 1)
    assert inside / runs >= 0.86
    if n_units < 12:
        assert bare / runs < 0.86


@pytest.mark.parametrize("column", [pd.Categorical([1, "1", 1, "1"], categories=[1, "1"]), [1, "1", 1, "1"]])
def test_names_that_are_the_same_text_are_told(column):
    table = AnnData(np.ones((4, 1)), obs=pd.DataFrame({"group": column}, index=list("abcd")))
    message = r"Values of the column 'group', read as text, must be unique.* '1'"
    with pytest.raises(ValueError, match=message):
        cell_groups(table, "group", argument="groupby")
    with pytest.raises(ValueError, match=message):
        group_by(table, "group", argument="batch_key")
    with pytest.raises(ValueError, match=message):
        read_labels(table, "group", "unknown")


@pytest.mark.parametrize("values", [[-1.0, 0.0, 1.0], [-1, 0, 1], ["-1", "0", "1"]])
def test_cells_without_a_label_are_those_that_the_fit_left_unlabeled(values):
    """Numbers are compared as numbers: a column of floats has the text "-1.0"."""
    table = AnnData(np.ones((6, 1)), obs=pd.DataFrame({"kind": values * 2}, index=list("uvwxyz")))
    setup = Setup(n_neighbors=5, labels_key="kind", unlabeled_category="-1")
    groups = cell_groups(table, "kind", argument="groupby", setup=setup)
    labels = read_labels(table, "kind", "-1")
    assert groups.names == labels.names and len(groups.names) == 2
    assert groups.codes.tolist() == labels.codes.tolist() == [-1, 0, 1] * 2
    assert len(cell_groups(table, "kind", argument="groupby").names) == 3


def test_rules_that_make_no_sense_are_refused():
    for settings in ({"mode": "both"}, {"delta": -1.0}, {"fdr": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
            DecisionRule(**({"mode": "change", "delta": 0.25, "fdr": 0.05} | settings))
    with pytest.raises(ValueError, match="`n_samples` must be at least 20, not 1"):
        check_draws(1)  # a single draw has no spread, so that every change would be certain
    with pytest.raises(TypeError, match="`pseudocount` must be a number"):
        check_pseudocount(None)


def test_a_group_must_not_be_named_as_all_others_are():
    table = AnnData(np.ones((6, 1)), obs=pd.DataFrame({"group": ["rest", *"aabbb"]}, index=list("uvwxyz")))
    groups = cell_groups(table, "group", argument="groupby")
    among = np.ones(6, bool)
    with pytest.raises(ValueError, match=r"obs\['group'\] has a group named 'rest', which stands for all other groups"):
        make_comparisons(groups, "a", None, among=among)
    assert make_comparisons(groups, "a", None, among=among & (groups.codes != groups.names.index("rest")))  # unused
    with pytest.raises(ValueError, match=r"fewer than two cells with counts: 'rest' \(1 cell\)"):
        check_sizes(groups, make_comparisons(groups, "rest", "a", among=among), among=among, kind="with counts")


def test_groups_of_a_single_cell_are_not_compared():
    table = AnnData(np.ones((6, 1)), obs=pd.DataFrame({"group": ["one", *"aabbb"]}, index=list("uvwxyz")))
    groups = cell_groups(table, "group", argument="groupby")
    with pytest.warns(UserWarning, match="single cell are not compared: 'one'"):
        assert [c.name1 for c in make_comparisons(groups, None, None, among=np.ones(6, bool))] == ["a", "b"]


def test_text_that_stands_for_missing_values_is_told():
    table = AnnData(np.ones((4, 1)), obs=pd.DataFrame({"group": ["nan", "a", "a", "None"]}, index=list("uvwx")))
    with pytest.warns(UserWarning, match=r"obs\['group'\] has values that look like missing ones.*: 'None', 'nan'"):
        cell_groups(table, "group", argument="groupby")


def test_among_certain_hypotheses_none_is_called_that_is_probably_false():
    table = pd.DataFrame({"proba_de": np.append(np.ones(120), [0.6, 0.3, 0.004])})
    called = add_calls(table, CHANGE)["is_de_fdr"].to_numpy()
    assert (posterior_expected_fdr(table["proba_de"].to_numpy()) <= 0.05).all()  # there would be room for all
    assert called[:121].all() and not called[121:].any()


def test_rounding_makes_no_rate_negative():
    expected = posterior_expected_fdr(np.array([1 + 2e-16, 1.0, 0.5]))
    assert (expected >= 0).all() and expected.max() == pytest.approx(1 / 6)


@pytest.mark.parametrize("mode", ["change", "vanilla"])
def test_what_never_changes_is_not_called_by_any_change(mode):
    """With delta = 0 a change of exactly 0 was one in both directions, and certain."""
    change = np.zeros((100, 2), np.float32)
    change[:, 1] = np.random.default_rng(0).normal(1, 0.1, 100)
    table = summarize_change(change, DecisionRule(mode, delta=0.0, fdr=0.05))
    assert table["proba_de"].tolist() == [0.5, 1.0]
    assert table["is_de_fdr"].tolist() == [False, True]


def test_each_version_of_the_data_has_its_share_of_the_draws():
    totals = np.array([[[[0.0]]] * 200, [[[10.0]]] * 200])
    draws = bootstrap_means(totals, np.full((200, 1), 10.0), n_samples=100, rng=np.random.default_rng(0)).ravel()
    np.testing.assert_allclose(np.sort(draws), [0.0] * 50 + [1.0] * 50, atol=1e-4)


@pytest.mark.parametrize("n_units", [1, 2, 5])
def test_widened_normal_draws_have_students_quantiles(n_units):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(200_000, 2, 1)).astype(np.float32)
    wide, fewest = widened(draws, np.array([n_units, 40]), rng=rng), max(n_units, 2)
    for side, units in enumerate((fewest, 40)):
        expected = np.sqrt((units + 1) / (units - 1)) * stats.t(fewest - 1).ppf([0.25, 0.75])
        np.testing.assert_allclose(np.quantile(wide[:, side, 0], [0.25, 0.75]), expected, rtol=0.03)


def test_labels_are_drawn_in_proportion_to_their_probabilities():
    probabilities = LabelProbabilities(np.tile(np.float32([0.1, 0.3]), (20_000, 1)), ("a", "b"), certain=False)
    drawn = draw_labels(probabilities, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), [0.25, 0.75], atol=0.02)


def test_the_scales_of_the_shrinkage_reach_the_largest_change():
    mean, error = np.array([0.1, -4.0, 0.3]), np.full(3, 0.2)
    assert _scales(mean, error)[-1] >= 4.0
