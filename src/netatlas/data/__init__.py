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
from netatlas.data.store import ChecksumError, DatasetUnavailable

__all__ = [
    "HOUSE_ROLES",
    "ChecksumError",
    "DatasetUnavailable",
    "GaussianMixture",
    "SparseRegression",
    "available",
    "contextual_sbm",
    "degree_corrected_sbm",
    "fetch",
    "gaussian_mixture",
    "hierarchical_sbm",
    "kind",
    "load",
    "names",
    "rings_of_houses",
    "sparse_regression",
    "spirals",
    "stochastic_block_model",
    "verify",
]
