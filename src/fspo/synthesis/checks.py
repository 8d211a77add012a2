"""What a dataset looks like: `checks.json`, for people and for the report; docs/data.md describes its layout."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fspo.errors import DataError
from fspo.judging.attributes import words
from fspo.judging.judge import AttributeJudge, scales_of
from fspo.judging.topics import named
from fspo.judging.traits import features_of
from fspo.preferences.types import Preference
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.disagreement import Matrix
from fspo.synthesis.diversity import diversity, sentence_embedding
from fspo.synthesis.domain import Domain
from fspo.synthesis.figures import correlation, histogram, share
from fspo.synthesis.judges import trait_judge
from fspo.synthesis.labels import LabelCounts
from fspo.synthesis.questions import Questions
from fspo.synthesis.responses import Response, Responses
from fspo.synthesis.similarity import jaccard, shingles
from fspo.synthesis.users import SynthesizedUsers
from fspo.synthesis.written import values_of

__all__ = ["FORMAT", "Checks", "SampledLabels"]

FORMAT = 2
"""Version of the layout."""

_MEASURED = 2000
"""Responses that attributes are measured in, at most."""
_SHOWN = 24
"""Users of the matrix that are written out, at most."""
_EXAMPLES = 12
_STEERINGS = 20
"""Personas or viewpoints whose responses are counted one by one, at most: every question has its own viewpoints."""
_COMPARED = 2000
"""Labels that are compared with the judge by traits, at most."""


class SampledLabels:
    """Some of many labels, each as likely as the others, taken while they pass by (reservoir sampling)."""

    def __init__(self, seed: int) -> None:
        """Nothing has passed yet."""
        self._rng = random.Random(f"{seed}/compared")
        self._kept: list[Preference] = []

    def passing(self, rows: Iterable[Preference]) -> Iterator[Preference]:
        """The same rows, looked at as they go by."""
        for place, row in enumerate(rows):
            if place < _COMPARED:
                self._kept.append(row)
            elif (at := self._rng.randrange(place + 1)) < _COMPARED:
                self._kept[at] = row
            yield row

    def rows(self) -> list[Preference]:
        """Those taken, in a random order."""
        self._rng.shuffle(self._kept)
        return self._kept


@dataclass(frozen=True)
class Checks:
    """The checks of a dataset; `rows` are some of its labels."""

    config: SynthesisConfig
    domain: Domain
    questions: Questions
    responses: Responses
    made: SynthesizedUsers
    counts: LabelCounts
    rows: Sequence[Preference]

    def record(self) -> dict[str, Any]:
        """Everything that `checks.json` holds, but for the replies."""
        made, rejected = self.made, self.questions.rejected
        items = self._some(_MEASURED)
        columns, about = self._columns(items)
        found = {
            "format": FORMAT,
            "counts": self._counts(),
            "questions": {"rejected": dict(rejected.most_common())},
            "sampling": self._sampling(),
            "attributes": {
                name: {
                    "about": about[name],
                    "mean": round(statistics.fmean(column), 4),
                    "std": round(statistics.pstdev(column), 4),
                    "histogram": histogram(column),
                }
                for name, column in columns.items()
            },
            "correlation": correlation(columns),
            "disagreement": _disagreement(made.matrix, self.config.shared_pairs),
            "diversity": diversity(
                self.responses.items, self.config.seed, sentence_embedding if self.config.meaning else None
            ),
            "labels": self._labels(),
            "refinement": {
                "open": made.open,
                "sentences": sum(map(len, made.added.values())),
                "users": sum(bool(added) for added in made.added.values()),
                "rejected": dict(made.rejected.most_common()),
            },
            "casting": {
                "made_anew": sum(bool(count) for count in made.attempts.values()),
                "outside": dict(Counter(_kind(why) for why in made.outside.values())),
            },
            "balance": {"words": round(statistics.fmean(len(words(item.text)) for item in items), 2)},
            "samples": self._examples(),
            "sample_pairs": self._example_pairs(),
        }
        if self.domain.file.responses == "restyled":
            self._add_restyled(found)
        return found

    def _columns(self, items: Sequence[Response]) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Attribute -> its figure in each response, and what it is."""
        domain = self.domain
        if domain.traits:
            values = values_of(domain.traits)
            rows = [features_of(item.made["traits"], values) for item in items]
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            return columns, {name: domain.traits[name.partition("=")[0]].about for name in columns}
        names = domain.attributes(self.config.attributes) or ("sentiment", "length", "reading_grade")
        attributes = named(names, domain.topics)
        figures = [[attribute.measure(item.text) for attribute in attributes.values()] for item in items]
        columns = {name: list(column) for name, column in zip(attributes, zip(*figures, strict=True), strict=True)}
        return columns, {name: attribute.about for name, attribute in attributes.items()}

    def _counts(self) -> dict[str, int]:
        questions, items, counts = self.questions.items, self.responses.items, self.counts
        answered = {response.question for response in items}
        works = {question.unit for question in questions if question.title and question.id in answered}
        return {
            **({"works": len(works)} if works else {}),
            "questions": len(answered),
            "seeds": sum(question.seed for question in questions),
            "responses": len(items),
            "users": len(self.made.users),
            "preferences": counts.decided,
            "ties": sum(counts.order.undecided.values()),
        }

    def _sampling(self) -> dict[str, Any]:
        items = self.responses.items
        steered = dict(Counter(response.steered for response in items).most_common(_STEERINGS))
        return {
            "asked": self.responses.asked,
            "used": len({response.made.get("sample", response.id) for response in items}),
            "rejected": dict(self.responses.rejected.most_common()),
            "models": dict(Counter(response.model for response in items)),
            "steered": steered,
            "steered_others": len(items) - sum(steered.values()),
        }

    def _add_restyled(self, found: dict[str, Any]) -> None:
        """What only restyled responses have."""
        domain, items, rows = self.domain, self.responses.items, self.rows
        found["sampling"]["unfilled"] = len(self.questions.items) * self.config.responses - len(items)
        found["sampling"]["steering"] = self.responses.steering
        found["balance"]["positive_share"] = share(item.made["style"]["sentiment"] > 0 for item in items)
        found["near_duplicates"] = _near_duplicates(self.config.near_duplicate, items)
        found["labels"]["same_text_share"] = share(
            row.source["chosen"]["sample"] == row.source["rejected"]["sample"] for row in rows
        )
        with suppress(DataError):  # an attribute that does not vary, where a language model judges
            scales = scales_of([item.text for item in items], domain.attributes(self.config.attributes), domain.topics)
            judge = AttributeJudge(scales, vocabularies=domain.topics)
            measured = [(judge.standardized(row.chosen), judge.standardized(row.rejected)) for row in rows]
            found["labels"]["styles_differing"] = share(
                abs(chosen[name] - rejected[name]) >= 0.5 for chosen, rejected in measured for name in scales
            )

    def _labels(self) -> dict[str, Any]:
        order, per_user = self.counts.order, list(self.counts.per_user.values())
        found: dict[str, Any] = {
            "tie_share": round(1 - self.counts.decided / max(1, self.counts.asked), 4),
            "undecided": dict(order.undecided.most_common()),
            "per_user": {
                "least": min(per_user),
                "mean": round(statistics.fmean(per_user), 1),
                "most": max(per_user),
            },
            "entropy": {"before": _figure(self.made.entropy[0]), "after": _figure(self.made.entropy[1])},
        }
        if self.config.label_noise:
            found["flipped_share"] = share(row.source.get("flipped") for row in self.rows)
        if self.config.by_traits:
            return found | {"consistency": 1.0}  # antisymmetric by construction
        return found | {
            "consistency": _figure(order.agreement),
            "order": {
                "agreement": _figure(order.agreement),
                "first_share": _figure(order.first_share),
                "estimated_accuracy": _figure(order.accuracy),
            },
            **self._agreement(),
        }

    def _agreement(self) -> dict[str, Any]:
        """Share of the labels that the judge by traits shares, where it decides; or why there is none."""
        name = "agreement_with_measures"
        people = {user.id: user for user in self.made.users if user.traits}
        if not people:
            return {name: None, "why": "No user has weights."}
        try:
            judge = trait_judge(self.config, self.domain, self.questions.items, self.responses.items)
        except DataError as error:  # an attribute that does not vary
            return {name: None, "why": str(error)}
        verdicts = [
            judge.compare(people[row.user], row.prompt, row.chosen, row.rejected)
            for row in self.rows
            if row.user in people
        ]
        decided = [verdict == "first" for verdict in verdicts if verdict != "tie"]
        if not decided:
            return {name: None, "why": "The judge by traits decides none of the labelled pairs."}
        return {name: round(sum(decided) / len(decided), 4)}

    def _examples(self) -> list[dict[str, Any]]:
        prompts = {question.id: question.text for question in self.questions.items}
        return [
            {
                "prompt": prompts[r.question],
                "response": r.text,
                "about": _how(r),
                "restyle": r.made.get("restyle", []),
            }
            for r in self._some(_EXAMPLES)
        ]

    def _example_pairs(self) -> list[dict[str, str]]:
        people = {user.id: user for user in self.made.users}
        return [
            {
                "user": row.user,
                "description": people[row.user].description,
                "prompt": row.prompt,
                "chosen": row.chosen,
                "rejected": row.rejected,
            }
            for row in self.rows[:_EXAMPLES]
        ]

    def _some(self, count: int) -> list[Response]:
        items = self.responses.items
        return random.Random(f"{self.config.seed}/measured").sample(items, min(len(items), count))


def _near_duplicates(most: float, items: Sequence[Response]) -> dict[str, float]:
    own: dict[str, list[Response]] = {}
    for item in items:
        own.setdefault(item.question, []).append(item)
    runs = {item.id: shingles(item.text) for item in items}
    overlaps = {
        (a.id, b.id): jaccard(runs[a.id], runs[b.id])
        for group in own.values()
        for a, b in combinations(group, 2)
        if a.made["sample"] != b.made["sample"]
    }
    alike = {id for pair, overlap in overlaps.items() if overlap >= most for id in pair}
    texts = Counter(item.text for item in items)
    return {
        "threshold": most,
        "share": round(len(alike) / len(items), 4),
        "verbatim_share": share(texts[item.text] > 1 for item in items),
        "mean_overlap": round(statistics.fmean(overlaps.values()), 4) if overlaps else 0.0,
    }


def _disagreement(matrix: Matrix | None, pairs: int) -> dict[str, Any]:
    if matrix is None:
        return {}
    step = max(1, math.ceil(len(matrix.users) / _SHOWN))
    shown = range(0, len(matrix.users), step)
    return {
        "users": [matrix.users[place] for place in shown],
        "matrix": [[_figure(matrix.shares[i, j]) for j in shown] for i in shown],
        "pairs": pairs,
        "mean": _figure(matrix.mean),
    }


def _how(response: Response) -> str:
    """How a response came about, in words."""
    made: Mapping[str, Any] = response.made
    if "traits" in made:
        return "declared: " + ", ".join(f"{name} {value}" for name, value in made["traits"].items())
    steered = f", steered by '{response.steered}'" if response.steered else ""
    measured = f" to {made['steered_to']}, measured {made['measured']}" if "sample" in made else ""
    return f"by {response.model}{steered}{measured}"


def _kind(why: str) -> str:
    return "too much like another" if why.startswith("too much like") else why


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
