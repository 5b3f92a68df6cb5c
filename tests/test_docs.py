"""The code of a page runs from top to bottom."""

import re
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import resolvi_sd as rsd

DOCS = Path(__file__).parents[1] / "docs"
# What only a simulation knows.
TRUTHS = ("cell_type", "domain", "gradient", "overlapping", "simulation")


def code_of(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL))


@pytest.mark.slow
def test_large_data_page_runs(tmp_path, monkeypatch):
    sdata = rsd.datasets.simulate_tissue(n_cells=600, n_genes=60, n_samples=2, transcripts=False, rng=0)
    sdata.write(tmp_path / "my.zarr")
    sdata.tables["table"].write_h5ad(tmp_path / "my.h5ad")
    monkeypatch.chdir(tmp_path)
    code = code_of("large_data.md").replace("library_key=", "max_epochs=2, library_key=")
    code = code.replace("TrainingConfig(", "TrainingConfig(max_epochs=2, ").replace(
        "training=training, max_epochs=2,", "training=training,"
    )
    namespace = {"__name__": "__main__"}
    exec(compile(code, "large_data.md", "exec"), namespace)
    assert rsd.io.results_state("my.zarr") == "complete" and any(Path("checkpoints").iterdir())
    read, fitted = rsd.io.read_backed("my.zarr")["table"], ad.read_h5ad("fitted.h5ad")
    assert fitted.obsm["X_resolvi"].shape == read.obsm["X_resolvi"].shape
    assert (fitted.X - fitted.layers["resolvi_counts"]).min() >= 0


def test_from_scvi_page_runs():
    sdata = rsd.datasets.simulate_tissue(n_cells=300, n_genes=40, n_samples=2, transcripts=False, rng=0)
    adata = sdata.tables["table"]
    adata.layers["counts"] = adata.X.copy()
    code = code_of("from_scvi.md").replace("model.train()", "model.train(2)").replace("max_epochs=100", "max_epochs=2")
    exec(compile(code, "from_scvi.md", "exec"), {"adata": adata})
    assert (adata.layers["counts"] - adata.layers["corrected"]).min() >= 0
    assert set(adata.obs["predicted"]) <= set(adata.obs["cell_type"])
    np.testing.assert_allclose(adata.obs[["own", "diffusion", "background"]].sum(axis=1), 1, rtol=1e-5)


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages that the page is about
def test_interoperability_page_runs(monkeypatch, tmp_path):
    pytest.importorskip("igraph")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    sdata = rsd.datasets.simulate_tissue(n_cells=500, n_genes=40, transcripts=False, rng=0)
    code = code_of("interoperability.md").replace("EPCAM", sdata["table"].var_names[0]).replace("500", "150")
    code = code.replace('table_key="table")', "max_epochs=2)").replace("fit(part)", "fit(part, max_epochs=2)")
    code = code.replace('table_key="kept")', 'table_key="kept", max_epochs=2)')
    namespace = {"sdata": sdata}
    exec(compile(code, "interoperability.md", "exec"), namespace)
    part, table = namespace["part"]["table"], sdata["table"]
    assert 10 < part.n_obs < 500
    assert table.obs["resolvi_true"].notna().sum() == part.n_obs
    assert "resolvi_counts" in sdata["kept"].layers
    assert pd.read_csv("pseudobulk.csv", index_col=0).shape[0] == 40
    exported = ad.read_h5ad("corrected.h5ad")
    assert rsd.ResolVI.from_table(exported).is_trained and exported.obsm["spatial"].shape == (500, 2)
    plt.close("all")
