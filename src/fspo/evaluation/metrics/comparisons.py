"""One method against each other, on the same items and by the same variant of a measure."""

from __future__ import annotations

from collections.abc import Mapping

from fspo.evaluation.metrics.table import Table
from fspo.evaluation.statistics import Estimate, paired_difference

__all__ = ["COMPARED", "compare_tables"]

COMPARED = ("reward_accuracy", "win_rate")
"""Measures whose variants (`reward_accuracy/reference`, `win_rate/plain`) are compared between methods."""


def compare_tables(
    lead: str, tables: Mapping[str, Table], headlines: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Estimate]]:
    """Method -> measure -> `lead` less that method, with intervals of the paired differences.

    Measures are named as in `metrics.json`, with their variant. Those without one are the headlines, where both methods
    have the same one; like is compared with like alone.

    Args:
        lead: the method that the others are compared with.
        tables: of every method.
        headlines: measure -> method -> the variant that its figure without a variant is of.
    """
    found = {}
    for name, table in tables.items():
        if name == lead:
            continue
        shared = [measure for measure in tables[lead] if _is_compared(measure) and _meet(tables[lead], table, measure)]
        rows = {measure: paired_difference(tables[lead][measure].of, table[measure].of) for measure in shared}
        same = {
            measure: rows[f"{measure}/{variants[name]}"]
            for measure, variants in headlines.items()
            if variants.get(lead) == variants.get(name) and f"{measure}/{variants.get(name)}" in rows
        }
        found[name] = same | rows
    return found


def _is_compared(measure: str) -> bool:
    return measure.partition("/")[0] in COMPARED and "/" in measure


def _meet(ours: Table, theirs: Table, measure: str) -> bool:
    return measure in theirs and bool(ours[measure].of.keys() & theirs[measure].of.keys())
