"""Draws from the model's own equations, for checking the calibration of the posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import ShapesModel, TableModel

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._ratio import ratio
from resolvi_sd._validation import check_integer, check_number, check_positive_int
from resolvi_sd.datasets._generative import Cells, Parameters, draw_cells, draw_molecules, draw_parameters

if TYPE_CHECKING:
    from resolvi_sd._graphs import NeighborGraph
    from resolvi_sd._model import ModelConfig

__all__ = ["simulate_from_model"]

_COMPONENTS = 8
# Micrometers.
_SPACING, _RADIUS = 10.0, 4.5


def simulate_from_model(
    n_cells: int = 2000,
    n_genes: int = 100,
    *,
    n_neighbors: int = 10,
    n_latent: int = 10,
    likelihood: Literal["nb", "poisson"] = "nb",
    config: ModelConfig | None = None,
    counts: float = 120.0,
    depth_sd: float = 0.5,
    contrast: float = 1.5,
    leakage_range: float | None = None,
    rng: RandomLike = 0,
) -> SpatialData:
    """Draw a section from the generative model itself.

    If the prior and the likelihood are right, posterior intervals cover the truth as often as they claim; deviations on
    such data are therefore due to the inference (simulation-based calibration, Talts et al. 2018). How the model
    performs on tissue that does not follow its equations is another question; see :func:`simulate_tissue`.

    Cells lie on a jittered lattice. For cell n, gene g and neighbors m, with all symbols drawn from their priors::

        z_n ~ mixture of Gaussians             rho_n = softmax(decoder(z_n))
        alpha_n ~ Dirichlet(own, diffusion, background)
        beta_n ~ Dirichlet(decaying with distance over the range of leakage)
        mu_ng = l_n (alpha_n0 rho_ng + alpha_n1 sum_m beta_nm rho_mg)
        lambda_ng = l_n alpha_n2 background_g
        k_ng ~ NB(mean mu_ng, concentration r_g),  x_ng = k_ng + Poisson(lambda_ng)

    The number of own molecules among the k is binomial, and the rest are distributed among the neighbors in proportion
    to beta_nm rho_mg, since a single gamma variable multiplies all of mu. The model has no prior for the decoder, the
    means of the components, and l: here the decoder is a random perceptron, the means are standard normal, and l is
    log-normal.

    Parameters
    ----------
    n_cells, n_genes
        Numbers of cells and genes, at least 2.
    n_neighbors
        Number of nearest cells that leak into a cell.
    n_latent
        Number of dimensions of the latent space.
    likelihood
        `"nb"`, or `"poisson"` for signal without overdispersion.
    config
        All settings of the model, which determine the priors; `n_latent` and `likelihood` must then be left at their
        defaults. None means the default settings, but with 8 components.
    counts
        Median of the expected number of molecules l of a cell.
    depth_sd
        Standard deviation of the log of l.
    contrast
        Standard deviation of a gene's log expression over the latent space.
    leakage_range
        Length scale of leakage in median neighbor distances; None draws it from its prior, log-normal (0, 1).
    rng
        Seed or generator; equal seeds give equal sections.

    Returns
    -------
    SpatialData with circles `shapes["cells"]` (micrometers) and `tables["table"]`, cells × genes, laid out as in
    :func:`simulate_tissue`:

    - `.X`: counts, CSR float32,
    - `.layers["true_own"]`, `.layers["true_leaked"]`, `.layers["true_background"]`: CSR float32, sum to `.X`,
    - `.layers["true_profile"]`: rho, dense float32, rows sum to 1,
    - `.obs`: `cell_id`, `region`, `cell_type` (the component), `true_library_size` (l, which can be passed to a fit
      as `size_factor_key` if the noise of the total should not matter), and the shares of the cell's counts
      `true_own_share`, `true_leaked_share`, `true_background_share`, NaN for cells without counts,
    - `.var["true_dispersion"]`: r, infinite for `"poisson"`,
    - `.obsm["spatial"]`, `.obsm["true_latent"]`: z, `.obsm["true_shares"]`: alpha (own, diffusion, background),
    - `.obsp["true_flow"]`: molecules in a cell (row) from another cell (column), `.obsp["true_weights"]`: beta,
    - `.varm["true_background"]`: genes × 1, `.varm["true_type_profiles"]`: profiles at the means of the components,
      genes × components,
    - `.uns["simulation"]`: the settings.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or is given both directly and in `config`.

    References
    ----------
    Ergen & Yosef (2025), doi:10.1101/2025.01.20.634005. Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating
    Bayesian inference algorithms with simulation-based calibration, arXiv:1804.06788.

    Examples
    --------
    >>> from resolvi_sd.datasets import simulate_from_model
    >>> table = simulate_from_model(n_cells=200, n_genes=30, rng=1).tables["table"]
    >>> parts = sum(table.layers[f"true_{source}"] for source in ("own", "leaked", "background"))
    >>> (parts != table.X).nnz
    0
    >>> table.obsm["true_shares"].shape
    (200, 3)
    """
    from resolvi_sd._model import ModelConfig, combine_configs, to_plain

    check_integer(n_cells, 2, argument="n_cells")
    check_integer(n_genes, 2, argument="n_genes")
    check_positive_int(n_neighbors, argument="n_neighbors")
    settings = combine_configs(
        config, ModelConfig(n_components=_COMPONENTS), "config", n_latent=n_latent, likelihood=likelihood
    )
    check_number(counts, argument="counts", above=0)
    check_number(depth_sd, argument="depth_sd", above=0)
    check_number(contrast, argument="contrast", above=0)
    if leakage_range is not None:
        check_number(leakage_range, argument="leakage_range", above=0)
    generator = as_generator(rng)
    coordinates = _place(n_cells, rng=generator)
    graph = _neighbor_graph(coordinates, n_neighbors)
    parameters = draw_parameters(n_genes, settings, contrast, leakage_range, rng=generator)
    cells = draw_cells(graph, parameters, settings, counts, depth_sd, rng=generator)
    molecules, flow = draw_molecules(cells, parameters, rng=generator)
    table = _table(coordinates, parameters, cells, molecules)
    table.obsp["true_flow"] = flow
    table.uns["simulation"] = {"config": to_plain(settings), "leakage_range": parameters.leakage_range}
    return _to_spatialdata(table)


def _place(n_cells: int, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Place cells on a square lattice, jittered by a fifth of the spacing."""
    row, column = np.divmod(np.arange(n_cells), int(np.ceil(np.sqrt(n_cells))))
    return np.asarray(_SPACING * (np.column_stack([column, row]) + 0.2 * rng.standard_normal((n_cells, 2))))


def _neighbor_graph(coordinates: NDArray[np.float64], n_neighbors: int) -> NeighborGraph:
    from resolvi_sd._graphs import knn_graph

    return knn_graph(coordinates, np.zeros(len(coordinates), dtype=np.intp), n_neighbors)


def _table(
    coordinates: NDArray[np.float64], parameters: Parameters, cells: Cells, molecules: dict[str, sp.csr_matrix]
) -> AnnData:
    """Return the table with counts and truth."""
    n_cells, n_genes = cells.profile.shape
    observed = molecules["own"] + molecules["leaked"] + molecules["background"]
    ids = pd.Index([f"cell_{cell:0{len(str(n_cells - 1))}d}" for cell in range(n_cells)])
    components = pd.Index([f"component_{code}" for code in range(len(parameters.means))])
    types = pd.Categorical.from_codes(cells.component, components)
    region = pd.Categorical(["cells"] * n_cells)
    obs = pd.DataFrame({"cell_id": ids, "region": region, "cell_type": types}, index=ids)
    obs["true_library_size"] = cells.library
    total = np.asarray(observed.sum(axis=1), dtype=np.float64).ravel()
    for source, matrix in molecules.items():
        part = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
        obs[f"true_{source}_share"] = ratio(part, total)
    genes = [f"gene_{gene:0{len(str(n_genes - 1))}d}" for gene in range(n_genes)]
    profile = cells.profile.astype(np.float32)
    return AnnData(
        X=observed,
        obs=obs,
        var=pd.DataFrame({"true_dispersion": parameters.concentration}, index=pd.Index(genes)),
        layers={f"true_{source}": matrix for source, matrix in molecules.items()} | {"true_profile": profile},
        obsm={"spatial": coordinates, "true_latent": cells.latent.astype(np.float32), "true_shares": cells.shares},
        obsp={"true_weights": cells.graph.by_edge(cells.weights.astype(np.float32))},
        varm={
            "true_background": parameters.background[:, None],
            "true_type_profiles": parameters.expression(parameters.means).T.copy(),
        },
    )


def _to_spatialdata(table: AnnData) -> SpatialData:
    """Return the table with circles for the cells."""
    circles = gpd.GeoDataFrame(
        {"radius": np.full(table.n_obs, _RADIUS)},
        geometry=gpd.points_from_xy(*table.obsm["spatial"].T),
        index=pd.Index(table.obs_names.to_numpy()),
    )
    table = TableModel.parse(table, region="cells", region_key="region", instance_key="cell_id")
    return SpatialData(shapes={"cells": ShapesModel.parse(circles)}, tables={"table": table})
