"""What a dataset looks like: `checks.json`, for people and for the report.

The layout (`FORMAT` 2); every share is a fraction:

    {"format": 2,
     "counts": {"works" (where questions are about works), "questions", "seeds": questions of the domain,
                "responses", "users", "preferences", "ties": pairs left undecided},
     "questions": {"rejected": {reason: count}},
     "sampling": {"asked": texts asked for, "used": texts that responses were made of, "rejected": {reason: count},
                  "models": {name: responses}, "steered": {persona or view: responses}, the most frequent alone,
                  "steered_others": responses of all others;
                  of restyled responses also "unfilled": responses that no text had the making of, and "steering":
                  {sentiment steered to: {sentiment that came out: texts}}},
     "attributes": {name: {"about", "mean", "std", "histogram": {"edges": [n + 1 figures], "counts": [n]}}}, measured,
                   or the features of declared traits,
     "correlation": {"attributes": [name], "matrix": [[Pearson's r]], "largest": largest absolute r off the diagonal},
     "disagreement": {"users": [id], "matrix": [[share of the pairs both decide that they decide differently]],
                      "pairs": count, "mean": over all users; the matrix shows some of them},
     "diversity": see `fspo.synthesis.diversity`,
     "near_duplicates" (restyled responses): {"threshold", "share": responses that overlap with one of another text to
                         the same question, "verbatim_share": responses that occur elsewhere word for word,
                         "mean_overlap": Jaccard of word triples over pairs of different texts},
     "labels": {"tie_share", "undecided": {reason: count}, "per_user": {"least", "mean", "most"},
                "consistency": share of the labels that hold in the other order, "entropy": {"before", "after"} in
                nats a shared pair,
                "flipped_share": of the labels sampled, those turned over by label_noise;
                with a language model as the judge "order": {"agreement", "first_share", "estimated_accuracy"} and
                "agreement_with_measures": share of the labels that the judge by traits shares, among those it decides,
                or null and "why";
                of restyled responses "same_text_share": pairs made from one text, and "styles_differing": mean share
                of the attributes that differ by half a standard deviation or more within a pair},
     "refinement": {"open": [pairs left open in each round], "sentences": added, "users": extended, "rejected"},
     "casting": {"made_anew": users, "outside": {reason: users}},
     "balance": {"words": mean words of a response, "positive_share" (restyled responses)},
     "samples": [{"prompt", "response", "about": how it came about, "restyle": [rules applied]}],
     "sample_pairs": [{"user", "description", "prompt", "chosen", "rejected"}],
     "replies": {what was odd about a server's reply: replies}, over all calls of the run,
     "readers" (written responses): {trait: how rightly it is read in answers, see `judging.trait_readers.Reading`}}
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from typing import Any

from fspo.errors import DataError
from fspo.judging.attributes import words
from fspo.judging.judge import AttributeJudge, scales_of
from fspo.judging.topics import named
from fspo.judging.traits import features_of
from fspo.preferences.types import Preference, User
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.disagreement import Matrix
from fspo.synthesis.diversity import diversity, sentence_embedding
from fspo.synthesis.domain import Domain, Question
from fspo.synthesis.figures import correlation, histogram, share
from fspo.synthesis.judges import trait_judge
from fspo.synthesis.labels import LabelCounts
from fspo.synthesis.questions import Questions
from fspo.synthesis.responses import Response, Responses
from fspo.synthesis.similarity import jaccard, shingles
from fspo.synthesis.users import SynthesizedUsers
from fspo.synthesis.written import values_of

__all__ = ["FORMAT", "SampledLabels", "check"]

FORMAT = 2
"""Version of the layout above."""

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


def check(
    config: SynthesisConfig,
    domain: Domain,
    questions: Questions,
    responses: Responses,
    made: SynthesizedUsers,
    counts: LabelCounts,
    rows: Sequence[Preference],
) -> dict[str, Any]:
    """Everything that `checks.json` holds, but for the replies; `rows` are some of the labels."""
    items = _some(responses.items, _MEASURED, config.seed)
    columns, about = _columns(config, domain, items)
    found = {
        "format": FORMAT,
        "counts": _counts(questions, responses, made, counts),
        "questions": {"rejected": dict(questions.rejected.most_common())},
        "sampling": _sampling(responses),
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
        "disagreement": _disagreement(made.matrix, config.shared_pairs),
        "diversity": diversity(responses.items, config.seed, sentence_embedding if config.meaning else None),
        "labels": _labels(config, domain, questions.items, responses.items, made, counts, rows),
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
        "samples": _examples(config, questions.items, responses.items),
        "sample_pairs": _example_pairs(made.users, rows),
    }
    if domain.file.responses == "restyled":
        _add_restyled(found, config, domain, questions, responses, rows)
    return found


def _columns(
    config: SynthesisConfig, domain: Domain, items: Sequence[Response]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Attribute -> its figure in each response, and what it is."""
    if domain.traits:
        values = values_of(domain.traits)
        rows = [features_of(item.made["traits"], values) for item in items]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return columns, {name: domain.traits[name.partition("=")[0]].about for name in columns}
    names = domain.attributes(config.attributes) or ("sentiment", "length", "reading_grade")
    attributes = named(names, domain.topics)
    columns = {name: [attribute.measure(item.text) for item in items] for name, attribute in attributes.items()}
    return columns, {name: attribute.about for name, attribute in attributes.items()}


def _counts(questions: Questions, responses: Responses, made: SynthesizedUsers, counts: LabelCounts) -> dict[str, int]:
    answered = {response.question for response in responses.items}
    works = {question.unit for question in questions.items if question.title and question.id in answered}
    return {
        **({"works": len(works)} if works else {}),
        "questions": len(answered),
        "seeds": sum(question.seed for question in questions.items),
        "responses": len(responses.items),
        "users": len(made.users),
        "preferences": counts.decided,
        "ties": sum(counts.order.undecided.values()),
    }


def _sampling(responses: Responses) -> dict[str, Any]:
    items = responses.items
    steered = dict(Counter(response.steered for response in items).most_common(_STEERINGS))
    return {
        "asked": responses.asked,
        "used": len({response.made.get("sample", response.id) for response in items}),
        "rejected": dict(responses.rejected.most_common()),
        "models": dict(Counter(response.model for response in items)),
        "steered": steered,
        "steered_others": len(items) - sum(steered.values()),
    }


def _add_restyled(
    found: dict[str, Any],
    config: SynthesisConfig,
    domain: Domain,
    questions: Questions,
    responses: Responses,
    rows: Sequence[Preference],
) -> None:
    """What only restyled responses have."""
    items = responses.items
    found["sampling"]["unfilled"] = len(questions.items) * config.responses - len(items)
    found["sampling"]["steering"] = responses.steering
    found["balance"]["positive_share"] = share(item.made["style"]["sentiment"] > 0 for item in items)
    found["near_duplicates"] = _near_duplicates(config, items)
    found["labels"]["same_text_share"] = share(
        row.source["chosen"]["sample"] == row.source["rejected"]["sample"] for row in rows
    )
    with suppress(DataError):  # an attribute that does not vary, where a language model judges
        scales = scales_of([item.text for item in items], domain.attributes(config.attributes), domain.topics)
        judge = AttributeJudge(scales, vocabularies=domain.topics)
        measured = [(judge.standardized(row.chosen), judge.standardized(row.rejected)) for row in rows]
        found["labels"]["styles_differing"] = share(
            abs(chosen[name] - rejected[name]) >= 0.5 for chosen, rejected in measured for name in scales
        )


def _near_duplicates(config: SynthesisConfig, items: Sequence[Response]) -> dict[str, float]:
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
    alike = {id for pair, overlap in overlaps.items() if overlap >= config.near_duplicate for id in pair}
    texts = Counter(item.text for item in items)
    return {
        "threshold": config.near_duplicate,
        "share": round(len(alike) / len(items), 4),
        "verbatim_share": share(texts[item.text] > 1 for item in items),
        "mean_overlap": round(statistics.fmean(overlaps.values()), 4) if overlaps else 0.0,
    }


def _labels(
    config: SynthesisConfig,
    domain: Domain,
    questions: Sequence[Question],
    responses: Sequence[Response],
    made: SynthesizedUsers,
    counts: LabelCounts,
    rows: Sequence[Preference],
) -> dict[str, Any]:
    order, per_user = counts.order, list(counts.per_user.values())
    found: dict[str, Any] = {
        "tie_share": round(1 - counts.decided / max(1, counts.asked), 4),
        "undecided": dict(order.undecided.most_common()),
        "per_user": {
            "least": min(per_user),
            "mean": round(statistics.fmean(per_user), 1),
            "most": max(per_user),
        },
        "entropy": {"before": _figure(made.entropy[0]), "after": _figure(made.entropy[1])},
    }
    if config.label_noise:
        found["flipped_share"] = share(row.source.get("flipped") for row in rows)
    if config.by_traits:
        return found | {"consistency": 1.0}  # antisymmetric by construction
    return found | {
        "consistency": _figure(order.agreement),
        "order": {
            "agreement": _figure(order.agreement),
            "first_share": _figure(order.first_share),
            "estimated_accuracy": _figure(order.accuracy),
        },
        **_agreement(config, domain, questions, responses, made.users, rows),
    }


def _agreement(
    config: SynthesisConfig,
    domain: Domain,
    questions: Sequence[Question],
    responses: Sequence[Response],
    users: Sequence[User],
    rows: Sequence[Preference],
) -> dict[str, Any]:
    """Share of the labels that the judge by traits shares, where it decides; or why there is none."""
    name = "agreement_with_measures"
    people = {user.id: user for user in users if user.traits}
    if not people:
        return {name: None, "why": "No user has weights."}
    try:
        judge = trait_judge(config, domain, questions, responses)
    except DataError as error:  # an attribute that does not vary
        return {name: None, "why": str(error)}
    verdicts = [
        judge.compare(people[row.user], row.prompt, row.chosen, row.rejected) for row in rows if row.user in people
    ]
    decided = [verdict == "first" for verdict in verdicts if verdict != "tie"]
    if not decided:
        return {name: None, "why": "The judge by traits decides none of the labelled pairs."}
    return {name: round(sum(decided) / len(decided), 4)}


def _disagreement(matrix: Matrix | None, pairs: int) -> dict[str, Any]:
    if matrix is None:
        return {}
    step = max(1, math.ceil(len(matrix.users) / _SHOWN))
    shown = range(0, len(matrix.users), step)
    return {
        "users": [matrix.users[place] for place in shown],
        "matrix": [[_figure(matrix.shares[i, j]) or 0.0 for j in shown] for i in shown],
        "pairs": pairs,
        "mean": _figure(matrix.mean),
    }


def _examples(
    config: SynthesisConfig, questions: Sequence[Question], responses: Sequence[Response]
) -> list[dict[str, Any]]:
    prompts = {question.id: question.text for question in questions}
    return [
        {
            "prompt": prompts[r.question],
            "response": r.text,
            "about": _how(r),
            "restyle": r.made.get("restyle", []),
        }
        for r in _some(responses, _EXAMPLES, config.seed)
    ]


def _how(response: Response) -> str:
    """How a response came about, in words."""
    made: Mapping[str, Any] = response.made
    if "traits" in made:
        return "declared: " + ", ".join(f"{name} {value}" for name, value in made["traits"].items())
    steered = f", steered by '{response.steered}'" if response.steered else ""
    measured = f" to {made['steered_to']}, measured {made['measured']}" if "sample" in made else ""
    return f"by {response.model}{steered}{measured}"


def _example_pairs(users: Sequence[User], rows: Sequence[Preference]) -> list[dict[str, str]]:
    people = {user.id: user for user in users}
    return [
        {
            "user": row.user,
            "description": people[row.user].description,
            "prompt": row.prompt,
            "chosen": row.chosen,
            "rejected": row.rejected,
        }
        for row in rows[:_EXAMPLES]
    ]


def _some(items: Sequence[Response], count: int, seed: int) -> list[Response]:
    return random.Random(f"{seed}/measured").sample(list(items), min(len(items), count))


def _kind(why: str) -> str:
    return "too much like another" if why.startswith("too much like") else why


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
