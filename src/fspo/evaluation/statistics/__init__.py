"""Statistics of evaluations: everything is clustered by user, and too few users give no interval.

`docs/statistics.md` says in plain words which interval is taken, why, and what was measured of it.
"""

from __future__ import annotations

from fspo.evaluation.statistics.comparing import (
    Comparison,
    compare,
    compare_all,
    compare_together,
    holm,
    paired_difference,
)
from fspo.evaluation.statistics.intervals import (
    MINIMUM_USERS,
    Bounds,
    Estimate,
    Spread,
    clustered_mean,
    estimate_of,
    grouped,
)
from fspo.evaluation.statistics.power import Variation, smallest_detectable, variation
from fspo.evaluation.statistics.ranking import Game, Ranking, Standing, bradley_terry

__all__ = [
    "MINIMUM_USERS",
    "Bounds",
    "Comparison",
    "Estimate",
    "Game",
    "Ranking",
    "Spread",
    "Standing",
    "Variation",
    "bradley_terry",
    "clustered_mean",
    "compare",
    "compare_all",
    "compare_together",
    "estimate_of",
    "grouped",
    "holm",
    "paired_difference",
    "smallest_detectable",
    "variation",
]
