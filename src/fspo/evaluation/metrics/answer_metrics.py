"""The measures of every evaluation that rest on answers: win rates, and what no judge is needed for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from fspo.evaluation.config import Floors
from fspo.evaluation.judges.answer_quality import Quality, broken_floors
from fspo.evaluation.judges.win_rates import Answer, JudgedAnswer
from fspo.evaluation.metrics.table import Column, Table
from fspo.judging.verdicts import SCORES

__all__ = ["QUALITY_MEASURES", "judged_column", "quality_metrics", "win_rates"]

_UNBOUNDED = ("fluency", "compression", "words")
_QUALITIES: Mapping[str, str] = {"fluency": "log_prob"} | {
    name: name for name in ("distinct", "compression", "overlap", "closeness", "words")
}
"""Measure -> the field of `Quality`."""

QUALITY_MEASURES = (*_QUALITIES, "below_floor", "unfinished")
"""The measures of answers that no judge is needed for."""


def judged_column(rows: Iterable[JudgedAnswer], value: Callable[[JudgedAnswer], float | None]) -> Column:
    """`value` of each judged answer; answers with the value None are left out."""
    found = ((row.answer.key, value(row)) for row in rows)
    return Column({item: number for item, number in found if number is not None})


def win_rates(rows: Sequence[JudgedAnswer], sampling: str, *, headline: bool) -> Table:
    """The win rate of one sampling, after the floors and by the judge alone; failures count in neither."""
    won = judged_column(rows, lambda row: row.score)
    alone = judged_column(rows, lambda row: None if row.judgement.failure else SCORES[row.judgement.preferred])
    named = {"win_rate": won} if headline else {}
    return named | {f"win_rate/{sampling}": won, f"win_rate_without_floors/{sampling}": alone}


def quality_metrics(
    answers: Sequence[Answer], qualities: Mapping[str, Quality], floors: Floors, sampling: str
) -> Table:
    """The judge-free measures of answers, those that were measured; `qualities` are by item id."""
    found = {
        f"{measure}/{sampling}": Column(
            {a.key: value for a in answers if not math.isnan(value := float(getattr(qualities[a.item], name)))},
            bounds=None if measure in _UNBOUNDED else (0.0, 1.0),
        )
        for measure, name in _QUALITIES.items()
    }
    below = {a.key: float(bool(broken_floors(qualities[a.item], floors))) for a in answers}
    unfinished = {a.key: float(not a.finished) for a in answers}
    return found | {f"below_floor/{sampling}": Column(below), f"unfinished/{sampling}": Column(unfinished)}
