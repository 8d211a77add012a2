"""Splits of a dataset, disjoint by user and by question: training sees no test user and no test question."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from fspo.errors import ConfigError, DataError
from fspo.files import read_json, write_json
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset, unknown
from fspo.preferences.sampling import connected
from fspo.preferences.types import Preference, Split
from fspo.preferences.wording import wording
from fspo.printing import counted, nearest, option

__all__ = ["DEFAULT_FRACTIONS", "SPLITS", "SplitDataset", "Splits", "held_out_shares", "make_splits"]

SPLITS: tuple[Split, ...] = get_args(Split)
DEFAULT_FRACTIONS: Mapping[Split, float] = MappingProxyType({"train": 0.8, "validation": 0.1, "test": 0.1})


@dataclass(frozen=True)
class Splits:
    """Which users and which questions belong to which split; a leak raises when it is made.

    Both are split -> ids.
    """

    users: Mapping[Split, frozenset[str]]
    questions: Mapping[Split, frozenset[str]]

    def __post_init__(self) -> None:
        """Freeze, fill in splits that were not named, and refuse a leak."""
        for name in ("users", "questions"):
            given: Mapping[Split, Iterable[str]] = getattr(self, name)
            _check_names(given)
            whole = {split: frozenset(given.get(split, ())) for split in SPLITS}
            object.__setattr__(self, name, MappingProxyType(whole))
        self.check_disjoint()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its contents (mapping proxies can't be)."""
        return Splits, (dict(self.users), dict(self.questions))

    def check_disjoint(self) -> None:
        """Check that no user and no question is in two splits.

        Raises:
            DataError: a leak, naming the user or question and both splits.
        """
        for kind, parts in (("User", self.users), ("Question", self.questions)):
            for one, other in combinations(SPLITS, 2):
                both = parts[one] & parts[other]
                if both:
                    more = f" ({len(both) - 1} more like it)" if len(both) > 1 else ""
                    raise DataError(f"{kind} '{min(both)}' is in both {one} and {other}, which is a leak{more}.")

    def part(self, dataset: PreferenceDataset, split: Split) -> PreferenceDataset:
        """The preferences of this split's users on this split's questions."""
        return self.cross(dataset, users=split, questions=split)

    def cross(self, dataset: PreferenceDataset, *, users: Split, questions: Split) -> PreferenceDataset:
        """The preferences of one split's users on another's questions, such as trained users on new questions.

        Users and questions that the dataset lacks, or that belong to no split, are left out.

        Raises:
            DataError: there is no such split.
        """
        _check_names((users, questions))
        return dataset.select(
            users=self.users[users].intersection(dataset.users),
            questions=self.questions[questions].intersection(dataset.questions()),
        )

    def save(self, path: str | Path) -> Path:
        """Write the splits as JSON: {"users": {split: [id, ...]}, "questions": {split: [id, ...]}}."""
        path = Path(path)
        write_json(
            path,
            {
                "users": {split: sorted(ids) for split, ids in self.users.items()},
                "questions": {split: sorted(ids) for split, ids in self.questions.items()},
            },
        )
        return path

    @classmethod
    def load(cls, path: str | Path) -> Splits:
        """Read splits.

        Raises:
            DataError: the file does not have the form that `save` writes, or holds a leak.
            StorageError: the file is missing or is not JSON.
        """
        path = Path(path)
        value = read_json(path)
        parts = {kind: _ids_by_split(path, value, kind) for kind in ("users", "questions")}
        return cls(parts["users"], parts["questions"])


@dataclass(frozen=True)
class SplitDataset:
    """A dataset in parts that share no user and no question."""

    whole: PreferenceDataset
    splits: Splits

    def __repr__(self) -> str:
        """The size of each part, not the contents."""
        return f"SplitDataset({', '.join(f'{split}={self.splits.part(self.whole, split)!r}' for split in SPLITS)})"

    @property
    def train(self) -> PreferenceDataset:
        """What to train on."""
        return self.splits.part(self.whole, "train")

    @property
    def validation(self) -> PreferenceDataset:
        """What to measure while training; may be empty."""
        return self.splits.part(self.whole, "validation")

    @property
    def test(self) -> PreferenceDataset:
        """What to evaluate on."""
        return self.splits.part(self.whole, "test")

    def save(self, folder: str | Path) -> Path:
        """Write the dataset, and `splits.json` beside it.

        Raises:
            StorageError: the disk is full or the folder can't be written.
        """
        self.splits.save(self.whole.save(folder) / "splits.json")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> SplitDataset:
        """Read a dataset with its splits.

        Raises:
            DataError: one of the two is missing or damaged.
            StorageError: a file can't be read.
        """
        folder = expanded(Path(folder))
        return cls(PreferenceDataset.load(folder), Splits.load(folder / "splits.json"))


def held_out_shares(test: float, validation: float) -> Mapping[Split, float]:
    """Split -> share, where so much is held out.

    Raises:
        ConfigError: nothing is left to train on.
    """
    if test + validation >= 1:
        raise ConfigError(f"Test ({test:g}) and validation ({validation:g}) leave nothing to train on; lower them.")
    return {"train": 1 - test - validation, "validation": validation, "test": test}


def make_splits(
    dataset: PreferenceDataset,
    *,
    seed: int,
    user_fractions: Mapping[Split, float] = DEFAULT_FRACTIONS,
    question_fractions: Mapping[Split, float] = DEFAULT_FRACTIONS,
    users: Mapping[Split, Iterable[str]] | None = None,
    questions: Mapping[Split, Iterable[str]] | None = None,
) -> Splits:
    """Divide users and questions at random, or as given.

    Questions that share a prompt, whatever its blanks, case and Unicode form, go to the same split. The result depends
    on the ids and the seed, not on the order of rows.

    Args:
        dataset: what to divide.
        seed: same seed, same splits.
        user_fractions: split -> share of the users; the shares are scaled to sum to one.
        question_fractions: split -> share of the questions.
        users: the users of each split, instead of by chance; has to name all of them.
        questions: the questions of each split, instead of by chance; has to name all of them.

    Raises:
        DataError: a share is impossible, there are fewer users or questions than splits, or an id is unknown, left out
            or in two splits.
    """
    chosen_users = (
        _told(users, dataset.users, "user")
        if users is not None
        else _draw([(id,) for id in dataset.users], user_fractions, f"{seed}/users", "users")
    )
    chosen_questions = (
        _told(questions, dataset.questions(), "question")
        if questions is not None
        else _draw(_linked_questions(dataset), question_fractions, f"{seed}/questions", "questions")
    )
    return Splits(chosen_users, chosen_questions)


def _told(parts: Mapping[Split, Iterable[str]], known: Iterable[str], kind: str) -> dict[Split, frozenset[str]]:
    known = set(known)
    _check_names(parts)
    result = {split: frozenset(ids) for split, ids in parts.items()}
    named = frozenset().union(*result.values())
    for id in sorted(named - known):
        raise unknown(kind, id, known)
    left = sorted(known - named)
    if left:
        raise DataError(
            f"The splits leave out {counted(len(left), f'{kind}s')}, such as '{left[0]}'; "
            f"name every {kind}, or select those you want first."
        )
    return result


def _draw(
    groups: list[tuple[str, ...]], fractions: Mapping[Split, float], seed: str, kind: str
) -> dict[Split, frozenset[str]]:
    counts = _apportion(len(groups), fractions, kind)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{min(group)}".encode()).digest())
    result: dict[Split, frozenset[str]] = {}
    start = 0
    for split, count in counts.items():
        result[split] = frozenset(id for group in order[start : start + count] for id in group)
        start += count
    return result


def _apportion(total: int, fractions: Mapping[Split, float], kind: str) -> dict[Split, int]:
    """Whole numbers nearest to the fractions (largest remainder), at least one wherever the fraction is above zero."""
    _check_names(fractions)
    for split, fraction in fractions.items():
        if not (math.isfinite(fraction) and fraction >= 0):
            raise DataError(f"The share of {kind} for {split} must be zero or more, not {fraction}.")
    wanted = [(split, fractions[split]) for split in SPLITS if fractions.get(split, 0) > 0]
    if not wanted:
        raise DataError(f"The shares of {kind} must not all be zero.")
    if total < len(wanted):
        parts, least = ", ".join(split for split, _ in wanted), f"at least {len(wanted)} {kind}"
        fewer = ""
        if fractions.get("validation", 0) > 0 and total == len(wanted) - 1:
            fewer = f", or leave out the validation part ({option('validation', '0', python='validation=0')})"
        raise DataError(
            f"The dataset has {counted(total, kind)}, and the parts {parts} need at least one each. Collect "
            f"preferences {'of' if kind == 'users' else 'on'} {least}{fewer}."
        )
    whole = sum(fraction for _, fraction in wanted)
    exact = {split: total * fraction / whole for split, fraction in wanted}
    counts = {split: max(1, int(share)) for split, share in exact.items()}
    while sum(counts.values()) != total:
        step = 1 if sum(counts.values()) < total else -1
        able = [split for split in counts if step > 0 or counts[split] > 1]
        split = max(able, key=lambda split: step * (exact[split] - counts[split]))
        counts[split] += step
    return counts


def _linked_questions(dataset: PreferenceDataset) -> list[tuple[str, ...]]:
    """Questions in groups that share no prompt with one another."""

    def links(row: Preference) -> tuple[tuple[str, str], ...]:
        return ("question", row.question_id), ("prompt", wording(row.prompt))

    return [tuple({row.question_id for row in group}) for group in connected(dataset.preferences, links)]


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in SPLITS:
            close = nearest(name, SPLITS)
            hint = f"; did you mean '{close}'?" if close else f"; the splits are {', '.join(SPLITS)}."
            raise DataError(f"There is no split '{name}'{hint}")


def _ids_by_split(path: Path, value: object, kind: str) -> dict[Split, frozenset[str]]:
    """Split -> ids of the `kind` (`users` or `questions`), from the contents of a splits file."""
    parts = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(parts, dict) or not all(
        isinstance(ids, list) and all(isinstance(id, str) for id in ids) for ids in parts.values()
    ):
        raise DataError(f'{path} must hold "{kind}": {{"train": [ids], "validation": [ids], "test": [ids]}}.')
    return {split: frozenset(ids) for split, ids in parts.items()}
