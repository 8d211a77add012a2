"""The labels of all users, a shard of users at a time; each shard is a file of its own, written whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fspo.errors import StorageError
from fspo.files import read_json
from fspo.judging.judge import LabelledBy
from fspo.judging.verdicts import OrderTally
from fspo.preferences.types import Preference
from fspo.progress import Progress, Task
from fspo.records import read_records
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain
from fspo.synthesis.questions import Questions
from fspo.synthesis.responses import Response, Responses
from fspo.synthesis.shards import LABELS, UNDECIDED, Labeller, Person, Shard, tally_file
from fspo.synthesis.storage import REMEDY, RESPONSES

__all__ = ["LABELS", "UNDECIDED", "Executor", "InProcessExecutor", "LabelCounts", "label_all", "preferences_of"]


class Executor(Protocol):
    """Has shards labelled."""

    def label(self, here: Labeller, shards: Sequence[Shard], task: Task) -> None:
        """Label the shards, in any order.

        `here` labels in this process, where that is wanted; `here.work` says what others need to know. `task` is
        advanced by the users that are labelled.

        Raises:
            ModelError: the judge failed; finished shards stay.
            StorageError: the disk is full.
        """


class InProcessExecutor:
    """Labels one shard after the other in this process."""

    def label(self, here: Labeller, shards: Sequence[Shard], task: Task) -> None:
        """Label them."""
        for shard in shards:
            here.label(shard, task)


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


def label_all(people: Sequence[Person], labeller: Labeller, executor: Executor, progress: Progress) -> LabelCounts:
    """Judge every user's pairs and write the shards that are not there yet.

    Raises:
        ModelError: the judge failed; finished shards stay.
        StorageError: the disk is full.
    """
    work, size = labeller.work, labeller.work.config.shard
    starts = range(0, len(people), size)
    shards = [Shard(number, tuple(people[start : start + size])) for number, start in enumerate(starts)]
    missing = [shard for shard in shards if not work.done(shard)]
    done = len(people) - sum(len(shard.people) for shard in missing)
    with progress.task("Labelling pairs", total=len(people), done=done) as task:
        executor.label(labeller, missing, task)
    counts = LabelCounts()
    for shard in shards:
        _add(read_json(tally_file(work.out, shard.number)), counts)
    return counts


def preferences_of(
    config: SynthesisConfig, domain: Domain, questions: Questions, responses: Responses, out: Path
) -> Iterator[Preference]:
    """The preferences of all shards, in order, one shard in memory at a time.

    Raises:
        StorageError: the file of a shard is damaged; says in which line.
    """
    asked = {question.id: question for question in questions.items}
    answers = {response.id: response for response in responses.items}
    for path in sorted((out / LABELS).glob("*.jsonl")):
        for label in read_records(path, _Label, REMEDY):
            if missing := {label.chosen, label.rejected} - answers.keys():
                raise StorageError(f"{path} is damaged: {RESPONSES} has no response '{min(missing)}'; {REMEDY}")
            chosen, rejected = answers[label.chosen], answers[label.rejected]
            question = asked[chosen.question]
            source: dict[str, Any] = {
                "domain": domain.name,
                "judge": LabelledBy(config.judge).value,
                "topic": question.topic,
                "chosen": _origin(chosen),
                "rejected": _origin(rejected),
            }
            if label.flipped:
                source["flipped"] = True
            yield Preference(label.user, question.text, chosen.text, rejected.text, question.id, source)


@dataclass(frozen=True)
class _Label:
    user: str
    chosen: str
    rejected: str
    flipped: bool = False


def _add(record: Mapping[str, Any], counts: LabelCounts) -> None:
    counts.per_user.update(record["per_user"])
    order = counts.order
    order.agreed += record["agreed"]
    order.disagreed += record["disagreed"]
    order.first += record["first"]
    order.undecided += Counter(record["undecided"])


def _origin(response: Response) -> dict[str, Any]:
    return {"response": response.id, "steered": response.steered, "model": response.model, **response.made}
