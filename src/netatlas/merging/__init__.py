"""Merging: making one network out of several trained ones, by averaging, aligning, weighting or stitching."""

from .average import average_weights, prediction_ensemble
from .fisher import (
    diagonal_fisher,
    fisher_merge,
    mlp_diagonal_fisher,
    shuffled_entries,
)
from .ot_fusion import (
    TransportMap,
    activation_cost,
    align_layer,
    fuse,
    largest_neurons,
    move_columns,
    transport_map,
    transport_network,
    weight_cost,
)
from .stitching import (
    Configuration,
    ResidualMLP,
    StitchableNetwork,
    VisionTransformer,
    block_features,
    flops_count,
    initialize_stitches,
    least_squares_stitch,
    paired_stitching_configs,
    pareto_front,
    stitching_space,
)

__all__ = [
    "Configuration",
    "ResidualMLP",
    "StitchableNetwork",
    "TransportMap",
    "VisionTransformer",
    "activation_cost",
    "align_layer",
    "average_weights",
    "block_features",
    "diagonal_fisher",
    "fisher_merge",
    "flops_count",
    "fuse",
    "initialize_stitches",
    "largest_neurons",
    "least_squares_stitch",
    "mlp_diagonal_fisher",
    "move_columns",
    "paired_stitching_configs",
    "pareto_front",
    "prediction_ensemble",
    "shuffled_entries",
    "stitching_space",
    "transport_map",
    "transport_network",
    "weight_cost",
]
