"""Neighbor graphs, as arrays of fixed degree and as squidpy's matrices in a table."""

from resolvi_sd._graphs._borders import shared_border
from resolvi_sd._graphs._boundary import boundary_graph, box_tree, pairs_within
from resolvi_sd._graphs._existing import graph_from_table
from resolvi_sd._graphs._graph import NeighborGraph
from resolvi_sd._graphs._knn import knn_graph, sections
from resolvi_sd._graphs._nearest import Distance, nearest_graph
from resolvi_sd._graphs._written import check_no_fit_on_graph, is_own_graph, write_graph

__all__ = [
    "Distance",
    "NeighborGraph",
    "boundary_graph",
    "box_tree",
    "check_no_fit_on_graph",
    "graph_from_table",
    "is_own_graph",
    "knn_graph",
    "nearest_graph",
    "pairs_within",
    "sections",
    "shared_border",
    "write_graph",
]
