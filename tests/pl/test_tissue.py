"""Each cell is drawn in its place, in the color of its value: dots, polygons, circles and labels."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import shapely
import spatialdata as sd
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_rgba
from spatialdata.models import ShapesModel

import resolvi_sd as rsd

SHARES = ("resolvi_true", "resolvi_diffusion", "resolvi_background")
# scikit-image, by which spatialdata-plot colors labels, sets the shape of an array; numpy 2.5 deprecates that.
SKIMAGE = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:skimage")
GREY = to_rgba("lightgrey")


def bar_limits(ax):
    """Limits of the color bar in the inset of a panel."""
    (bar,) = ax.child_axes
    return bar.get_ylim()


def expected_colors(ax, values):
    """Colors of the values by the limits that the panel's color bar shows."""
    colors = colormaps["viridis"](Normalize(*bar_limits(ax))(values))
    colors[np.isnan(values)] = GREY
    return colors


def filled_paths(ax):
    """Paths and fill colors of everything opaque in a panel: not the outlines."""
    for collection in ax.collections:
        colors = np.broadcast_to(collection.get_facecolor(), (len(collection.get_paths()), 4))
        yield from ((path, color) for path, color in zip(collection.get_paths(), colors, strict=True) if color[3] == 1)


def polygon_colors(ax, centers):
    """Fill color of the polygon that each center is in."""
    drawn = [(shapely.Polygon(path.to_polygons()[0]), color) for path, color in filled_paths(ax)]
    tree = shapely.STRtree([polygon for polygon, _ in drawn])
    center, polygon = tree.query(shapely.points(centers), predicate="within")
    np.testing.assert_array_equal(center, np.arange(len(centers)))  # in one polygon each
    assert len(drawn) == len(centers)
    return np.array([drawn[index][1] for index in polygon])


def square_centers(ids, factor=1.0):
    """Centers of the squares, from how the fixture numbers them."""
    number = np.asarray(ids) - 100
    return 10.0 * factor * np.column_stack([number % 8 + 0.5, number // 8 + 0.5])


def test_dots_hold_the_shares_at_the_coordinates(adata):
    axes = rsd.pl.sources(adata, return_ax=True)
    assert [ax.get_title() for ax in axes] == ["own", "from neighbors", "background"]
    for ax, key in zip(axes, SHARES, strict=True):
        (dots,) = ax.collections
        np.testing.assert_array_equal(dots.get_offsets(), adata.obsm["spatial"])
        np.testing.assert_array_equal(np.ma.filled(dots.get_array(), np.nan), adata.obs[key])
        assert dots.get_cmap().get_bad() == pytest.approx(GREY)
        assert dots.get_rasterized()
        assert ax.child_axes[0].get_ylabel() == "share of molecules"


def test_dots_are_as_large_as_cells_have_room(adata):
    """The squares are 10 apart: dots of the diameter 10 touch."""
    width, dot_size = (rsd.pl.sources(adata, size=s, return_ax=True)[0].collections[0]._widths[0] * 2 for s in (1, 0.5))
    assert 9 < width <= 10
    assert dot_size == pytest.approx(width / 2)


@SKIMAGE
@pytest.mark.parametrize("kind", ["adata", "sdata", "sdata_labels"])
def test_y_points_down_and_scales_are_equal(kind, request):
    for ax in rsd.pl.sources(request.getfixturevalue(kind), return_ax=True):
        bottom, top = ax.get_ylim()
        assert bottom > top
        assert ax.get_aspect() == 1


def test_polygons_of_a_reordered_filtered_table(sdata):
    """Stored at half size and in another order than the rows; one shape has no row and is not drawn."""
    obs = sdata.tables["table"].obs
    for ax, key in zip(rsd.pl.sources(sdata, return_ax=True), SHARES, strict=True):
        colors = polygon_colors(ax, square_centers(obs["cell_id"]))
        np.testing.assert_allclose(colors, expected_colors(ax, obs[key].to_numpy()), atol=1e-6)


def test_ids_stored_as_strings_find_integer_shapes(sdata):
    table = sdata.tables["table"]
    centers = square_centers(table.obs["cell_id"])
    table.obs["cell_id"] = table.obs["cell_id"].astype(str)
    ax = rsd.pl.sources(sdata, return_ax=True)[0]
    colors = polygon_colors(ax, centers)
    np.testing.assert_allclose(colors, expected_colors(ax, table.obs["resolvi_true"].to_numpy()), atol=1e-6)


def test_circles(sdata):
    table = sdata.tables["table"]
    centers = square_centers(table.obs["cell_id"])
    del sdata.shapes["cells"]
    sdata.shapes["cells"] = ShapesModel.parse(centers, geometry=0, radius=4.0, index=table.obs["cell_id"].to_numpy())
    ax = rsd.pl.sources(sdata, return_ax=True)[0]
    colors = polygon_colors(ax, centers)
    np.testing.assert_allclose(colors, expected_colors(ax, table.obs["resolvi_true"].to_numpy()), atol=1e-6)


@SKIMAGE
def test_labels_of_a_reversed_filtered_table(sdata_labels):
    obs = sdata_labels.tables["table"].obs
    centers = square_centers(obs["cell_id"] + 99).astype(int)  # labels count from 1, shapes from 100
    for ax, key in zip(rsd.pl.sources(sdata_labels, return_ax=True), SHARES, strict=True):
        (image,) = ax.images
        pixels = np.asarray(image.get_array())
        np.testing.assert_allclose(
            pixels[centers[:, 1], centers[:, 0], :3], expected_colors(ax, obs[key].to_numpy())[:, :3], atol=5e-3
        )
        assert pixels[75, 75, 3] == 0  # the label that has no row is transparent


def test_no_value_at_all_is_all_grey(sdata):
    sdata.tables["table"].obs[list(SHARES)] = np.nan
    for ax in rsd.pl.sources(sdata, return_ax=True):
        colors = [color for _, color in filled_paths(ax)]
        assert len(colors) == 63
        np.testing.assert_allclose(colors, np.tile(GREY, (63, 1)))


def test_regions_are_rows_with_the_same_colors(sdata_regions):
    axes = rsd.pl.sources(sdata_regions, return_ax=True)
    assert [ax.get_title() for ax in axes[::3]] == ["left: own", "right: own"]
    obs = sdata_regions.tables["table"].obs
    for column, key in enumerate(SHARES):
        assert bar_limits(axes[column]) == bar_limits(axes[column + 3])
        for ax, region, factor in ((axes[column], "left", 1.0), (axes[column + 3], "right", 2.0)):
            rows = obs["region"] == region
            colors = polygon_colors(ax, square_centers(obs.loc[rows, "cell_id"], factor))
            np.testing.assert_allclose(colors, expected_colors(ax, obs.loc[rows, key].to_numpy()), atol=1e-6)


def test_one_region_chosen(sdata_regions):
    axes = rsd.pl.sources(sdata_regions, library_id="right", return_ax=True)
    assert [ax.get_title() for ax in axes] == ["own", "from neighbors", "background"]
    assert axes[0].get_xlim() == (0, 160)


def test_sections_of_the_fit_are_kept_apart(square_table, add_results):
    """Three samples with the same coordinates: drawn on top of each other they would hide each other."""
    adata = square_table(3)
    add_results(adata, library_key="sample")
    axes = rsd.pl.sources(adata, return_ax=True)
    assert len(axes) == 9
    sample = adata.obs["sample"].to_numpy()
    for ax, name in zip(axes[::3], ["s0", "s1", "s2"], strict=True):
        values = np.ma.filled(ax.collections[0].get_array(), np.nan)
        np.testing.assert_array_equal(values, adata.obs["resolvi_true"][sample == name])
    chosen = rsd.pl.sources(adata, library_id=["s2", "s0"], return_ax=True)
    assert [ax.get_title() for ax in chosen[::3]] == ["s2: own", "s0: own"]


def test_limits_go_from_a_clean_cell_to_the_worst(adata):
    """One end is a cell without foreign molecules, the other the 1 % quantile; given limits win."""
    axes = rsd.pl.sources(adata, return_ax=True)
    obs = adata.obs[list(SHARES)].dropna()
    assert bar_limits(axes[0]) == pytest.approx((np.quantile(obs["resolvi_true"], 0.01), 1))
    assert bar_limits(axes[1]) == pytest.approx((0, np.quantile(obs["resolvi_diffusion"], 0.99)))
    for ax in rsd.pl.sources(adata, vmin=0, vmax=0.5, return_ax=True):
        assert bar_limits(ax) == (0, 0.5)


def test_units_only_where_known(adata, sdata):
    def label(data, **arguments):
        return rsd.pl.sources(data, return_ax=True, **arguments)[0].get_xlabel()

    assert label(adata) == label(sdata) == "x"
    assert label(sdata, coordinate_system="microns") == label(adata, units="µm") == "x (µm)"


def test_real_cells_are_drawn_as_polygons(real_data, add_results):
    sdata = sd.read_zarr(real_data("xenium_breast_mini.zarr"))
    table = sdata.tables["table"]
    add_results(table)
    ax = rsd.pl.sources(sdata, return_ax=True)[0]
    assert len(list(filled_paths(ax))) == table.n_obs == 122  # 122 rows, 158 shapes
    extent = sd.get_extent(sdata["cell_boundaries"].loc[table.obs["cell_id"]], coordinate_system="global")
    assert ax.get_xlim() == pytest.approx(extent["x"])


def test_data_and_settings_are_left_alone(sdata, monkeypatch):
    import matplotlib.pyplot as plt
    import spatialdata_plot  # noqa: F401  its import may set what it likes

    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("plt.show was called"))
    table = sdata.tables["table"]
    before = (list(table.obs), list(table.uns), list(table.layers), list(sdata.shapes), dict(matplotlib.rcParams))
    assert rsd.pl.sources(sdata) is None
    assert rsd.pl.spatial(sdata, "KRT8") is None
    after = (list(table.obs), list(table.uns), list(table.layers), list(sdata.shapes), dict(matplotlib.rcParams))
    assert before == after
    assert not hasattr(sdata, "plotting_tree")


def test_places_are_those_of_the_fit():
    from spatialdata.transformations import Scale, remove_transformation, set_transformation

    sdata = rsd.datasets.simulate_tissue(n_cells=100, n_genes=20, transcripts=False, rng=0)
    (name,) = sdata.shapes
    set_transformation(sdata[name], Scale([0.5, 0.5], axes=("x", "y")), "um")
    expected = np.array(rsd.tl.fit(sdata, max_epochs=1, copy=True, show_progress_bar=False).obsm["spatial"]) / 2
    remove_transformation(sdata[name], "global")
    rsd.tl.fit(sdata, coordinate_system="um", max_epochs=1, show_progress_bar=False)
    ax = rsd.pl.sources(sdata, return_ax=True)[0]
    low, high = np.sort(ax.get_xlim())
    assert low == pytest.approx(expected[:, 0].min(), abs=10) and high == pytest.approx(expected[:, 0].max(), abs=10)
    cell = sdata["table"].obs_names[50]
    flow = rsd.pl.flow(sdata, cell=cell, return_ax=True)
    assert min(flow.get_xlim()) < expected[50, 0] < max(flow.get_xlim())
    table = sdata["table"]
    table.obsm["place"] = table.obsm.pop("spatial")
    del table.uns["spatialdata_attrs"]
    rsd.tl.fit(table, spatial_key="place", max_epochs=1, show_progress_bar=False)
    assert len(rsd.pl.spatial(table, table.var_names[0], return_ax=True)) == 2


@pytest.mark.filterwarnings("ignore:The geometry column of the GeoDataFrame has 3 dimensions:UserWarning")
@pytest.mark.parametrize("spheres", [True, False])
def test_outlines_with_height_are_seen_from_above(sdata, spheres):
    flat = sdata["cells"]
    if spheres:
        flat = ShapesModel.parse(flat.assign(radius=np.sqrt(flat.area / np.pi)).set_geometry(flat.centroid))
    high = flat.set_geometry(shapely.force_3d(flat.geometry, z=3.0))
    pictures = []
    for element in (flat, high):
        sdata["cells"] = element
        axes = rsd.pl.sources(sdata, return_ax=True)
        axes[0].figure.canvas.draw()
        pictures.append(np.asarray(axes[0].figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)


def test_labels_in_three_dimensions_are_drawn_as_dots(sdata_labels):
    flat = np.asarray(sdata_labels["mask"])
    solid = sd.models.Labels3DModel.parse(np.stack([flat, flat]), dims=("z", "y", "x"))
    with_height = sd.SpatialData.init_from_elements({"mask": solid, "table": sdata_labels["table"]})
    axes = rsd.pl.sources(with_height, return_ax=True)
    (dots,) = axes[0].collections
    number = sdata_labels["table"].obs["cell_id"].to_numpy() - 1
    np.testing.assert_allclose(dots.get_offsets(), 10.0 * np.column_stack([number % 8 + 0.5, number // 8 + 0.5]))


def test_sections_may_be_named_by_numbers(adata):
    adata.obs["slice"] = np.repeat([2, 10], adata.n_obs // 2)
    for library_id in (10, [10], "10"):
        axes = rsd.pl.sources(adata, library_key="slice", library_id=library_id, return_ax=True)
        assert len(axes[0].collections[0].get_offsets()) == (adata.obs["slice"] == 10).sum()


def test_regions_of_a_table_without_its_elements_are_kept_apart(sdata_regions):
    n_sections = len(rsd.pl.sources(sdata_regions, return_ax=True)) // 3
    table = sdata_regions.tables["table"].copy()
    table.obsm["spatial"] = np.tile(np.arange(table.n_obs, dtype=float)[:, None], 2)
    assert n_sections > 1 and len(rsd.pl.sources(table, return_ax=True)) == 3 * n_sections
