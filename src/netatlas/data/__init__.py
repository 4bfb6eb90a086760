"""Named datasets, downloaded, checked and cached, and generators with known ground truth.

:func:`load` gives a dataset by name, :func:`names` lists the names; the loaders and what they return are documented in
:mod:`netatlas.data.graph_loaders` and :mod:`netatlas.data.array_loaders`, the generators in
:mod:`netatlas.data.generators`.
"""

from netatlas.data.catalog import available, fetch, kind, load, names, verify
from netatlas.data.generators import (
    HOUSE_ROLES,
    GaussianMixture,
    SparseRegression,
    contextual_sbm,
    degree_corrected_sbm,
    gaussian_mixture,
    hierarchical_sbm,
    rings_of_houses,
    sparse_regression,
    spirals,
    stochastic_block_model,
)
from netatlas.data.stand_ins import (
    citation_graph,
    colour_images,
    digit_images,
    heterophilous_graph,
    labelled_graph,
    labelled_graphs,
    molecule_table,
    page_graph,
    routed_curves,
    strongly_regular_graphs,
    wl_pairs,
)
from netatlas.data.store import ChecksumError, DatasetUnavailable

__all__ = [
    "HOUSE_ROLES",
    "ChecksumError",
    "DatasetUnavailable",
    "GaussianMixture",
    "SparseRegression",
    "available",
    "citation_graph",
    "colour_images",
    "contextual_sbm",
    "degree_corrected_sbm",
    "digit_images",
    "fetch",
    "gaussian_mixture",
    "heterophilous_graph",
    "hierarchical_sbm",
    "kind",
    "labelled_graph",
    "labelled_graphs",
    "load",
    "molecule_table",
    "names",
    "page_graph",
    "rings_of_houses",
    "routed_curves",
    "sparse_regression",
    "spirals",
    "stochastic_block_model",
    "strongly_regular_graphs",
    "verify",
    "wl_pairs",
]
