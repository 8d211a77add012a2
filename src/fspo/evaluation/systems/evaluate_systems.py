"""The answers of systems, judged like those of a run's methods: the same comparisons, statistics, files and report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.evaluation.artifacts import (
    FORMAT,
    GAMES_FILE,
    Details,
    Estimates,
    ItemRecord,
    JudgesRecord,
    PerUser,
)
from fspo.evaluation.config import HEADLINE, EvaluationConfig, Sampling
from fspo.evaluation.judges.answer_quality import Closeness, Quality, measure_quality
from fspo.evaluation.judges.fluency import answer_log_probs
from fspo.evaluation.judges.judgement_store import check_identity, judge_identity
from fspo.evaluation.judges.pairwise_matches import all_games
from fspo.evaluation.judges.win_rates import Answer, AnswerKey
from fspo.evaluation.judging_stage import JudgingStage
from fspo.evaluation.metrics.answer_metrics import quality_metrics
from fspo.evaluation.metrics.items import ITEMS_FILE, item_values
from fspo.evaluation.metrics.records import counts, samples_of
from fspo.evaluation.metrics.table import Table, compare_tables, estimates, missing_interval_note, per_user
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.systems.answer_tables import SystemAnswers
from fspo.identity import digest
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import Judge, TextUtility
from fspo.judging.trait_readers import ReaderJudge
from fspo.preferences.types import User
from fspo.printing import option
from fspo.progress import Progress, Silent
from fspo.records import write_record, write_records

__all__ = ["Systems", "evaluate_systems"]

_SAMPLING: Sampling = "plain"
"""Nothing is known of how the answers were sampled; they stand where a run has plain ones."""


@dataclass(frozen=True)
class Systems:
    """What is compared with what: the answers of the baseline, and of the others to the same prompts."""

    given: SystemAnswers
    baseline: str
    users: Mapping[str, User]
    """By id, as the judges know them."""
    answers: Mapping[AnswerKey, list[Answer]] = field(init=False)
    """The baseline's too."""
    missing: Mapping[str, int] = field(init=False)
    """System -> prompts that it did not answer."""

    def __post_init__(self) -> None:
        """Match the answers.

        Raises:
            DataError: the baseline is no system, or shares no prompt with another one.
        """
        given = self.given.answers
        if self.baseline not in given:
            raise DataError(f"There is no answer of '{self.baseline}', the baseline; choose from {', '.join(given)}.")
        base, asked = given[self.baseline], self.given.asked
        found: dict[AnswerKey, list[Answer]] = {}
        for system, own in given.items():
            rows = [(user, prompt) for user, prompt in asked if (user, prompt) in own and (user, prompt) in base]
            if not rows:
                raise DataError(
                    f"'{system}' and the baseline '{self.baseline}' have no answer to the same prompt of the same "
                    f"user; check the prompts and the users of both, or name another system as {option('baseline')}."
                )
            found[system, _SAMPLING] = [
                Answer(system, _SAMPLING, _item(user, prompt), user, prompt, own[user, prompt]) for user, prompt in rows
            ]
        object.__setattr__(self, "answers", found)
        object.__setattr__(self, "missing", {name: len(asked) - len(own) for name, own in given.items()})

    @property
    def others(self) -> list[str]:
        """All systems but the baseline."""
        return [name for name in self.given.answers if name != self.baseline]

    @property
    def comparisons(self) -> int:
        """How many pairs of answers each judge compares, in both orders."""
        return sum(len(self.answers[name, _SAMPLING]) for name in self.others)

    def notes(self) -> list[str]:
        """Sentences on prompts that were left out."""
        total, found = len(self.given.asked), [*self.given.notes]
        for name, count in self.missing.items():
            if count:
                why = "no system is compared on these" if name == self.baseline else "these are left out of its results"
                found.append(f"'{name}' did not answer {count:,} of {total:,} prompts; {why}.")
        return found


def evaluate_systems(
    config: EvaluationConfig,
    systems: Systems,
    judges: Mapping[str, Judge],
    *,
    out: Path,
    results: Path,
    model: str | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> Estimates:
    """Judge the answers and write the files of an evaluation (docs/evaluation.md); gives system -> measure -> estimate.

    Called again with the same arguments it resumes where it stopped: a judgement is found again by the judge, the user,
    the prompt and both answers. The headline judge is the first of `judges`, and `judge` the one that labelled the
    data, if there are any. `results` gets `metrics.json` and `samples.jsonl`. Without a `model`, which measures how
    fluent the answers are, the floor of fluency is not applied.

    Raises:
        ConfigError: a judge has no identity.
        ModelError: a judge failed; what it judged before is stored.
        StorageError: a file is damaged or can't be written.
    """
    shown = progress or Silent()
    for member in judges.values():
        check_identity(member)
    for note in systems.notes():
        shown.say(note)
    answers, users, baseline = systems.answers, systems.users, systems.baseline
    qualities = _qualities(config, systems, model, out, shown)
    stage = JudgingStage(config, users, judges, out, shown, baseline=baseline)
    stage.judge(answers, qualities)
    tables: dict[str, Table] = {}
    others: dict[str, Any] = {}
    for key, rows in answers.items():
        quality = quality_metrics(rows, qualities[key], config.floors, _SAMPLING)
        quality.pop(f"unfinished/{_SAMPLING}")  # nothing is known of that
        own = key[0] == baseline
        tables[key[0]] = quality if own else stage.table(key, headline=True) | quality
        others[key[0]] = {} if own else stage.length_controlled(key, headline=True)
    found = {name: estimates(table) | others[name] for name, table in tables.items()}
    if not any("win_rate" in row for row in found.values()):
        shown.say("The judge of the win rate decided no comparison, so there is no win rate.")
    _write_items(systems, stage, tables, results)
    _write_details(config, systems, stage, model, judge)
    won = [entry for row in found.values() for entry in row.items() if entry[0].startswith("win_rate")]
    if note := missing_interval_note(won):  # the report says it of the other measures
        shown.say(note)
    write_record(results / "metrics.json", found, Estimates)
    return found


def _qualities(
    config: EvaluationConfig, systems: Systems, model: str | None, out: Path, progress: Progress
) -> dict[AnswerKey, dict[str, Quality]]:
    everything = [answer for rows in systems.answers.values() for answer in rows]
    fluencies = [math.nan] * len(everything)
    if model is not None:
        weights = Weights(model, {}, dtype=config.dtype, max_length=config.max_length, layout=config.layout)
        base = weights.loadable(None, "none")
        turns = systems.given.conversations
        fluencies = answer_log_probs(
            base, everything, conversations=turns, path=out / "fluency.jsonl", progress=progress
        )
    closeness, log_probs = Closeness({answer.prompt for answer in everything}), iter(fluencies)
    return {
        key: {row.item: measure_quality(row.prompt, row.text, next(log_probs), closeness) for row in rows}
        for key, rows in systems.answers.items()
    }


def _write_items(systems: Systems, stage: JudgingStage, tables: Mapping[str, Table], results: Path) -> None:
    """What was found item by item, user by user, and between systems."""
    out, users, baseline = stage.out, systems.users, systems.baseline
    lead = systems.others[0]
    judged = {name: table for name, table in tables.items() if name != baseline}
    samplings = dict.fromkeys(judged, _SAMPLING)
    write_record(out / "per_user.json", {name: per_user(table) for name, table in tables.items()}, PerUser)
    write_record(out / "comparisons.json", compare_tables(lead, judged, {"win_rate": samplings}), Estimates)
    write_records(results / "samples.jsonl", samples_of(users, systems.answers, stage.headline, {}, baseline))
    won = {name: table["win_rate"].of for name, table in judged.items() if "win_rate" in table}
    headline = stage.judges.get(HEADLINE)
    games = all_games(headline, users, systems.answers, stage.headline, samplings, won, baseline)
    write_records(out / GAMES_FILE, games)
    texts = {answer.item: answer.text for answer in systems.answers[baseline, _SAMPLING]}
    write_records(out / ITEMS_FILE, _items(systems, tables, texts))


def _items(systems: Systems, tables: Mapping[str, Table], base: Mapping[str, str]) -> list[ItemRecord]:
    records = []
    for user, prompt in systems.given.asked:
        item, person = _item(user, prompt), systems.users[user]
        if item not in base:
            continue
        values = {name: item_values(table, (user, item)) for name, table in tables.items()}
        record = ItemRecord(
            item=item,
            user=user,
            prompt=prompt,
            chosen="",
            rejected="",
            shots="",
            traits=digest(sorted(person.traits.items())),
            description=digest(person.description),
            donor="",
            base_answer=digest(base[item]),
            values={name: row for name, row in values.items() if row},
        )
        records.append(record)
    return records


def _write_details(
    config: EvaluationConfig, systems: Systems, stage: JudgingStage, model: str | None, judge: Judge | None
) -> None:
    asked = systems.given.asked
    prompts = {prompt for _, prompt in asked}
    headline = stage.judges.get(HEADLINE)
    identities = {name: judge_identity(one, prompts) for name, one in stage.judges.items()}
    fields: dict[str, Any] = {
        "format": FORMAT,
        "model": model,
        "compared": systems.others[0],
        "baseline": systems.baseline,
        "given": True,
        "missing": dict(systems.missing),
        "anybody": systems.given.anybody,
        "users": len({user for user, _ in asked}),
        "questions": len(prompts),
        "floors": config.floors,
        "judge_kind": _kind(judge, headline),
        "judge": identities.get(HEADLINE),
        "judges": {name: one for name, one in identities.items() if name != HEADLINE},
        "samplings": dict.fromkeys(systems.others, _SAMPLING),
        "judgements": {f"{name}, {drawn}": counts(rows) for (name, drawn), rows in stage.headline.items()},
    }
    if isinstance(headline, ReaderJudge):
        people = [systems.users[user] for user in dict.fromkeys(user for user, _ in asked)]
        fields["readers"] = dict(headline.readings)
        fields["unjudged_users"] = sum(not headline.has_weights(user) for user in people)
    write_record(stage.out / "details.json", Details(**fields))
    write_record(stage.out / "judges.json", JudgesRecord(**dict(stage.record())))


def _kind(judge: Judge | None, headline: Judge | None) -> str:
    if isinstance(judge, DeclaredJudge):
        return "declared"
    return "attributes" if isinstance(headline, TextUtility) else "other"


def _item(user: str, prompt: str) -> str:
    """The id of a prompt of a user, the same in every table."""
    return f"{user}/{digest(prompt)}"
