"""Preferences that the methods can't read whole: none of them is measured on these, so that all have the same items."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import Trial, build_trials, short_users
from fspo.methods.table import METHODS, MethodContext
from fspo.modeling.fitting import AROUND_DESCRIPTION, LongRows, Room, fitted
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import short_users_said
from fspo.preferences.types import Episode, Preference

__all__ = ["Measurable", "fitting_trials", "measurable", "rooms_of"]


def rooms_of(
    config: EvaluationConfig, methods: Iterable[str], renderer: Callable[[MethodContext, str], EpisodeRenderer]
) -> list[Room]:
    """What scores and answers of the methods, and the base model's answers, need room for; empty without any.

    `renderer` gives what renders a context for a method, or for the base model if its name is empty.
    """
    answer = config.max_new_tokens if config.answers or config.conversations else 0
    drafted = config.description_tokens + AROUND_DESCRIPTION
    # What a reward is measured against is shown no more than the method itself.
    found = [Room(renderer(METHODS[name].shown, name), answer, drafted * METHODS[name].writes) for name in methods]
    found += [Room(renderer("none", ""), answer)] if answer else []
    return list({(id(room.renderer), room.drafted): room for room in found}.values())


@dataclass(frozen=True)
class Measurable:
    """What is measured: every method can read it."""

    dataset: PreferenceDataset
    """The test part without preferences that are too long."""
    trials: list[Trial]
    too_long: int
    """How many preferences were left out; of given trials, how many queries."""


def measurable(
    config: EvaluationConfig,
    dataset: PreferenceDataset,
    methods: Collection[str],
    renderer: Callable[[MethodContext, str], EpisodeRenderer],
    *,
    trials: Sequence[Trial] | None = None,
    row_number: Callable[[Preference], int] | None = None,
    say: Callable[[str], object],
) -> Measurable:
    """The trials and the rest of the test part that every method can read; what is left out is said.

    `trials` are by default drawn from the dataset as `config` says; `row_number` gives the row of a preference in its
    file.

    Raises:
        DataError: preferences are too long and refused, or a user has too few that are not.
    """
    rooms = rooms_of(config, methods, renderer)
    setting = "evaluation.long_rows"
    if trials is not None:
        found, too_long = fitting_trials(trials, rooms, config.long_rows)
        if too_long:
            say(f"Left out: {too_long} queries that some method can't read whole.")
        # The trials are checked; of the rest no row stops an evaluation that does not measure it.
        return Measurable(fitted(dataset, rooms, "leave-out", setting=setting).dataset, found, too_long)
    read = fitted(dataset, rooms, config.long_rows, setting=setting, file="The test part", number=row_number)
    with read.explaining("the test part"):
        drawn = build_trials(read.dataset, config)
    for line in (*read.said("the test part"), *short_users_said(short_users(read.dataset, config), "the test part")):
        say(line)
    found, _ = fitting_trials(drawn, rooms, "leave-out")
    return Measurable(read.dataset, found, len(read.left_out))


def fitting_trials(trials: Sequence[Trial], rooms: Sequence[Room], long: LongRows) -> tuple[list[Trial], int]:
    """The trials without queries that have no room, and how many these are; a trial without any other is left out.

    Another user's description may be longer: where that one leaves a query no room, the trial has no swap.

    Raises:
        DataError: there are such queries, and they are refused; or no query has room.
    """
    kept: list[Trial] = []
    left_out = 0
    for trial in trials:
        queries = tuple(query for query in trial.own.queries if _fits(trial.own, (query,), rooms))
        left_out += len(trial.own.queries) - len(queries)
        if left_out and (long == "refuse" or (trial is trials[-1] and not kept and not queries)):
            first = next(query for query in trial.own.queries if query not in queries)
            raise DataError(
                f"The query {first.prompt[:60]!r} of user '{trial.user}' and its longer response are too long for some "
                "method. Raise evaluation.max_length, or set evaluation.long_rows to leave-out where others are left."
            )
        if not queries:
            continue
        own, swapped = replace(trial.own, queries=queries), trial.swapped and replace(trial.swapped, queries=queries)
        if swapped is not None and not _fits(swapped, queries, rooms):
            kept.append(Trial(trial.id, own))
        else:
            kept.append(replace(trial, own=own, swapped=swapped))
    return kept, left_out


def _fits(episode: Episode, queries: Iterable[Preference], rooms: Sequence[Room]) -> bool:
    return all(room.fits(query, episode.description) for query in queries for room in rooms)
