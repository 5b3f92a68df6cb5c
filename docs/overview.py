"""The picture of the front page: `python docs/overview.py`, then look at it."""

from pathlib import Path

import matplotlib.pyplot as plt

import resolvi_sd as rsd


def main() -> None:
    sdata = rsd.datasets.simulate_tissue(n_cells=1500, n_genes=100, regime="deep", rng=0, transcripts=False)
    rsd.tl.fit(sdata, show_progress_bar=False)
    table = sdata.tables["table"]
    leaked = table.layers["true_leaked"].sum(axis=0).A1 * (table.var["marker_of"] != "").to_numpy()
    gene = table.var_names[leaked.argmax()]
    figure = plt.figure(figsize=(12, 3.6), layout="constrained")
    own, spare = figure.add_subplot(133), figure.add_subplot(131)
    look = {"vmax": 40, "units": "µm"}
    rsd.pl.spatial(sdata, gene, corrected_layer="true_own", ax=[spare, own], title=["", "the truth"], **look)
    for axes in figure.axes[1:]:
        axes.remove()
    panels = [figure.add_subplot(131, sharey=own), figure.add_subplot(132, sharey=own)]
    rsd.pl.spatial(sdata, gene, ax=panels, title=["counts of a marker", "corrected"], **look)
    figure.savefig(Path(__file__).parent / "_static" / "overview.png", dpi=90)


if __name__ == "__main__":
    main()
