"""The code of a page runs from top to bottom."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import resolvi_sd as rsd

DOCS = Path(__file__).parents[1] / "docs"
# What only a simulation knows.
TRUTHS = ("cell_type", "domain", "gradient", "overlapping", "simulation")


def code_of(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL))


@pytest.mark.slow
def test_own_data_page_runs_on_a_store_without_labels(tmp_path, monkeypatch):
    pytest.importorskip("igraph")
    sdata = rsd.datasets.simulate_tissue(n_cells=600, n_genes=60, transcripts=False, rng=0)
    table = sdata.tables["table"]
    table.obs = table.obs.drop(columns=[c for c in table.obs if c.startswith("true") or c in TRUTHS])
    for part in (table.layers, table.obsm, table.obsp, table.varm, table.uns):
        for key in [key for key in part if key is not None and (key.startswith("true") or key in TRUTHS)]:
            del part[key]
    sdata.write(tmp_path / "my.zarr")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(code_of("own_data.md"), "own_data.md", "exec"), namespace)
    plt.close("all")
    stored = namespace["sd"].read_zarr("my.zarr").tables["table"]
    assert {"resolvi_audit", "resolvi_de", "resolvi_leakage"} <= set(stored.uns)
    assert "resolvi_counts" in stored.layers
    # As the page says.
    assert "raw_cluster" not in stored.obs
