"""Every key that is written into a table, in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DEFAULT_KEY", "Keys", "check_storable_name", "fits", "result_layers", "unit_key"]

DEFAULT_KEY = "resolvi"

# The rule of spatialdata.
_STORABLE = re.compile(r"(?!\.+$|__)[A-Za-z0-9_.-]+")


def check_storable_name(name: object, *, argument: str) -> None:
    """Raise ValueError unless `name` is a valid name for an element of a store."""
    if not isinstance(name, str) or not _STORABLE.fullmatch(name):
        raise ValueError(
            f"{argument}={name!r} cannot name elements of a store: use letters, digits, '_', '.' and '-' only, and "
            "do not start with '__'."
        )


def unit_key(column: str) -> str:
    """`uns`: unit and coordinate system of a column of `obs` with areas or volumes."""
    return f"{column}_unit"


def fits(uns: Mapping[str, Any]) -> list[str]:
    """Return the prefixes under which a table has a fit."""
    return [key for key, entry in uns.items() if isinstance(entry, dict) and {"weights", "model_config"} <= set(entry)]


def result_layers(uns: Mapping[str, Any]) -> dict[str, str]:
    """Map each layer that the fits of a table may have written to the prefix of its fit."""
    return {layer: prefix for prefix in fits(uns) for layer in Keys(prefix).owned()["layers"]}


@dataclass(frozen=True)
class Keys:
    """Names of the results in a table; users pass `prefix` as `key_added`.

    Examples
    --------
    >>> from resolvi_sd._keys import Keys
    >>> Keys("resolvi").counts, Keys("run2").latent
    ('resolvi_counts', 'X_run2')
    """

    prefix: str = DEFAULT_KEY

    def __post_init__(self) -> None:
        check_storable_name(self.prefix, argument="key_added")

    @property
    def counts(self) -> str:
        """`layers`: corrected counts, CSR, with the sparsity of the counts."""
        return f"{self.prefix}_counts"

    @property
    def decontaminated(self) -> str:
        """`layers`: decontaminated counts at a chosen cost, CSR; `uns`: that cost, and the cost of other choices."""
        return f"{self.prefix}_decontaminated"

    @property
    def own_removed(self) -> str:
        """`obs`: expected share of the cell's own molecules that the decontaminated counts lack."""
        return f"{self.prefix}_own_removed"

    @property
    def expression(self) -> str:
        """`layers` (all genes) or `obsm` (some genes, named in `uns`): expected expression, dense."""
        return f"{self.prefix}_expression"

    @property
    def latent(self) -> str:
        """`obsm`: mean of the latent posterior, cells × n_latent."""
        return f"X_{self.prefix}"

    @property
    def true(self) -> str:
        """`obs`: expected share of the cell's molecules that are its own."""
        return f"{self.prefix}_true"

    @property
    def diffusion(self) -> str:
        """`obs`: expected share of the cell's molecules that came from its neighbors."""
        return f"{self.prefix}_diffusion"

    @property
    def background(self) -> str:
        """`obs`: expected share of unspecific background; `varm`: the background profile of each batch."""
        return f"{self.prefix}_background"

    @property
    def shares(self) -> tuple[str, str, str]:
        """`obs`: the three shares, in the order own, diffusion, background; they sum to 1."""
        return self.true, self.diffusion, self.background

    @property
    def dispersion(self) -> str:
        """`varm`: inverse overdispersion r of the negative binomial, genes × 1 or genes × batches."""
        return f"{self.prefix}_dispersion"

    @property
    def size(self) -> str:
        """`obs`: size of each cell, if the fit measured it from outlines."""
        return f"{self.prefix}_size"

    @property
    def distances(self) -> str:
        """`obsp`: distances of the neighbor graph that was used."""
        return f"{self.prefix}_distances"

    @property
    def connectivities(self) -> str:
        """`obsp`: the neighbor graph that was used, with ones as entries."""
        return f"{self.prefix}_connectivities"

    @property
    def neighbors(self) -> str:
        """`uns`: description of the neighbor graph, in the layout of squidpy."""
        return f"{self.prefix}_neighbors"

    def mapped_table(self, table_key: str) -> str:
        """Name of the new table of a query whose genes are not those of the reference."""
        return f"{table_key}_{self.prefix}"

    @property
    def contacts(self) -> str:
        """Prefix of the graph of cells in contact; `Keys(keys.contacts)` names its entries in `obsp` and `uns`."""
        return f"{self.prefix}_contacts"

    @property
    def borders(self) -> str:
        """`obsp`: length of the border that two cells in contact share."""
        return f"{self.prefix}_borders"

    @property
    def weights(self) -> str:
        """`obsp`: neighbor weights (beta) of each cell; rows sum to 1."""
        return f"{self.prefix}_weights"

    @property
    def flow(self) -> str:
        """`obsp`: expected molecules in cell n (row) that came from neighbor m (column)."""
        return f"{self.prefix}_flow"

    @property
    def niche(self) -> str:
        """`obsm`: composition of each cell's neighborhood, cells × labels."""
        return f"{self.prefix}_niche"

    @property
    def niche_labels(self) -> str:
        """`uns`: names of the columns of `niche`."""
        return f"{self.prefix}_niche_labels"

    @property
    def niche_labels_key(self) -> str:
        """`uns`: column of `obs` with the labels of `niche`; empty if the fit's labels were used."""
        return f"{self.prefix}_niche_labels_key"

    @property
    def niche_weighting(self) -> str:
        """`uns`: how neighbors were weighted for `niche`."""
        return f"{self.prefix}_niche_weighting"

    @property
    def de(self) -> str:
        """`uns`: table of differential expression."""
        return f"{self.prefix}_de"

    @property
    def rank_genes_groups(self) -> str:
        """`uns`: differential expression in the layout of scanpy, for its plots."""
        return f"{self.prefix}_rank_genes_groups"

    @property
    def dna(self) -> str:
        """`uns`: table of differential niche abundance."""
        return f"{self.prefix}_dna"

    @property
    def leakage(self) -> str:
        """`uns`: leakage between labels, and the leaked genes."""
        return f"{self.prefix}_leakage"

    @property
    def audit(self) -> str:
        """`uns`: metrics of the correction, comparing raw and corrected counts."""
        return f"{self.prefix}_audit"

    @property
    def model(self) -> str:
        """`uns`: configuration, history, versions and weights of the fitted model; the commit mark of a write."""
        return self.prefix

    @property
    def predicted(self) -> str:
        """`obs`: most probable label of each cell, categorical."""
        return f"{self.prefix}_predicted"

    @property
    def predicted_colors(self) -> str:
        """`uns`: colors of the predicted labels, in the order of their categories."""
        return f"{self.prefix}_predicted_colors"

    @property
    def probabilities(self) -> str:
        """`obsm`: probability of each label, cells × labels; the names are in `uns[prefix]["labels"]`."""
        return f"{self.prefix}_probabilities"

    @property
    def of_graph(self) -> frozenset[str]:
        """Names of the neighbor graph, which `resolvi_sd.gr.neighbors` also writes, and which squidpy may use."""
        return frozenset({self.distances, self.connectivities, self.neighbors})

    @property
    def of_niches(self) -> frozenset[str]:
        """Names of the results on neighborhoods, which require only a graph."""
        return frozenset({self.niche, self.niche_labels, self.niche_labels_key, self.niche_weighting, self.dna})

    def call(self, function: str) -> str:
        """Return the call of a function of `tl` that writes results under this prefix, for messages."""
        return f"resolvi_sd.tl.{function}(..., key_added={self.prefix!r})"

    def check_case(self, names: Callable[[str], Iterable[str]], *, where: str) -> None:
        """Raise ValueError if entries differ from results in upper and lower case only; no store can hold both.

        Parameters
        ----------
        names
            Returns the names of the entries of a slot.
        where
            Where they are, for the message.
        """
        variants = []
        for slot, results in self.owned().items():
            known = {name.lower(): name for name in results}
            variants += [f"{slot}/{name}" for name in names(slot) if known.get(str(name).lower(), name) != name]
        if variants:
            raise ValueError(
                f"The names of results with key_added={self.prefix!r} would differ from {', '.join(variants)} of "
                f"{where} in upper and lower case only, and no store can hold both. Choose another `key_added=`."
            )

    def owned(self) -> dict[str, tuple[str, ...]]:
        """All keys that a fit may write, by slot of the table; `uns` ends with the commit mark."""
        return {
            "layers": (self.counts, self.decontaminated, self.expression),
            "obsm": (self.latent, self.expression, self.niche, self.probabilities),
            "obs": (*self.shares, self.own_removed, self.predicted, self.size),
            "obsp": (self.distances, self.connectivities, self.weights, self.flow),
            "varm": (self.dispersion, self.background),
            "uns": (
                self.neighbors,
                self.predicted_colors,
                self.niche_labels,
                self.niche_labels_key,
                self.niche_weighting,
                self.decontaminated,
                self.expression,
                self.de,
                self.rank_genes_groups,
                self.dna,
                self.leakage,
                self.audit,
                self.model,
            ),
        }
