"""How a chapter experiments: profile, claims, figures, timing.

A chapter calls :func:`begin` once, then measures, shows and claims. Everything that it shows is compared, output by
output, between two executions; what may differ (times) goes through :func:`timing` and :func:`volatile`.
"""

from netatlas.lab.claims import claim
from netatlas.lab.conditions import Condition, Each, below, each, exceeds, rounding, within
from netatlas.lab.experiment import begin, device, pick, profile, seeds
from netatlas.lab.show import figure, glue, papers_table, portrait, table
from netatlas.lab.timings import Volatile, timing, volatile

__all__ = [
    "Condition",
    "Each",
    "Volatile",
    "begin",
    "below",
    "claim",
    "device",
    "each",
    "exceeds",
    "figure",
    "glue",
    "papers_table",
    "pick",
    "portrait",
    "profile",
    "rounding",
    "seeds",
    "table",
    "timing",
    "volatile",
    "within",
]
