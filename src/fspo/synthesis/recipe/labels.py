"""The labels of all users, a shard of users at a time; each shard is a file of its own, written whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fspo.files import read_json, read_jsonl, to_json, write_json, write_text
from fspo.judging.pairwise import Comparison, Judgement, OrderTally
from fspo.preferences.types import Preference, Split, User
from fspo.progress import Progress
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.judges import Judging
from fspo.synthesis.recipe.pairs import Pair, Pairs
from fspo.synthesis.recipe.questions import Question
from fspo.synthesis.recipe.responses import Response

__all__ = ["LABELS", "UNDECIDED", "LabelCounts", "label_all", "preferences_of"]

LABELS, UNDECIDED = "labels", "undecided"
"""Folders of the shards: decided pairs, and those left undecided with their reason."""


@dataclass
class LabelCounts:
    """What came of all pairs."""

    per_user: dict[str, int] = field(default_factory=dict)
    order: OrderTally = field(default_factory=OrderTally)

    @property
    def decided(self) -> int:
        """Pairs with a label."""
        return sum(self.per_user.values())

    @property
    def asked(self) -> int:
        """All pairs."""
        return self.decided + sum(self.order.undecided.values())


def label_all(
    config: RecipeConfig,
    users: Sequence[User],
    topics: Mapping[str, str],
    parts: Mapping[Split, frozenset[str]],
    pairs: Pairs,
    judging: Judging,
    out: Path,
    progress: Progress,
) -> LabelCounts:
    """Judge every user's pairs and write the shards that are not there yet.

    Args:
        config: pairs and users of a shard.
        users: with their final descriptions.
        topics: user -> their own topic, if any.
        parts: ids of users.
        pairs: what each user is asked.
        judging: who judges.
        out: the dataset's folder.
        progress: shows how far it is.

    Raises:
        ModelError: the judge failed; finished shards stay.
        StorageError: the disk is full.
    """
    split: dict[str, Split] = {id: name for name, ids in parts.items() for id in ids}
    shards = [users[start : start + config.shard] for start in range(0, len(users), config.shard)]
    counts = LabelCounts()
    done = sum(len(shard) for number, shard in enumerate(shards) if _tally(out, number).exists())
    with progress.task("Labelling pairs", total=len(users), done=done) as task:
        for number, shard in enumerate(shards):
            if not _tally(out, number).exists():
                asked = [(user, pair) for user in shard for pair in pairs.of(user.id, split[user.id], topics[user.id])]
                _write(out, number, shard, asked, judging)
                task.advance(len(shard))
            _add(read_json(_tally(out, number)), counts)
    return counts


def preferences_of(
    config: RecipeConfig,
    domain: str,
    questions: Mapping[str, Question],
    responses: Mapping[str, Response],
    out: Path,
) -> Iterator[Preference]:
    """The preferences of all shards, in order, one shard in memory at a time."""
    for path in sorted((out / LABELS).glob("*.jsonl")):
        for row in read_jsonl(path):
            chosen, rejected = responses[row["chosen"]], responses[row["rejected"]]
            question = questions[chosen.question]
            source = {
                "domain": domain,
                "judge": config.judge,
                "topic": question.topic,
                "chosen": _origin(chosen),
                "rejected": _origin(rejected),
            }
            yield Preference(row["user"], question.text, chosen.text, rejected.text, question.id, source)


def _write(out: Path, number: int, users: Sequence[User], asked: Sequence[tuple[User, Pair]], judging: Judging) -> None:
    decided: list[dict[str, Any]] = []
    undecided: list[dict[str, Any]] = []
    per_user, order = dict.fromkeys((user.id for user in users), 0), OrderTally()
    comparisons = (Comparison(user, p.question.text, p.a.text, p.b.text) for user, p in asked)
    for (user, pair), judgement in zip(asked, judging(comparisons), strict=True):
        order.add(judgement)
        if judgement.verdict == "tie":
            undecided.append(_undecided(user, pair, judgement))
            continue
        per_user[user.id] += 1
        first, second = (pair.a, pair.b) if judgement.verdict == "a" else (pair.b, pair.a)
        decided.append({"user": user.id, "chosen": first.id, "rejected": second.id})
    for folder, rows in ((LABELS, decided), (UNDECIDED, undecided)):
        write_text(out / folder / f"{number:05d}.jsonl", "".join(to_json(row) + "\n" for row in rows))
    write_json(
        _tally(out, number),
        {
            "per_user": per_user,
            "agreed": order.agreed,
            "disagreed": order.disagreed,
            "first": order.first,
            "undecided": dict(order.undecided),
        },
    )


def _undecided(user: User, pair: Pair, judgement: Judgement) -> dict[str, Any]:
    return {"user": user.id, "a": pair.a.id, "b": pair.b.id, "reason": judgement.reason, "said": judgement.choices}


def _tally(out: Path, number: int) -> Path:
    """The counts of a shard, written last: where it is, the shard is finished."""
    return out / LABELS / f"{number:05d}.json"


def _add(record: Mapping[str, Any], counts: LabelCounts) -> None:
    counts.per_user.update(record["per_user"])
    order = counts.order
    order.agreed += record["agreed"]
    order.disagreed += record["disagreed"]
    order.first += record["first"]
    order.undecided += Counter(record["undecided"])


def _origin(response: Response) -> dict[str, str]:
    return {"response": response.id, "steered": response.steered, "model": response.model}
