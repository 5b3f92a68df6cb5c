"""The pictures look as they did when someone last looked at them.

`RESOLVI_SD_WRITE_BASELINES=1 pytest tests/pl` draws the baselines anew: look at them before they are
committed. They are compared only where matplotlib and FreeType are the ones that drew them; elsewhere the other tests
here say what the pictures hold.
"""

from __future__ import annotations

import resolvi_sd as rsd


def test_training(compare, adata):
    compare("training", lambda path: rsd.pl.training(adata, figsize=(4, 3), save=path))


def test_sources_as_dots(compare, adata):
    compare("sources_dots", lambda path: rsd.pl.sources(adata, figsize=(8, 2.4), units="µm", save=path))


def test_sources_as_shapes(compare, sdata):
    compare("sources_shapes", lambda path: rsd.pl.sources(sdata, figsize=(8, 2.4), title="Section", save=path))


def test_sources_of_regions(compare, sdata_regions):
    compare("sources_regions", lambda path: rsd.pl.sources(sdata_regions, figsize=(8, 4.6), save=path))


def test_genes_before_and_after(compare, sdata):
    compare("spatial", lambda path: rsd.pl.spatial(sdata, ["KRT8", "PTPRC"], figsize=(6, 4.6), save=path))
