"""The labels of one shard of users: what is to be done, and who does it, in this process or in another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fspo.errors import StorageError
from fspo.files import read_json, to_json, write_json, write_text
from fspo.identity import digest
from fspo.judging.by_topic import load_judge
from fspo.judging.verdicts import Comparison, Judgement, OrderTally
from fspo.llm.types import LanguageModel
from fspo.preferences.types import Split, User
from fspo.progress import Scaled, Silent, Task
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain
from fspo.synthesis.judges import Judging, by_traits, pairwise_judge
from fspo.synthesis.pairs import Pair, Pairs, pairs_of
from fspo.synthesis.storage import JUDGE, QUESTIONS, RESPONSES, load_questions, load_responses

__all__ = [
    "LABELS",
    "UNDECIDED",
    "Labeller",
    "Person",
    "Shard",
    "Work",
    "labels_file",
    "open_judging",
    "open_labeller",
    "tally_file",
]

LABELS, UNDECIDED = "labels", "undecided"
"""Folders of the shards: decided pairs, and those left undecided with their reason."""


@dataclass(frozen=True)
class Person:
    """One user whose pairs are to be labelled.

    `user` has the final description, `topic` is their own, if any, and `known` is what came of the shared pairs before,
    in their order.
    """

    user: User
    split: Split
    topic: str
    known: tuple[Judgement, ...]


@dataclass(frozen=True)
class Shard:
    """Users whose labels lie in one file."""

    number: int
    people: tuple[Person, ...]

    @property
    def digest(self) -> str:
        """Tells apart shards of other users, or of users with other descriptions or other labels of shared pairs."""
        people = [
            [one.user.id, one.user.description, sorted(one.user.traits.items()), [_said(known) for known in one.known]]
            for one in self.people
        ]
        return digest(people, 64)


@dataclass(frozen=True)
class Work:
    """What the labels of all shards depend on, besides the questions and responses in `out` and the model."""

    config: SynthesisConfig
    domain: Domain
    out: Path

    def done(self, shard: Shard) -> bool:
        """Whether the shard is finished, for these users, and no request failed."""
        path = tally_file(self.out, shard.number)
        if not path.exists():
            return False
        tally = read_json(path)
        # A tally of an earlier version has no digest.
        return not tally["undecided"].get("failed") and tally.get("people") in (None, shard.digest)


class Labeller:
    """Labels shards."""

    def __init__(self, work: Work, pairs: Pairs, judging: Judging | None) -> None:
        """Take what labels are made of; the judge may come later (`judged_by`)."""
        self.work = work
        self._pairs, self._given, self._shared = pairs, judging, pairs.shared

    @property
    def _judging(self) -> Judging:
        assert self._given is not None, "no judge was opened"
        return self._given

    def judged_by(self, judging: Judging) -> Labeller:
        """The same with another judge."""
        return Labeller(self.work, self._pairs, judging)

    def label(self, shard: Shard, task: Task | None = None) -> None:
        """Judge the pairs of a shard's users and write its files, the tally last; `task` is advanced by its users.

        Raises:
            ModelError: the judge failed.
            StorageError: the disk is full.
        """
        decided: list[dict[str, Any]] = []
        undecided: list[dict[str, Any]] = []
        per_user, order = dict.fromkeys((person.user.id for person in shard.people), 0), OrderTally()
        for person, pair, judgement in self._judged(shard, task or Silent()):
            order.add(judgement)
            if judgement.preferred == "tie":
                ids = {"user": person.user.id, "a": pair.a.id, "b": pair.b.id}
                undecided.append({**ids, "reason": judgement.reason, "said": _said(judgement)})
                continue
            per_user[person.user.id] += 1
            flipped = self._flips(person, pair)
            first, second = (pair.a, pair.b) if (judgement.preferred == "first") != flipped else (pair.b, pair.a)
            row = {"user": person.user.id, "chosen": first.id, "rejected": second.id}
            decided.append({**row, "flipped": True} if flipped else row)
        for folder, rows in ((LABELS, decided), (UNDECIDED, undecided)):
            text = "".join(to_json(row) + "\n" for row in rows)
            write_text(labels_file(self.work.out, shard.number, folder), text)
        tally = {"agreed": order.agreed, "disagreed": order.disagreed, "first": order.first}
        write_json(
            tally_file(self.work.out, shard.number),
            {"people": shard.digest, "per_user": per_user, **tally, "undecided": dict(order.undecided)},
        )

    def _judged(self, shard: Shard, task: Task) -> Iterator[tuple[Person, Pair, Judgement]]:
        """Every pair of every user; the shared ones were judged when the users were made."""
        config = self.work.config
        if config.pairs_per_question is not None and config.by_traits:
            yield from self._until_decided(shard, config.pairs_per_question, task)
            return
        asked = [(person, self._own(person)) for person in shard.people]
        comparisons = (
            Comparison(person.user, pair.question.text, pair.a.text, pair.b.text)
            for person, pairs in asked
            for pair in pairs
        )
        count = sum(len(pairs) for _, pairs in asked)
        if not count:
            task.advance(len(asked))
        judgements = iter(self._judging(comparisons, Scaled(task, len(asked) / max(1, count))))
        for person, pairs in asked:
            for pair, judgement in zip(self._shared, person.known, strict=True):
                yield person, pair, judgement
            for pair in pairs:
                yield person, pair, next(judgements)

    def _own(self, person: Person) -> list[Pair]:
        """A user's pairs besides the shared ones."""
        wanted = self.work.config.pairs_per_question
        if wanted is None:
            return self._pairs.of(person.user.id, person.split, person.topic)[len(self._shared) :]
        seen = {pair.key for pair in self._shared}
        each = self._pairs.of_each_question(person.user.id, person.split)
        return [pair for pairs in each for pair in islice((one for one in pairs if one.key not in seen), wanted)]

    def _until_decided(self, shard: Shard, wanted: int, task: Task) -> Iterator[tuple[Person, Pair, Judgement]]:
        """Pairs of each question of each user, until so many are decided or there are no more."""
        for person in shard.people:
            for pairs in self._pairs.of_each_question(person.user.id, person.split):
                decided = 0
                for pair in pairs:
                    compared = Comparison(person.user, pair.question.text, pair.a.text, pair.b.text)
                    judgement = next(self._judging([compared]))
                    yield person, pair, judgement
                    decided += judgement.preferred != "tie"
                    if decided == wanted:
                        break
            task.advance()

    def _flips(self, person: Person, pair: Pair) -> bool:
        """Whether `label_noise` flips the label of this pair; it flips labels of training users alone."""
        share = self.work.config.label_noise
        if not share or person.split != "train":
            return False
        seed = f"{self.work.config.seed}/noise/{person.user.id}/{'/'.join(pair.key)}"
        return random.Random(seed).random() < share


def open_labeller(work: Work) -> Labeller:
    """The labeller of a process that has nothing yet; where a model judges, see `open_judging`.

    Raises:
        StorageError: the questions and responses are not to be seen from here.
    """
    for name in (QUESTIONS, RESPONSES, *([JUDGE] if work.config.by_traits else [])):
        if not (work.out / name).exists():
            raise StorageError(
                f"{work.out / name} is not to be seen from here; the run's folder must lie on a file system that all "
                "nodes share, under the same path."
            )
    questions, responses = load_questions(work.out).items, load_responses(work.out).items
    pairs, _ = pairs_of(work.config, work.domain, questions, responses)
    return Labeller(work, pairs, by_traits(load_judge(work.out / JUDGE)) if work.config.by_traits else None)


def open_judging(work: Work, model: LanguageModel) -> Judging:
    """The judge of this work by a model."""
    return pairwise_judge(work.config, work.domain, model).judge


def labels_file(out: Path, number: int, folder: str = LABELS) -> Path:
    """The rows of a shard."""
    return out / folder / f"{number:05d}.jsonl"


def tally_file(out: Path, number: int) -> Path:
    """The counts of a shard, written last: where it is, the shard is finished."""
    return out / LABELS / f"{number:05d}.json"


def _said(judgement: Judgement) -> list[str]:
    """What the judge said with the first response shown first, and with the second shown first."""
    return [str(verdict) for verdict in judgement.orders]
