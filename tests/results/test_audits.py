"""An audit is of corrected counts that are there: where others replace them it is removed, under whatever key it is."""

import numpy as np
import pandas as pd
from anndata import AnnData

from resolvi_sd._results import remove_audits


def test_audits_of_replaced_counts_are_removed():
    table = AnnData(np.ones((2, 2), dtype=np.float32))
    for fit, layer in (("resolvi", "resolvi_counts"), ("second", "resolvi_decontaminated"), ("third", "mine")):
        table.uns[fit] = {"weights": {}, "model_config": {}}
        table.uns[f"{fit}_audit"] = pd.DataFrame({"value": [0.0], "corrected_layer": pd.Categorical([layer])})
    table.uns["notes"] = pd.DataFrame({"corrected_layer": ["resolvi_decontaminated"]})
    remove_audits(table, ["resolvi_decontaminated", "resolvi_expression"])
    assert sorted(table.uns) == ["notes", "resolvi", "resolvi_audit", "second", "third", "third_audit"]
    del table.uns["third_audit"]["corrected_layer"]  # as an earlier version wrote it
    remove_audits(table, ["mine", "resolvi_counts"])
    assert "third_audit" in table.uns and "resolvi_audit" not in table.uns
