"""What a fit left is used on the table that is asked for, whatever it was called at the fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import resolvi_sd as rsd

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def fitted():
    sdata = rsd.datasets.simulate_tissue(n_cells=600, n_genes=40, transcripts=False, rng=0)
    rsd.tl.fit(sdata, max_epochs=5, **QUIET)
    return sdata


@pytest.fixture
def renamed(fitted):
    """The same elements with the table under another name, in another order, and in part."""
    table = fitted.tables["table"]
    order = np.random.default_rng(0).permutation(table.n_obs)
    tables = {"table": table, "shuffled": table[order].copy(), "part": table[order[:400]].copy()}
    return sd.SpatialData(shapes=dict(fitted.shapes), tables=tables)


def alone(sdata, name):
    """Return the elements with one table only, under the name that it had at the fit."""
    return sd.SpatialData(shapes=dict(sdata.shapes), tables={"table": sdata.tables[name].copy()})


def test_the_object_gives_the_results_that_are_in_the_table(renamed):
    model = rsd.ResolVI.from_table(renamed, table_key="shuffled")
    difference = model.get_corrected_counts() - renamed["shuffled"].layers["resolvi_counts"]
    assert np.abs(difference.data).max(initial=0) < 1e-4
    del renamed.tables["table"]
    np.testing.assert_allclose(rsd.ResolVI.from_table(renamed, table_key="shuffled").get_shares(), model.get_shares())


@pytest.mark.filterwarnings("ignore:.*had neighbors in the fit")
@pytest.mark.parametrize("name", ["shuffled", "part"])
def test_others_say_what_they_say_of_a_table_of_its_own(renamed, name):
    pd.testing.assert_frame_equal(
        rsd.tl.audit(renamed, "cell_type", table_key=name, copy=True, **QUIET),
        rsd.tl.audit(alone(renamed, name), "cell_type", copy=True, **QUIET),
    )
    found, expected = (
        rsd.ResolVI.from_table(sdata, table_key=key).get_corrected_counts()
        for sdata, key in ((renamed, name), (alone(renamed, name), "table"))
    )
    np.testing.assert_allclose(found.toarray(), expected.toarray(), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:5 of 40 genes")
def test_a_query_that_got_a_table_of_its_own(fitted):
    query = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, transcripts=False, rng=1)
    query["few"] = query["table"][:, :35].copy()
    fitted["other"] = fitted["table"]
    rsd.tl.map_query(query, fitted, table_key="few", reference_table_key="other", table_added="mapped", **QUIET)
    del query.tables["few"]
    model = rsd.ResolVI.from_table(query, table_key="mapped")
    difference = model.get_corrected_counts() - query["mapped"].layers["resolvi_counts"]
    assert np.abs(difference.data).max(initial=0) < 1e-4
