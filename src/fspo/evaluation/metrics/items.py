"""What every method made of every item, and what the items are: kept so that runs can be compared item by item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fspo.evaluation.artifacts import AGAIN, ItemRecord
from fspo.evaluation.metrics.table import Table
from fspo.evaluation.scoring.eval_episodes import Item, Trial, texts_of
from fspo.identity import digest
from fspo.preferences.types import User
from fspo.records import read_records

__all__ = ["ITEMS_FILE", "Items", "item_records", "item_values"]

ITEMS_FILE = "items.jsonl"

_KEPT = ("label_flip_rate", "user_swap_drop", "regret")
_FAMILIES = ("reward_accuracy/", "win_rate/", "win_rate_by/", "answer_utility/")
"""Measures that are kept by item: these alone, and all variants of these."""

_DIGITS = 6


def item_records(
    trials: Sequence[Trial],
    users: Mapping[str, User],
    tables: Mapping[str, Table],
    base_answers: Mapping[str, str],
) -> list[ItemRecord]:
    """Every item: its texts, digests of what else its values depend on, and all methods' values.

    `tables` are by method, and `base_answers` are item -> what methods' answers were judged against.
    """
    records = []
    for trial in trials:
        user, swapped = users[trial.user], trial.swapped
        digests = {
            "shots": digest(texts_of(trial.own.shots)),
            "traits": digest(sorted(user.traits.items())),
            "description": digest([trial.own.description, user.description]),
            "donor": digest([texts_of(swapped.shots), swapped.description]) if swapped is not None else "",
        }
        for number, query in enumerate(trial.own.queries):
            item = (trial.user, trial.item(number))
            found = {name: item_values(table, item) for name, table in tables.items()}
            record = ItemRecord(
                item=item[1],
                user=trial.user,
                prompt=query.prompt,
                chosen=query.chosen,
                rejected=query.rejected,
                **digests,
                base_answer=digest(base_answers[item[1]]) if item[1] in base_answers else "",
                values={name: row for name, row in found.items() if row},
            )
            records.append(record)
    return records


@dataclass(frozen=True)
class Items:
    """The items of one evaluation, in order."""

    records: tuple[ItemRecord, ...]

    @classmethod
    def read(cls, folder: Path) -> Items:
        """From the folder of an evaluation; without any items where there is no such file.

        Raises:
            StorageError: the file is damaged, or of another version.
        """
        return cls(tuple(read_records(folder / ITEMS_FILE, ItemRecord, AGAIN)))

    @property
    def shared_prompts(self) -> int:
        """How many prompts several users were asked."""
        users: dict[str, set[str]] = defaultdict(set)
        for record in self.records:
            users[record.prompt].add(record.user)
        return sum(len(asked) > 1 for asked in users.values())

    @property
    def methods(self) -> list[str]:
        """All methods that have values, in the order of the table."""
        return list(dict.fromkeys(name for record in self.records for name in record.values))

    def values(self, method: str, measure: str) -> dict[Item, float]:
        """Item -> the method's value; items without one are left out."""
        return {
            (record.user, record.item): record.values[method][measure]
            for record in self.records
            if measure in record.values.get(method, {})
        }

    def measures(self, method: str) -> list[str]:
        """What there is of a method."""
        return list(dict.fromkeys(m for record in self.records for m in record.values.get(method, {})))


def item_values(table: Table, item: Item) -> dict[str, float]:
    """Measure -> the value of one item, of the measures that are kept by item."""
    kept = {m: column.of for m, column in table.items() if m in _KEPT or m.startswith(_FAMILIES)}
    return {measure: round(values[item], _DIGITS) for measure, values in kept.items() if item in values}
