"""A simulated tissue with known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData

from resolvi_sd._random import RandomLike, as_generator
from resolvi_sd._validation import check_integer, check_number
from resolvi_sd.datasets._assemble import Study, to_spatialdata
from resolvi_sd.datasets._layout import draw_compositions
from resolvi_sd.datasets._profiles import TypeProfiles, background_profiles, reference_profiles, simulate_profiles
from resolvi_sd.datasets._regimes import TissueRegime, get_regime
from resolvi_sd.datasets._section import GeneTraits, simulate_section

__all__ = ["simulate_tissue"]

DEFAULT_GENES = 300
DEFAULT_TYPES = 8


def simulate_tissue(
    n_cells: int = 5000,
    n_genes: int | None = None,
    *,
    regime: str | TissueRegime = "xenium",
    n_types: int | None = None,
    n_rare: int = 1,
    n_domains: int = 6,
    n_samples: int = 1,
    n_batches: int | None = None,
    batch_effect: float = 0.2,
    gradient: float = 0.5,
    gene_leakage: float | None = None,
    overlap: float | None = None,
    profiles: AnnData | None = None,
    profiles_labels_key: str | None = None,
    transcripts: bool = True,
    rng: RandomLike = 0,
) -> SpatialData:
    """Simulate a segmented section whose molecules' origins are known.

    Cells of several types lie in spatial domains. Each cell makes molecules inside its true outline; their numbers are
    negative binomial around the profile of its type and its position along a gradient. Every molecule is displaced by a
    diffusion kernel and counted by the cell whose segmented outline it falls into; the segmented outlines differ from
    the true ones. Background falls uniformly on the section. None of this uses the equations of the model, so the
    simulation can be used to judge the model.

    Parameters
    ----------
    n_cells
        Number of cells, all samples together.
    n_genes
        Number of genes; None means 300, or all genes of `profiles`. If it is smaller than their number, the genes that
        differ most between the types of `profiles` are used.
    regime
        Name of a regime in :data:`resolvi_sd.datasets.REGIMES`, or a :class:`TissueRegime`.
    n_types
        Number of cell types; None means 8, or the types of `profiles`. Cannot be combined with `profiles`.
    n_rare
        Number of rare types: the last types of a simulated set, or the least frequent ones of `profiles`. Each makes up
        about 1% of the cells, but only on average over simulations: because types gather in domains, a single one may
        have fewer cells of a rare type (median about 0.4%) or many more (over 4% in about 1 of 20).
    n_domains
        Number of spatial domains, each with its own mixture of types.
    n_samples
        Number of sections; their coordinates overlap.
    n_batches
        Number of batches, to which the samples are assigned in turn; None makes each sample a batch.
    batch_effect
        Standard deviation of the log of a batch's factors on the genes; no effect if there is only one batch.
    gradient
        Standard deviation of the log fold change of the genes that follow their type's gradient.
    gene_leakage, overlap
        Values that replace the settings of the same names in the regime.
    profiles
        Single-cell RNA-seq counts to take the types' profiles from.
    profiles_labels_key
        Column of `profiles.obs` with the types.
    transcripts
        Whether to add the molecules as points.
    rng
        Seed or generator; equal seeds give equal tissues.

    Returns
    -------
    SpatialData with coordinates in micrometers and

    - `shapes["cells"]`: segmented outlines, indexed by cell id (``"cells_0"``, ``"cells_1"``, ... for several samples),
    - `points["transcripts"]` (``"transcripts_0"``, ... likewise): `x`, `y`, `gene`, `cell_id` (empty where unassigned)
      and `true_cell_id` (empty for background),
    - `tables["table"]`, cells × genes:

      - `.X`: observed counts, CSR float32,
      - `.layers["true_own"]`, `.layers["true_leaked"]`, `.layers["true_background"]`: CSR float32, sum to `.X`,
      - `.layers["true_profile"]`: expected own expression, dense float32, rows sum to 1,
      - `.obs`: `cell_id`, `region`, `sample`, `batch`, `cell_type`, `domain`, `area` (segmented, square micrometers),
        `gradient` (-1 to 1), `overlapping` (lies on or under another cell), `true_emitted` (molecules that the cell
        made) and the shares of its counts `true_own_share`, `true_leaked_share`, `true_background_share`, which sum
        to 1 and are NaN for cells without counts,
      - `.var`: `marker_of` (the type that alone expresses the gene, or empty), `true_dispersion`, `true_leakage`,
      - `.obsm["spatial"]`: centroids of the segmented outlines,
      - `.obsp["true_flow"]`: molecules in a cell (row) that another cell (column) made, CSR float32,
      - `.varm["true_background"]`: genes × samples, `.varm["true_type_profiles"]`: genes × types, columns sum to 1,
      - `.uns["simulation"]`: the regime's settings, the names of the samples and types.

    Raises
    ------
    TypeError, KeyError, ValueError
        If an argument is out of range; the message says what is possible.

    Examples
    --------
    >>> from resolvi_sd.datasets import simulate_tissue
    >>> sdata = simulate_tissue(n_cells=200, n_genes=50, regime="sparse", rng=1)
    >>> table = sdata.tables["table"]
    >>> table.shape, sorted(sdata.shapes), sorted(sdata.points)
    ((200, 50), ['cells'], ['transcripts'])
    >>> parts = table.layers["true_own"] + table.layers["true_leaked"] + table.layers["true_background"]
    >>> (parts != table.X).nnz
    0
    """
    settings = _settings(regime, gene_leakage=gene_leakage, overlap=overlap)
    check_integer(n_domains, 1, argument="n_domains")
    check_integer(n_samples, 1, argument="n_samples")
    check_integer(n_cells, n_samples, argument="n_cells", why="one cell per sample")
    check_integer(n_rare, 0, argument="n_rare")
    if n_batches is not None:
        check_integer(n_batches, 1, n_samples, argument="n_batches", why="no more batches than samples")
    check_number(batch_effect, argument="batch_effect", least=0)
    check_number(gradient, argument="gradient", least=0)
    generator = as_generator(rng)
    types = _draw_types(n_genes, n_types, n_rare, gradient, profiles, profiles_labels_key, rng=generator)
    batches = np.arange(n_samples) % (n_batches or n_samples)
    sizes = [len(part) for part in np.array_split(np.arange(n_cells), n_samples)]
    study = _simulate(
        sizes,
        batches,
        settings,
        types,
        n_domains=n_domains,
        batch_effect=batch_effect,
        keep_molecules=transcripts,
        rng=generator,
    )
    return to_spatialdata(study)


def _simulate(
    sizes: list[int],
    batches: NDArray[np.intp],
    regime: TissueRegime,
    types: TypeProfiles,
    *,
    n_domains: int,
    batch_effect: float,
    keep_molecules: bool,
    rng: np.random.Generator,
) -> Study:
    """Draw what the sections share, then the sections."""
    n_samples, n_genes = len(sizes), len(types.genes)
    genes = GeneTraits.draw(n_genes, regime, rng=rng)
    compositions = draw_compositions(n_domains, types.frequencies, rng=rng)
    background = background_profiles(n_samples, n_genes, rng=rng)
    # Sections differ in their background; a single section has exactly that of its regime.
    levels = np.exp(0.2 * rng.standard_normal(n_samples))
    levels *= sum(sizes) / np.dot(levels, sizes)
    n_batches = int(batches.max()) + 1
    effects = (
        np.exp(batch_effect * rng.standard_normal((n_batches, n_genes))) if n_batches > 1 else np.ones((1, n_genes))
    )
    sections = [
        simulate_section(
            size,
            regime,
            types,
            genes,
            compositions=compositions,
            gene_effect=effects[batches[sample]],
            background_profile=background[sample],
            background_level=float(levels[sample]),
            keep_molecules=keep_molecules,
            rng=rng,
        )
        for sample, size in enumerate(sizes)
    ]
    return Study(sections, batches, types, genes, background, regime)


def _settings(regime: str | TissueRegime, *, gene_leakage: float | None, overlap: float | None) -> TissueRegime:
    """Return the regime with the settings that were given separately."""
    settings = get_regime(regime)
    if gene_leakage is not None:
        settings = replace(settings, gene_leakage=gene_leakage)
    if overlap is not None:
        settings = replace(settings, overlap=overlap)
    return settings


def _draw_types(
    n_genes: int | None,
    n_types: int | None,
    n_rare: int,
    gradient: float,
    profiles: AnnData | None,
    labels_key: str | None,
    *,
    rng: np.random.Generator,
) -> TypeProfiles:
    """Take the cell types from the reference, or simulate them."""
    if n_genes is not None:
        check_integer(n_genes, 1, argument="n_genes")
    if profiles is not None:
        if n_types is not None:
            raise ValueError("`n_types` cannot be given with `profiles`, whose labels are the types; leave it out.")
        return reference_profiles(profiles, labels_key, n_genes=n_genes, n_rare=n_rare, gradient=gradient, rng=rng)
    if labels_key is not None:
        raise ValueError(f"`profiles_labels_key` is {labels_key!r}, but there are no `profiles`; pass an AnnData.")
    n_types = DEFAULT_TYPES if n_types is None else n_types
    check_integer(n_types, 1, argument="n_types")
    check_integer(n_rare, 0, n_types - 1, argument="n_rare", why="at least one type must not be rare")
    return simulate_profiles(
        n_types, DEFAULT_GENES if n_genes is None else n_genes, n_rare=n_rare, gradient=gradient, rng=rng
    )
