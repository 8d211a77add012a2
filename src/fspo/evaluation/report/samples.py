"""Answers to be read, and answers that failed: all chosen by rule, none by hand."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fspo.evaluation.artifacts import Sample
from fspo.evaluation.config import BASE
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.scoring.eval_episodes import tendency
from fspo.preferences.types import User

__all__ = ["broken_answers", "contrasting_samples", "shown_answer", "worst_losses", "wrong_pairs"]

_MOST = 3
_PAIRS = 2


def contrasting_samples(samples: Sequence[Sample], disagreement: Mapping[str, Any] | None = None) -> list[list[Sample]]:
    """Samples to be read side by side: for the least alike users who answered a common prompt, one such prompt each.

    The rule: pairs of users by the cosine of their traits, least alike first, a user in one pair only; users without
    traits by how often they disagreed in the data (`users` and `matrix` of `disagreement`). Of their common prompts the
    first by the alphabet. Without common prompts, the first of each user.
    """
    by_user: dict[str, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        by_user[sample.user].setdefault(sample.prompt, sample)
    users = {name: User(name, traits=next(iter(rows.values())).traits) for name, rows in by_user.items()}
    disagreed = _disagreed(disagreement or {})

    def rank(pair: tuple[str, str]) -> tuple[bool, float, tuple[str, str]]:
        alike = tendency(users[pair[0]], users[pair[1]])
        if alike is None:
            alike = 1.0 - disagreed.get(frozenset(pair), 0.0)
        return not by_user[pair[0]].keys() & by_user[pair[1]].keys(), alike, pair

    chosen: list[list[Sample]] = []
    taken: set[str] = set()
    for first, second in sorted(itertools.combinations(sorted(users), 2), key=rank):
        if len(chosen) < _PAIRS and taken.isdisjoint((first, second)):
            taken |= {first, second}
            common = sorted(by_user[first].keys() & by_user[second].keys())
            prompts = (common[0], common[0]) if common else (min(by_user[first]), min(by_user[second]))
            chosen.append([by_user[first][prompts[0]], by_user[second][prompts[1]]])
    return chosen or [[sample] for sample in samples[:1]]


def shown_answer(samples: Sequence[Sample], lead: str, sampling: str, baseline: str = BASE) -> str:
    """The answers at the top of the page: the lead's by this sampling, else by any, else another method's."""
    labels = dict.fromkeys(label for sample in samples for label in sample.answers if label != baseline)
    own = [label for label in labels if label.startswith(f"{lead}, ")]
    return next(iter([label for label in own if label == f"{lead}, {sampling}"] or own or labels), baseline)


def worst_losses(samples: Sequence[Sample], items: Items, label: str, baseline: str = BASE) -> list[dict[str, Any]]:
    """The answers under `label` (method, sampling) that lost to the baseline's, by the most first.

    By how much the user likes the baseline's answer better, where that is known; else in the order of the items. A
    user stands for one of them only. Answers that lost by a floor are `broken_answers`.
    """
    method, _, sampling = label.partition(", ")
    own, base = items.values(method, f"answer_utility/{sampling}"), items.values(baseline, "answer_utility/plain")
    found = []
    for sample in samples:
        item = (sample.user, sample.item)
        if sample.outcomes.get(label) == "loss" and not sample.broken.get(label):
            by = base[item] - own[item] if item in own and item in base else None
            found.append(_failed(sample, label, baseline) | {"by": by})
    found.sort(key=lambda row: -(row["by"] or 0.0))
    return _one_each(found)


def broken_answers(samples: Sequence[Sample], label: str, baseline: str = BASE) -> list[dict[str, Any]]:
    """The first answers under `label` that fall below a floor, a user only once, with the floors they break."""
    broken = [(sample, sample.broken.get(label)) for sample in samples]
    return _one_each([_failed(sample, label, baseline) | {"floors": floors} for sample, floors in broken if floors])


def wrong_pairs(items: Items, method: str, reward: str) -> list[dict[str, Any]]:
    """Held-out pairs that `method`'s reward ranks wrong, by what it cost the user where that is known, a user once."""
    wrong = [item for item, right in items.values(method, f"reward_accuracy/{reward}").items() if right == 0]
    cost = items.values(method, "regret")
    wrong.sort(key=lambda item: -cost.get(item, 0.0))
    records = {record.item: record for record in items.records}
    return _one_each([records[item[1]].model_dump() | {"cost": cost.get(item)} for item in wrong])


def _failed(sample: Sample, label: str, baseline: str) -> dict[str, Any]:
    return {
        "user": sample.user,
        "description": sample.description,
        "prompt": sample.prompt,
        "answer": sample.answers.get(label, ""),
        "base": sample.answers.get(baseline, ""),
    }


def _one_each(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["user"], row)
    return list(first.values())[:_MOST]


def _disagreed(record: Mapping[str, Any]) -> dict[frozenset[str], float]:
    """Two users -> how often they disagreed."""
    users, matrix = record.get("users") or [], record.get("matrix") or []
    return {
        frozenset((users[row], users[column])): float(share)
        for row, column in itertools.combinations(range(min(len(users), len(matrix))), 2)
        if (share := matrix[row][column]) is not None
    }
