"""The experiments of the chapter, one module a paper, under short names."""

from netatlas.propagation import decomposition_experiments as decomposition
from netatlas.propagation import depth_experiments as depth
from netatlas.propagation import directed_experiments as directed
from netatlas.propagation import expansion_experiments as expansion
from netatlas.propagation import experts_experiments as experts
from netatlas.propagation import homophily_experiments as homophily
from netatlas.propagation import rewiring_experiments as rewiring
from netatlas.propagation import shadow_experiments as shadow
from netatlas.propagation import sheaf_experiments as sheaf
from netatlas.propagation import squashing_experiments as squashing

__all__ = [
    "decomposition",
    "depth",
    "directed",
    "expansion",
    "experts",
    "homophily",
    "rewiring",
    "shadow",
    "sheaf",
    "squashing",
]
