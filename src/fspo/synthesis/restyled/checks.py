"""What the synthesized data looks like: `checks.json`, for people and for the report.

The layout (`FORMAT` 1); every share is a fraction:

    {"format": 1,
     "counts": {"works", "questions", "responses", "users", "preferences", "ties"},
     "sampling": {"asked", "used", "rejected": {reason: count}, "unfilled": responses nobody's text had the making of,
                  "steering": {steered to: {measured as: count}}},
     "attributes": {name: {"about", "mean", "std", "histogram": {"edges": [n + 1 figures], "counts": [n]}}},
     "correlation": {"attributes": [name], "matrix": [[Pearson's r]], "largest": largest absolute r off the diagonal},
     "disagreement": {"users": [id], "matrix": [[share of the pairs both decide that they decide differently]],
                      "pairs": count, "mean": over all users; the matrix shows the axis users and some others},
     "labels": {"consistency": share of the labels that hold in the other order, "tie_share": ties among all verdicts,
                "per_user": {"least", "mean", "most"}, "same_text_share",
                "styles_differing": mean share of the attributes that differ by half a standard deviation or more in
                the two responses of a labelled pair},
     "near_duplicates": {"threshold", "share": responses that overlap with one of another sample to the same question,
                         "verbatim_share": responses that occur elsewhere word for word, "mean_overlap": Jaccard of word
                         triples over pairs of different samples},
     "balance": {"positive_share", "words": mean words of a response},
     "samples": [{"prompt", "response", "steered_to", "measured", "restyle", "attributes": {name: figure}}],
     "sample_pairs": [{"user", "description", "prompt", "chosen", "rejected"}]}
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from fspo.judging.attributes import ATTRIBUTES, words
from fspo.judging.judge import AttributeJudge
from fspo.preferences.types import Preference, User
from fspo.synthesis.figures import correlation, histogram, share
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.labels import Labels, allowed_pairs
from fspo.synthesis.restyled.responses import Response, Responses
from fspo.synthesis.restyled.users import AXIS
from fspo.synthesis.similarity import jaccard, shingles

__all__ = ["FORMAT", "check", "disagreement"]

FORMAT = 1
"""Version of the layout above."""

_SHARED_PAIRS = 400
_EXAMPLES = 12


def check(
    config: RestyledConfig,
    asked: int,
    responses: Responses,
    users: Sequence[User],
    labels: Labels,
    judge: AttributeJudge,
) -> dict[str, Any]:
    """Everything that `checks.json` holds; see the module for the layout. `asked`: how many texts were sampled."""
    items = responses.items
    columns = {name: [ATTRIBUTES[name].measure(item.text) for item in items] for name in judge.scales}
    return {
        "format": FORMAT,
        "counts": _counts(responses, users, labels),
        "sampling": _sampling(asked, responses),
        "attributes": {name: _distribution(name, column) for name, column in columns.items()},
        "correlation": correlation(columns),
        "disagreement": disagreement(users, _shared_pairs(config, responses), judge),
        "labels": _labels(users, labels, judge),
        "near_duplicates": _overlaps(config, responses),
        "balance": {
            "positive_share": share(item.style.get("sentiment", 0) > 0 for item in items),
            "words": round(statistics.fmean(len(words(item.text)) for item in items), 2),
        },
        "samples": _examples(config, items, judge),
        "sample_pairs": _example_pairs(config, users, labels.preferences),
    }


def disagreement(
    users: Sequence[User], pairs: Sequence[tuple[Response, Response]], judge: AttributeJudge
) -> dict[str, Any]:
    """How often two users want different ones of a pair, among the pairs that both decide."""
    verdicts = [[judge.compare(user, a.prompt, a.text, b.text) for a, b in pairs] for user in users]
    matrix = [[0.0] * len(users) for _ in users]
    for i, j in combinations(range(len(users)), 2):
        both = [x != y for x, y in zip(verdicts[i], verdicts[j], strict=True) if "tie" not in (x, y)]
        matrix[i][j] = matrix[j][i] = share(both)
    others = [matrix[i][j] for i, j in combinations(range(len(users)), 2)]
    shown = _shown(users)
    return {
        "users": [users[i].id for i in shown],
        "matrix": [[matrix[i][j] for j in shown] for i in shown],
        "pairs": len(pairs),
        "mean": round(statistics.fmean(others), 4) if others else 0.0,
    }


def _shown(users: Sequence[User]) -> list[int]:
    """The axis users, and as many others spread evenly: what a matrix can show."""
    if not any(user.group == AXIS for user in users):
        return list(range(len(users)))
    axis = [place for place, user in enumerate(users) if user.group == AXIS]
    rest = [place for place in range(len(users)) if place not in axis]
    step = max(1, math.ceil(len(rest) / max(1, len(axis))))
    return [*axis, *rest[::step]]


def _counts(responses: Responses, users: Sequence[User], labels: Labels) -> dict[str, int]:
    questions = responses.by_question()
    return {
        "works": len({question.rpartition("/")[0] for question in questions}),
        "questions": len(questions),
        "responses": len(responses.items),
        "users": len(users),
        "preferences": len(labels.preferences),
        "ties": labels.ties,
    }


def _sampling(asked: int, responses: Responses) -> dict[str, Any]:
    return {
        "asked": asked,
        "used": len({item.sample for item in responses.items}),
        "rejected": dict(responses.rejected.most_common()),
        "unfilled": responses.unfilled,
        "steering": {side: dict(counts) for side, counts in responses.steering.items()},
    }


def _distribution(name: str, figures: list[float]) -> dict[str, Any]:
    return {
        "about": ATTRIBUTES[name].about,
        "mean": round(statistics.fmean(figures), 4),
        "std": round(statistics.pstdev(figures), 4),
        "histogram": histogram(figures),
    }


def _shared_pairs(config: RestyledConfig, responses: Responses) -> list[tuple[Response, Response]]:
    rng = random.Random(f"{config.seed}/shared pairs")
    pairs = [pair for own in responses.by_question().values() for pair in allowed_pairs(own, config)]
    return rng.sample(pairs, min(len(pairs), _SHARED_PAIRS))


def _labels(users: Sequence[User], labels: Labels, judge: AttributeJudge) -> dict[str, Any]:
    people = {user.id: user for user in users}
    rows = labels.preferences
    again = (judge.compare(people[row.user], row.prompt, row.rejected, row.chosen) == "second" for row in rows)
    per_user = Counter({user.id: 0 for user in users})
    per_user.update(row.user for row in rows)
    differing = [
        abs(judge.standardized(row.chosen)[name] - judge.standardized(row.rejected)[name]) >= 0.5
        for row in rows
        for name in judge.scales
    ]
    return {
        "consistency": share(again),
        "tie_share": round(labels.ties / max(1, labels.ties + len(rows)), 4),
        "per_user": {
            "least": min(per_user.values()),
            "mean": round(statistics.fmean(per_user.values()), 1),
            "most": max(per_user.values()),
        },
        "same_text_share": share(bool(row.source["same_text"]) for row in rows),
        "styles_differing": share(differing),
    }


def _overlaps(config: RestyledConfig, responses: Responses) -> dict[str, float]:
    alike: set[str] = set()
    overlaps: list[float] = []
    for own in responses.by_question().values():
        runs = {item.id: shingles(item.text) for item in own}
        for a, b in combinations(own, 2):
            if a.sample == b.sample:
                continue
            overlaps.append(jaccard(runs[a.id], runs[b.id]))
            if overlaps[-1] >= config.near_duplicate:
                alike |= {a.id, b.id}
    texts = Counter(item.text for item in responses.items)
    return {
        "threshold": config.near_duplicate,
        "share": round(len(alike) / len(responses.items), 4),
        "verbatim_share": share(texts[item.text] > 1 for item in responses.items),
        "mean_overlap": round(statistics.fmean(overlaps), 4) if overlaps else 0.0,
    }


def _examples(config: RestyledConfig, items: Sequence[Response], judge: AttributeJudge) -> list[dict[str, Any]]:
    rng = random.Random(f"{config.seed}/examples")
    return [
        {
            "prompt": item.prompt,
            "response": item.text,
            "steered_to": item.steered_to,
            "measured": item.measured,
            "restyle": list(item.restyle),
            "attributes": {name: round(ATTRIBUTES[name].measure(item.text), 3) for name in judge.scales},
        }
        for item in rng.sample(list(items), min(len(items), _EXAMPLES))
    ]


def _example_pairs(config: RestyledConfig, users: Sequence[User], rows: Sequence[Preference]) -> list[dict[str, str]]:
    rng = random.Random(f"{config.seed}/example pairs")
    people = {user.id: user for user in users}
    return [
        {
            "user": row.user,
            "description": people[row.user].description,
            "prompt": row.prompt,
            "chosen": row.chosen,
            "rejected": row.rejected,
        }
        for row in rng.sample(list(rows), min(len(rows), _EXAMPLES))
    ]
