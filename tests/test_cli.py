"""Commands give what the functions of their names give, where they were told to."""

from __future__ import annotations

import re
import stat
import subprocess
import sys

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import resolvi_sd as rsd
from resolvi_sd.cli import main

QUIET = ["--show_progress_bar", "false"]
FIT = ["--max_epochs", "2", *QUIET]


@pytest.fixture(scope="module")
def tissue():
    return rsd.datasets.simulate_tissue(n_cells=200, n_genes=30, transcripts=False, rng=0)


@pytest.fixture
def store(tissue, tmp_path):
    tissue.write(tmp_path / "tissue.zarr")
    return tmp_path / "tissue.zarr"


@pytest.fixture
def file(tissue, tmp_path):
    tissue.tables["table"].write_h5ad(tmp_path / "tissue.h5ad")
    return tmp_path / "tissue.h5ad"


@pytest.fixture(scope="module")
def fitted(tissue):
    table = rsd.tl.fit(tissue, labels_key="cell_type", max_epochs=2, rng=3, copy=True, show_progress_bar=False)
    return table


def fit_of(path):
    return ["fit", str(path), "--labels_key", "cell_type", "--rng", "3", *FIT]


def same(found, expected, layer="resolvi_counts"):
    # Where arrays lie in memory changes the last bit of sums, and so, rarely, whether a molecule is kept.
    one, other = found.layers[layer].toarray(), expected.layers[layer].toarray()
    assert one.sum() > 0 and np.isclose(one, other, rtol=1e-4, atol=1e-4).mean() > 0.999


@pytest.mark.parametrize("backed", [[], ["--backed"]])
def test_fit_of_a_store_writes_into_it(store, fitted, tmp_path, backed):
    main([*fit_of(store), *backed, "--plot", str(tmp_path / "a.png")])
    assert rsd.io.results_state(store) == "complete"
    same(sd.read_zarr(store).tables["table"], fitted)
    assert (tmp_path / "a.png").stat().st_size > 0


def test_output_is_a_copy_with_the_results(store, file, fitted, tmp_path):
    main([*fit_of(store), "--output", str(tmp_path / "b.zarr")])
    assert rsd.io.results_state(store) == "absent"
    same(sd.read_zarr(tmp_path / "b.zarr").tables["table"], fitted)
    before = file.read_bytes()
    main([*fit_of(file), "--output", str(tmp_path / "b.h5ad")])
    assert file.read_bytes() == before
    table = ad.read_h5ad(file)
    rsd.tl.fit(table, labels_key="cell_type", max_epochs=2, rng=3, show_progress_bar=False)
    same(ad.read_h5ad(tmp_path / "b.h5ad"), table)


def test_results_of_a_table_are_written_into_it(file, tmp_path):
    expected = ad.read_h5ad(file)
    rsd.tl.fit(expected, max_epochs=2, show_progress_bar=False)
    rsd.tl.decontaminated_counts(expected, fpr=0.1, show_progress_bar=False)
    main(["fit", str(file), "--backed", *FIT])
    main(["decontaminated_counts", str(file), "--fpr", "0.1", *QUIET])
    found = ad.read_h5ad(file)
    same(found, expected)
    same(found, expected, "resolvi_decontaminated")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_options_of_a_file_and_settings_of_the_model(file, tmp_path):
    (tmp_path / "run.yaml").write_text("config:\n  n_hidden: 16\ncategorical_covariate_keys: [domain]\nrng: 5\n")
    main(["fit", str(file), "--settings", str(tmp_path / "run.yaml"), "--training.max_epochs", "2", *QUIET])
    found, expected = ad.read_h5ad(file), ad.read_h5ad(file)
    config, training = rsd.ModelConfig(n_hidden=16), rsd.TrainingConfig(max_epochs=2)
    rsd.tl.fit(
        expected,
        config=config,
        training=training,
        categorical_covariate_keys=["domain"],
        rng=5,
        show_progress_bar=False,
    )
    same(found, expected)


def test_the_command_line_overrides_a_file_wherever_it_stands(file, tmp_path, capsys):
    other = tmp_path / "other.h5ad"
    other.write_bytes(file.read_bytes())
    with pytest.raises(SystemExit, match="0"):
        main(["fit", str(other), "--max_epochs", "2", *QUIET, "--print_config"])
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    before = other.read_bytes()
    main(["fit", str(file), "--key_added", "mine", "--settings", str(tmp_path / "run.yaml")])
    assert other.read_bytes() == before  # although the file names it
    assert {"X_mine"} <= set(ad.read_h5ad(file).obsm)
    new = tmp_path / "new.h5ad"
    main(["fit", str(other), "--output", str(new), f"--settings={tmp_path / 'run.yaml'}"])
    assert other.read_bytes() == before and new.exists()


def test_tables_of_results_are_written_apart(store, fitted, tmp_path):
    main(fit_of(store))
    asked = ["--groupby", "cell_type", "--n_samples", "100", "--csv", str(tmp_path / "de.csv")]
    main(["differential_expression", str(store), *asked, "--plot", str(tmp_path / "de.png"), *QUIET])
    table = fitted.copy()
    rsd.tl.differential_expression(table, groupby="cell_type", n_samples=100, show_progress_bar=False)
    found = pd.read_csv(tmp_path / "de.csv")
    expected = table.uns["resolvi_de"]
    assert list(found) == list(expected) and list(found["gene"]) == list(expected["gene"])
    np.testing.assert_allclose(found["lfc_mean"], expected["lfc_mean"], rtol=1e-6)
    assert (tmp_path / "de.png").stat().st_size > 0


@pytest.mark.filterwarnings("default:10 of 30 genes")
def test_a_query_of_other_genes_gets_a_table_of_its_own(store, fitted, tmp_path, capsys):
    reference, query = tmp_path / "reference.h5ad", sd.read_zarr(store)
    fitted.write_h5ad(reference)
    query["fewer"] = query["table"][:, :20].copy()
    query.write_element("fewer")
    main(["map_query", str(store), str(reference), "--table_key", "fewer", *QUIET])
    assert capsys.readouterr().err.startswith("warning: 10 of 30 genes of the reference are not in the query")
    found = sd.read_zarr(store)
    assert found["fewer"].n_vars == 20 and found["fewer_resolvi"].n_vars == 30
    for backed in ([], ["--backed"]):  # before anything is computed
        with pytest.raises(SystemExit, match="has a table 'fewer_resolvi' already|table 'fewer_resolvi' already"):
            main(["map_query", str(store), str(reference), "--table_key", "fewer", *backed, *QUIET])
    alone = tmp_path / "alone.h5ad"
    query["fewer"].write_h5ad(alone)
    before = alone.read_bytes()
    with pytest.raises(SystemExit, match="genes of the query are not those of the reference.*--output"):
        main(["map_query", str(alone), str(reference), *QUIET])
    assert alone.read_bytes() == before
    main(["map_query", str(alone), str(reference), "--output", str(tmp_path / "mapped.h5ad"), *QUIET])
    same(ad.read_h5ad(tmp_path / "mapped.h5ad"), found["fewer_resolvi"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--labels_key", "nope"], "labels_key='nope' is not in `table.obs`"),
        (["--output", "{there}"], "exists already"),
        (["--output", "copy.zarr"], "must be of the kind '.h5ad'"),
        (["--output", "copy.csv"], "must be of the kind '.h5ad'"),
        (["--table_key", "cells"], "is a single table, so there is none to choose as 'cells'"),
        (["--plot", "nowhere/a.png"], "--plot='nowhere/a.png': the folder 'nowhere' does not exist"),
        (["--plot", "{folder}/figures.png"], "is a folder: name a file in it"),
        (["--accelerator", "warp"], "accelerator='warp' is not known. Available: 'auto', 'cpu'"),
        (["--training.lr", "0.01"], "on the command line, that is --training.max_epochs"),
        (["--rng", "-1"], "`rng` must be at least 0, not -1"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(file, asked, said):
    before = file.read_bytes()
    (file.parent / "figures.png").mkdir()
    with pytest.raises(SystemExit, match=said):
        main(["fit", str(file), *(part.format(there=file, folder=file.parent) for part in asked), *FIT])
    assert file.read_bytes() == before
    with pytest.raises(SystemExit, match="does not exist"):
        main(["fit", "nothing.zarr"])
    with pytest.raises(SystemExit, match="is a folder, but not a SpatialData store in zarr format"):
        main(["fit", str(file.parent)])
    (file.parent / "settings.yaml").write_text("max_epochs: 3")
    with pytest.raises(SystemExit, match="is not a table in h5ad format"):
        main(["fit", str(file.parent / "settings.yaml")])


def test_a_fit_is_not_replaced_by_its_own_query(store, fitted, tmp_path):
    file = tmp_path / "fitted.h5ad"
    fitted.write_h5ad(file)
    before = file.read_bytes()
    with pytest.raises(SystemExit, match="is the reference, whose fit would be replaced.*--output"):
        main(["map_query", str(file), str(file), *QUIET])
    assert file.read_bytes() == before
    main(["map_query", str(file), str(file), "--output", str(tmp_path / "mapped.h5ad"), *QUIET])
    assert (tmp_path / "mapped.h5ad").exists() and file.read_bytes() == before
    with pytest.raises(SystemExit, match="'nothing.h5ad' does not exist"):
        main(["map_query", str(file), "nothing.h5ad", *QUIET])
    main(fit_of(store))
    with pytest.raises(SystemExit, match="is the reference, whose fit would be replaced"):
        main(["map_query", str(store), str(store), *QUIET])


def test_a_table_keeps_its_link_and_mode(file, tmp_path):
    file.chmod(0o640)
    link = tmp_path / "link.h5ad"
    link.symlink_to(file)
    main(["fit", str(link), *FIT])
    assert link.is_symlink() and "resolvi_counts" in ad.read_h5ad(file).layers
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_copy_of_a_protected_store_can_be_written(store, tmp_path):
    places = [store, *store.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        main([*fit_of(store), "--output", str(tmp_path / "b.zarr")])
    finally:
        for place in places:
            place.chmod(0o755 if place.is_dir() else 0o644)
    copies = [tmp_path / "b.zarr", *(tmp_path / "b.zarr").rglob("*")]
    assert all(place.stat().st_mode & stat.S_IWUSR for place in copies)


def test_where_the_results_are_is_said_if_their_plot_fails(file, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(rsd.pl, "sources", failing)
    with pytest.raises(SystemExit, match=r"The results are in .*tissue.h5ad', but .* failed: no ink"):
        main([*fit_of(file), "--plot", str(tmp_path / "a.png")])
    assert "resolvi_counts" in ad.read_h5ad(file).layers


def test_a_copy_without_results_is_not_left(store, tmp_path):
    with pytest.raises(SystemExit, match="nope"):
        main(["fit", str(store), "--labels_key", "nope", "--output", str(tmp_path / "b.zarr")])
    assert not (tmp_path / "b.zarr").exists()


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"resolvi-sd {rsd.__version__}\n"


def test_every_option_is_explained(capsys):
    for command in ("fit", "map_query", "differential_niche_abundance"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        shown = re.split(r"\n(?=  --)", capsys.readouterr().out)[1:]
        # "--option VALUE, --option+ VALUE  explanation (type: ..., default: ...)"
        unexplained = [text for text in shown if re.search(r"^\s*--\S+ \S+(, --\S+ \S+)?\s+\((required|type)", text)]
        assert len(shown) > 5 and unexplained == []


def test_a_wrong_command_line(capsys):
    for wrong in (["fit", "a.zarr", "--n_latents", "3"], ["fit", "a.zarr", "--n_latent", "many"], []):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2
    assert "n_latent" in capsys.readouterr().err


def test_a_picture_in_no_format_is_refused_before_the_fit(file, tmp_path):
    before = file.read_bytes()
    with pytest.raises(SystemExit, match=r"--plot=.*a.pict' is not in a supported image format: .*'png'"):
        main(["fit", str(file), "--plot", str(tmp_path / "a.pict")])
    assert file.read_bytes() == before


@pytest.mark.filterwarnings("ignore:Groups whose cells lie in fewer than")
def test_what_was_compared_can_be_drawn(fitted, tmp_path):
    """The groups in the picture are those of the comparison."""
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    asked = ["--groupby", "domain", "--labels_key", "cell_type", "--patch_size", "20", "--n_samples", "100"]
    files = {"--plot": tmp_path / "dna.png", "--csv": tmp_path / "dna.csv"}
    before = plt.get_fignums()
    main(
        [
            "differential_niche_abundance",
            str(tmp_path / "fitted.h5ad"),
            *asked,
            *(str(x) for f in files.items() for x in f),
        ]
    )
    assert all(path.stat().st_size for path in files.values())
    assert plt.get_fignums() == before


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "resolvi_sd", "--version"], capture_output=True, text=True, check=True)
    assert rsd.__version__ in done.stdout


def test_sums_are_a_table_of_their_own(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    before = (tmp_path / "fitted.h5ad").read_bytes()
    asked = ["pseudobulk", str(tmp_path / "fitted.h5ad"), str(tmp_path / "bulk.h5ad"), "--groupby", "cell_type"]
    main([*asked, "--min_cells", "1"])
    found, expected = ad.read_h5ad(tmp_path / "bulk.h5ad"), rsd.tl.pseudobulk(fitted, "cell_type", min_cells=1)
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.obs_names.equals(expected.obs_names)
    with pytest.raises(SystemExit, match="exists already"):
        main(asked)
    assert (tmp_path / "fitted.h5ad").read_bytes() == before


def test_sums_of_a_store_are_a_table(store, tmp_path):
    main(["fit", str(store), *FIT])
    main(["pseudobulk", str(store), str(tmp_path / "bulk.h5ad"), "--groupby", "cell_type", "--min_cells", "1"])
    expected = rsd.tl.pseudobulk(sd.read_zarr(store), "cell_type", min_cells=1)
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "bulk.h5ad").X, expected.X)
    with pytest.raises(SystemExit, match="'bulk.zarr' must be of the kind '.h5ad'"):
        main(["pseudobulk", str(store), "bulk.zarr", "--groupby", "cell_type"])
