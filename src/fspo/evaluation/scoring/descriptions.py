"""Descriptions that a policy writes of the users it is evaluated on: once for each set of shots, and kept."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fspo.evaluation.scoring.eval_episodes import Trial, texts_of
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.identity import digest
from fspo.preferences.types import Preference
from fspo.progress import Progress
from fspo.records import KeyedLog

__all__ = ["Described", "Describer", "corrupt_text", "corrupt_trials", "describe_all", "description_cost"]

_TOGETHER = 16
"""Descriptions written at once; part of what decides their rounding."""


@dataclass(frozen=True)
class Described:
    """What was written for one set of shots, and what it took."""

    text: str
    tokens: int
    """Written."""
    read: int
    seconds: float
    """A share of the time that its batch took."""


@dataclass(frozen=True)
class Describer:
    """Finds the description that belongs to some shots."""

    key: str
    """Tells apart who wrote them, and how."""
    written: Mapping[str, Described]
    """By the digest of the shots."""
    corruption: float = 0.0
    """Share of the words that are replaced by those of other users' descriptions."""
    supply: tuple[tuple[Preference, ...], ...] = ()
    """The shots of every user, whose descriptions these words are taken from."""

    @classmethod
    def unwritten(cls, model: LoadableModel, tokens: int) -> Describer:
        """Of descriptions of at most so many tokens that these weights have not written yet."""
        return cls(f"{model.key}/{tokens}", {})

    def wanted(self, shots: Iterable[Sequence[Preference]]) -> dict[str, Sequence[Preference]]:
        """The key of each description in its log -> the shots that it is written from; equal sets once."""
        return {f"{self.key}/{_digest(own)}": own for own in shots if own}

    def __call__(self, shots: Sequence[Preference]) -> str:
        """The description; empty without shots."""
        text = self.of(shots).text
        if not self.corruption or not text:
            return text
        others = [self.written[_digest(other)].text for other in self.supply if other[0].user != shots[0].user]
        return corrupt_text(text, self.corruption, others, seed=f"{self.key}/{_digest(shots)}")

    def of(self, shots: Sequence[Preference]) -> Described:
        """The description as it was written, with its cost; nothing without shots."""
        return self.written[_digest(shots)] if shots else Described("", 0, 0, 0.0)

    def with_corruption(self, share: float, trials: Sequence[Trial]) -> Describer:
        """The same with `share` of each description's words replaced by those of the other users of `trials`."""
        supply = tuple(dict.fromkeys(trial.own.shots for trial in trials if trial.own.shots))
        return replace(self, key=f"{self.key}/corrupted-{share:g}", corruption=share, supply=supply)


def corrupt_text(text: str, share: float, others: Iterable[str], *, seed: str) -> str:
    """`text` with a share of its words, drawn at random, replaced by words drawn from `others`."""
    words = text.split()
    supply = sorted({word for other in others for word in other.split()})
    rng = random.Random(seed)
    if not supply:
        return text
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = rng.choice(supply)
    return " ".join(words)


def corrupt_trials(trials: Sequence[Trial], share: float) -> list[Trial]:
    """The trials with a share of each user's own description replaced by words of other users' descriptions."""

    def spoil(trial: Trial) -> Trial:
        others = [other.own.description for other in trials if other.user != trial.user]
        text = corrupt_text(trial.own.description, share, others, seed=f"{share}/{trial.id}")
        return replace(trial, own=replace(trial.own, description=text), swapped=None)

    return [spoil(trial) for trial in trials]


def description_cost(rows: Sequence[Described]) -> dict[str, float]:
    """Means over the users: tokens read and written, and seconds."""
    count = max(len(rows), 1)
    return {
        "users": len(rows),
        "tokens_read": sum(row.read for row in rows) / count,
        "tokens_written": sum(row.tokens for row in rows) / count,
        "seconds": sum(row.seconds for row in rows) / count,
    }


def describe_all(
    model: LoadableModel,
    shots: Iterable[Sequence[Preference]],
    *,
    max_new_tokens: int,
    path: Path,
    name: str = "",
    progress: Progress | None = None,
) -> Describer:
    """Let the weights describe the users who gave each set of shots, always with the most probable words.

    Equal sets are described once, empty ones never. `path` is `descriptions.jsonl`, where a killed run resumes.
    """
    describer = Describer.unwritten(model, max_new_tokens)
    log, wanted = KeyedLog(path, Described), describer.wanted(shots)

    def write(batch: Sequence[Sequence[Preference]]) -> list[Described]:
        return _write(model, batch, max_new_tokens)

    log.complete(wanted, write, batch=_TOGETHER, title=f"Describing, {name}", progress=progress)
    return replace(describer, written={_digest(own): log[key] for key, own in wanted.items()})


def _write(model: LoadableModel, batch: Sequence[Sequence[Preference]], max_new_tokens: int) -> list[Described]:
    from fspo.modeling.descriptions import write_descriptions

    writer = model.writer() if model.writer is not None else None
    started = time.monotonic()
    if writer is not None:
        rows = writer.write(batch, tokens=max_new_tokens)
    else:
        rows = write_descriptions(model.load(), model.renderer, batch, max_new_tokens=max_new_tokens)
    seconds = (time.monotonic() - started) / len(batch)
    return [Described(row.text, row.tokens, row.read, seconds) for row in rows]


def _digest(shots: Sequence[Preference]) -> str:
    return digest(texts_of(shots))
