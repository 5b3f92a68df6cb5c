"""Measurement regimes: depth, crowding and leakage of a simulated section."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType

from resolvi_sd._validation import check_number

__all__ = ["REGIMES", "TissueRegime", "get_regime"]

_SHARES = ("vacancy", "background", "overlap", "tail")
_POSITIVE = ("counts", "dispersion", "spacing", "radius", "dilation")
_NON_NEGATIVE = ("depth_sd", "size_sd", "diffusion", "segmentation", "gene_leakage")


@dataclass(frozen=True, kw_only=True)
class TissueRegime:
    """Physical settings of a simulated section; lengths in micrometers.

    Start from a named regime and change single settings with :func:`dataclasses.replace`.

    Parameters
    ----------
    counts
        Mean number of molecules counted per cell, all sources together.
    depth_sd
        Standard deviation of the log of the number of molecules per cell, within a cell type and size.
    dispersion
        Typical inverse overdispersion r of the negative binomial; the values of the genes are log-normal around it.
    spacing
        Distance between neighboring sites of the tissue, before jitter and warping.
    radius
        Typical largest radius of a cell; cells are Voronoi cells clipped to their radius.
    size_sd
        Standard deviation of the log of that radius.
    vacancy
        Share of the sites without a cell.
    crowding
        Largest relative stretch or squeeze of the tissue, below 1; 0 makes the density even.
    diffusion
        Standard deviation per axis of a molecule's displacement.
    tail
        Share of the molecules that are displaced three times as far.
    segmentation
        Standard deviation per axis of the error of a segmented cell's center.
    dilation
        Radius of the segmented outlines relative to that of the true ones.
    background
        Share of unspecific molecules in the counts.
    overlap
        Share of cells that lie partly on top of another cell, as in a thick section.
    gene_leakage
        Standard deviation of the log of the genes' factors on `diffusion`; 0 makes all genes leak equally.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from resolvi_sd.datasets import REGIMES
    >>> replace(REGIMES["xenium"], diffusion=3.0).diffusion
    3.0
    """

    counts: float = 120.0
    depth_sd: float = 0.5
    dispersion: float = 5.0
    spacing: float = 10.0
    radius: float = 6.2
    size_sd: float = 0.15
    vacancy: float = 0.1
    crowding: float = 0.4
    diffusion: float = 1.2
    tail: float = 0.1
    segmentation: float = 0.8
    dilation: float = 1.1
    background: float = 0.05
    overlap: float = 0.02
    gene_leakage: float = 0.0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            check_number(getattr(self, name), argument=name, above=0, finite=name != "dispersion")
        for name in _SHARES:
            check_number(getattr(self, name), argument=name, least=0, below=1, why="a share")
        for name in _NON_NEGATIVE:
            check_number(getattr(self, name), argument=name, least=0)
        check_number(self.crowding, argument="crowding", least=0, below=1, why="the tissue would fold")

    def as_dict(self) -> dict[str, float]:
        """Return the settings as plain floats, suitable for `uns`."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}


REGIMES: MappingProxyType[str, TissueRegime] = MappingProxyType(
    {
        "xenium": TissueRegime(),
        "sparse": TissueRegime(counts=50.0, depth_sd=0.6, diffusion=1.4, background=0.06),
        "deep": TissueRegime(counts=650.0, depth_sd=0.6, diffusion=1.3, background=0.08, overlap=0.04),
        "merfish": TissueRegime(counts=250.0, spacing=12.0, radius=7.0, diffusion=0.8, dilation=1.0, background=0.03),
        "high_background": TissueRegime(background=0.25),
        "clean": TissueRegime(diffusion=0.05, segmentation=0.05, dilation=1.0, tail=0.0, overlap=0.0, background=0.005),
    }
)
"""The named regimes: ``"xenium"`` (300-gene panels, about 120 counts per cell), ``"sparse"`` (50 counts), ``"deep"``
(CosMx-like, 650 counts, for 1,000 genes), ``"merfish"`` (larger cells, less diffusion, tight outlines),
``"high_background"`` (a quarter of the counts is unspecific) and ``"clean"`` (hardly anything leaks)."""


def get_regime(regime: str | TissueRegime) -> TissueRegime:
    """Return the regime with this name, or `regime` itself.

    Raises
    ------
    ValueError
        If there is no regime with this name.
    TypeError
        If `regime` is neither a name nor a :class:`TissueRegime`.
    """
    if isinstance(regime, TissueRegime):
        return regime
    if not isinstance(regime, str):
        raise TypeError(f"`regime` must be a name or a TissueRegime, not {type(regime).__name__}.")
    if regime not in REGIMES:
        raise ValueError(
            f"Unknown regime {regime!r}. Known regimes: {', '.join(REGIMES)}. "
            "To define your own: dataclasses.replace(REGIMES['xenium'], diffusion=2.0)."
        )
    return REGIMES[regime]
