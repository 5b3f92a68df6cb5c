"""What is wrong is said before anything is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import resolvi_sd as rsd


@pytest.fixture(autouse=True)
def no_figure_is_left():
    before = set(plt.get_fignums())
    yield
    assert set(plt.get_fignums()) <= before


def test_not_fitted(adata):
    for draw in (rsd.pl.sources, lambda data, **arguments: rsd.pl.spatial(data, "KRT8", **arguments)):
        with pytest.raises(KeyError, match=r"fits under: 'resolvi'. Please run `resolvi_sd.tl.fit"):
            draw(adata, key_added="run2")


def test_shares_deleted(adata):
    del adata.obs["resolvi_background"]
    with pytest.raises(KeyError, match=r"'resolvi_background'.*`table.obs`; it has: 'sample', 'resolvi_true'"):
        rsd.pl.sources(adata)


def test_missing_coordinates(adata):
    adata.obsm["pca"] = adata.obsm.pop("spatial")
    with pytest.raises(KeyError, match=r"spatial_key='spatial'.*it has: 'pca'"):
        rsd.pl.sources(adata)


def test_nan_coordinates(adata):
    adata.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match="1 of 64 cells have NaN or infinite coordinates"):
        rsd.pl.sources(adata)


def test_unknown_section(sdata_regions):
    with pytest.raises(KeyError, match=r"library_id='top'.*it has: 'left', 'right'"):
        rsd.pl.sources(sdata_regions, library_id="top")
    with pytest.raises(ValueError, match="`library_id` is empty; the sections are: 'left', 'right'"):
        rsd.pl.sources(sdata_regions, library_id=[])


def test_missing_element(sdata_regions):
    del sdata_regions.shapes["right"]
    with pytest.raises(KeyError, match=r"'right' is not in `sdata`; it has: 'left'"):
        rsd.pl.sources(sdata_regions)
    rsd.pl.sources(sdata_regions, library_id="left", ax=list(Figure().subplots(1, 3)))


def test_unknown_coordinate_system(sdata):
    with pytest.raises(KeyError, match=r"coordinate_system='aligned'.*'global', 'microns'"):
        rsd.pl.sources(sdata, coordinate_system="aligned")


def test_cells_that_are_not_in_the_element(sdata):
    sdata.shapes["cells"] = sdata.shapes["cells"].iloc[2:]
    with pytest.raises(ValueError, match="2 of 63 cells of region 'cells' have an instance id that is not in"):
        rsd.pl.sources(sdata)


def test_unknown_library_key(adata):
    with pytest.raises(KeyError, match=r"library_key='slide'.*'sample'"):
        rsd.pl.sources(adata, library_key="slide")


def test_wrong_number_of_axes_or_titles(adata):
    with pytest.raises(ValueError, match=r"1 axes, but there are 3 panels.*'own', 'from neighbors', 'background'"):
        rsd.pl.sources(adata, ax=Figure().subplots())
    with pytest.raises(ValueError, match="2 entries, but there are 3 panels"):
        rsd.pl.sources(adata, title=["a", "b"])


def test_limits_are_numbers(adata):
    with pytest.raises(TypeError, match=r"`vmax` must be a number, not 'p99'"):
        rsd.pl.sources(adata, vmax="p99")


def test_limits_the_wrong_way_round(adata):
    with pytest.raises(ValueError, match="vmin < vmax, but vmin=2 and vmax=1"):
        rsd.pl.spatial(adata, "KRT8", vmin=2, vmax=1)


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_size(adata, size):
    with pytest.raises(ValueError, match="`size` must be positive"):
        rsd.pl.sources(adata, size=size)


def test_folder_to_save_into(adata, tmp_path):
    path = tmp_path / "missing" / "figure.png"
    for draw in (rsd.pl.training, rsd.pl.sources, lambda data, **arguments: rsd.pl.spatial(data, "KRT8", **arguments)):
        with pytest.raises(FileNotFoundError, match="missing' does not exist"):
            draw(adata, save=path)


@pytest.mark.parametrize(
    ("figsize", "error", "message"),
    [
        (5, ValueError, r"`figsize` must be a width and a height in inches, \(6, 4\), not 5"),
        ((5, 4, 3), ValueError, "a width and a height"),
        ("54", ValueError, "a width and a height"),
        ((5, 0), ValueError, r"`figsize` must be positive and finite \(width and height in inches\), not 0"),
        (("5", "4"), TypeError, "`figsize` must be a number, not '5'"),
    ],
)
def test_size_of_the_figure(adata, figsize, error, message):
    for draw in (rsd.pl.training, rsd.pl.sources, lambda data, **arguments: rsd.pl.spatial(data, "KRT8", **arguments)):
        with pytest.raises(error, match=message):
            draw(adata, figsize=figsize)


def test_arguments_of_another_kind(adata):
    with pytest.raises(TypeError, match=r"`title` must be a text, or a list with one for each panel, not 5"):
        rsd.pl.sources(adata, title=5)
    with pytest.raises(TypeError, match=r"`title` must be a text, not \['a', 'b'\] \(list\)"):
        rsd.pl.training(adata, title=["a", "b"])
    for draw in (rsd.pl.training, rsd.pl.sources):
        with pytest.raises(TypeError, match=r"`save` must be the path of a file, not 5 \(int\)"):
            draw(adata, save=5)
        with pytest.raises(TypeError, match=r"`ax` must be matplotlib's axes, one for each panel, not 5 \(int\)"):
            draw(adata, ax=5 if draw is rsd.pl.training else [5, 5, 5])
    with pytest.raises(TypeError, match="`gene` must be a list of names, not 5"):
        rsd.pl.spatial(adata, 5)
    with pytest.raises(TypeError, match="`palette` must be the name of a colormap, or a list or dict of colors, not 5"):
        rsd.pl.shares(adata, groupby="sample", palette=5)
    with pytest.raises(ValueError, match="`palette` holds 'nocolor', which matplotlib does not know as a color"):
        rsd.pl.shares(adata, groupby="sample", palette=["nocolor"] * adata.n_obs)
    adata.uns["sample_colors"] = ["nocolor"] * adata.n_obs
    with pytest.raises(ValueError, match=r"`uns\['sample_colors'\]` holds 'nocolor'"):
        rsd.pl.shares(adata, groupby="sample")


def test_a_single_axes_may_be_in_a_list(adata):
    ax = Figure().subplots()
    assert rsd.pl.training(adata, ax=[ax], return_ax=True) is ax


def test_colormap(adata):
    with pytest.raises(KeyError, match=r"cmap='virids' is not in `matplotlib.colormaps`.*'viridis'"):
        rsd.pl.sources(adata, cmap="virids")
    with pytest.raises(TypeError, match=r"`cmap` must be a name in `matplotlib.colormaps` or a colormap, not 5 \(int"):
        rsd.pl.spatial(adata, "KRT8", cmap=5)
