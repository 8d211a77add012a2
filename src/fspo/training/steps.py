"""From a step's number to the token ids it trains on: a pure function of dataset, settings and seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch.utils.data import Dataset

from fspo.errors import DataError
from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import ShortUser
from fspo.preferences.types import Episode, Preference
from fspo.training.companion import Companion
from fspo.training.config import TrainingConfig

__all__ = [
    "Drafts",
    "EpisodeStream",
    "Episodes",
    "GivenEpisodes",
    "Margins",
    "Observer",
    "Share",
    "StepBatch",
    "StepCollator",
    "Unit",
    "balanced",
    "known_responses",
    "shares",
    "split_passes",
]


class Episodes(Protocol):
    """Episodes by their numbers (`fspo.preferences.sampling.EpisodeSampler`)."""

    @property
    def seed(self) -> int:
        """Of the order in which fixed episodes are shown."""

    @property
    def skipped(self) -> tuple[ShortUser, ...]:
        """Users who are left out because they have too few preferences."""

    def episode(self, i: int) -> Episode:
        """The i-th episode, from 0."""


@dataclass(frozen=True)
class GivenEpisodes:
    """Episodes that are given one by one."""

    episodes: Sequence[Episode]
    seed: int
    skipped: tuple[ShortUser, ...] = ()

    def episode(self, i: int) -> Episode:
        """The i-th episode, from 0."""
        return self.episodes[i]


class EpisodeStream(Dataset[tuple[int, Episode]]):
    """The episodes of a whole training, numbered; any of them can be had at any time."""

    def __init__(self, sampler: Episodes, length: int, *, fixed: int | None = None) -> None:
        """Show the first `length` episodes of `sampler`; or the first `fixed` ones in rounds, each shuffled again."""
        self._sampler, self._length, self._fixed = sampler, length, fixed
        self._lap: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Episodes in the whole training, repeated ones counted again."""
        return self._length

    def __getitem__(self, index: int) -> tuple[int, Episode]:
        """The episode's number and the episode."""
        number = index if self._fixed is None else self._order(index // self._fixed)[index % self._fixed]
        return number, self._sampler.episode(number)

    def _order(self, lap: int) -> list[int]:
        if self._lap[0] != lap:
            rng = random.Random(f"{self._sampler.seed} lap {lap}")
            self._lap = lap, sorted(range(self._fixed or 0), key=lambda _: rng.random())
        return self._lap[1]


class Observer(Protocol):
    """Knows what the shots of an episode say about its queries (`fspo.judging.observer.Observer`)."""

    @property
    def identity(self) -> str:
        """The same for observers that say the same."""

    def log_odds(self, episode: Episode, k: int, responses: Sequence[Sequence[str]] = ()) -> Sequence[Sequence[float]]:
        """For each query, and each two of its responses, the log-odds of the first after `k` shots, in nats."""


@dataclass(frozen=True)
class Margins:
    """What the reference says of a unit's pairs: the chosen response's log-probability above the other's, reduced."""

    plain: tuple[float, ...]
    mirrored: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Unit:
    """One episode and what must be scored in the same pass: its mirror, and both as the reference sees them."""

    index: int
    user: str
    plain: TokenizedEpisode
    mirrored: TokenizedEpisode | None = None
    """The same queries, chosen first, under shots with swapped labels."""
    reference: TokenizedEpisode | None = None
    """Each query once, without shots: what the reference scores where it doesn't see `plain` and `mirrored`."""

    episode: Episode | None = None
    """What it was rendered from, where a description is still to be drafted."""
    described: TokenizedEpisode | None = None
    """The user's description as a response to the shots: gold alone, or a closer and a farther draft."""
    margins: Margins | None = None
    """What the reference says of the pairs, where it was asked before training."""
    targets: tuple[tuple[float, ...], ...] | None = None
    """For each branch, the observer's log-odds of every two of its responses after the shots it is attached to."""
    noise: tuple[float, ...] | None = None
    """For each branch, how probably its label is wrong, where a label of the unit says so; 0: not known."""
    weight: float = 1.0
    """How much its pairs count."""

    @property
    def policy(self) -> tuple[TokenizedEpisode, ...]:
        """What the policy scores."""
        return (self.plain,) if self.mirrored is None else (self.plain, self.mirrored)

    @property
    def tokens(self) -> int:
        """Tokens that go through the policy."""
        return sum(episode.tokens for episode in self.policy) + (self.described.tokens if self.described else 0)

    @property
    def pairs(self) -> int:
        """Queries with their attachments: how many pairs the loss is a mean of."""
        return len(self.plain.branches)


@dataclass(frozen=True)
class Drafts:
    """A model's own descriptions of a user in one episode."""

    closer: str
    """Closest in meaning to the user's own description."""
    farther: str
    plain: str
    """Shown beside the shots."""
    mirrored: str
    """Written for, and shown beside, the mirrored shots."""


@dataclass(frozen=True)
class StepBatch:
    """The units of one optimiser step, grouped into passes."""

    passes: tuple[tuple[Unit, ...], ...]

    @property
    def units(self) -> Iterator[Unit]:
        """All units in order."""
        return (unit for group in self.passes for unit in group)

    @property
    def pairs(self) -> float:
        """Pairs of the whole step, each as much as it counts."""
        return sum(unit.pairs * unit.weight for unit in self.units)

    @property
    def descriptions(self) -> int:
        """Descriptions of the whole step."""
        return sum(unit.described is not None for unit in self.units)

    @property
    def tokens(self) -> int:
        """Tokens of the whole step that go through the policy."""
        return sum(unit.tokens for unit in self.units)


@dataclass(frozen=True)
class Share:
    """One process's part of a step: passes, of which all processes have equally many."""

    passes: tuple[tuple[Unit, ...], ...]
    counted: int
    """How many of the passes, from the first, count; those after them only keep the other processes company."""


@dataclass(frozen=True)
class StepCollator:
    """Turns the episodes of a step into units and passes.

    With `both_sides` every response is rendered, as measuring needs; else Pref-FT leaves out what it doesn't train on.
    """

    renderer: EpisodeRenderer
    config: TrainingConfig
    both_sides: bool = False
    margins: Mapping[int, Margins] = field(default_factory=dict)
    """The reference's margins of episodes that were scored before training, by their numbers."""
    observer: Observer | None = None
    """Says which effects are aimed at, where the objective follows it."""
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """All responses to each prompt, for trainings that score more than the labelled two."""
    companion: Companion | None = None
    """Says what is scored of an episode, where weights of a method's own are trained too."""

    def __call__(self, episodes: Iterable[tuple[int, Episode]]) -> dict[str, Any]:
        """Render numbered episodes; the batch is a mapping because transformers expects one."""
        units = [unit for index, episode in episodes for unit in self.units(index, episode)]
        return {"step": StepBatch(split_passes(units, self.config.row_tokens))}

    def units(self, index: int, episode: Episode) -> Sequence[Unit]:
        """What is scored of one episode: a unit, or what a companion makes of it."""
        if self.companion is None:
            return [self.unit(index, episode)]
        return self.companion.units(replace(self, companion=None), index, episode)

    def unit(self, index: int, episode: Episode, drafts: Drafts | None = None) -> Unit:
        """Render one episode, its mirror if the settings ask for it, and the reference's view of it.

        `drafts` are the model's own descriptions, which stand in the place of the user's.
        """
        config = self.config
        waiting = config.describe == "own" and drafts is None
        shown = episode if drafts is None else replace(episode, description=drafts.plain)
        responses = self._responses(index, episode)
        plain: TokenizedEpisode
        mirrored: TokenizedEpisode | None = None
        if config.mirrors:
            plain, mirrored = self.renderer.render_twins(
                shown, drafts.mirrored if drafts else None, shots=config.ladder, responses=responses
            )
        else:
            plain = self.renderer.render(shown, shots=config.ladder, responses=responses)
        if config.ladder is not None and config.rungs_per_query == "one":
            rungs = self._rungs(index, plain)
            plain, mirrored = _keep(plain, rungs), mirrored and _keep(mirrored, rungs)
        reference = None
        if config.needs_reference and config.reference == "none":
            reference = self.renderer.render(replace(episode.first_shots(0), description=""), responses=responses)
        if config.objective == "pref-ft" and not self.both_sides:
            plain, mirrored = _one_side(plain, 0), mirrored and _one_side(mirrored, 1)
        described, known = self._described(episode, drafts), self.margins[index] if self.margins else None
        targets = self._targets(episode, plain, responses) if config.follows_observer else None
        waits = episode if waiting else None
        own = tuple(episode.queries[branch.query].label_noise for branch in plain.branches)
        noise = own if any(own) else None
        return Unit(index, episode.user, plain, mirrored, reference, waits, described, known, targets, noise)

    def _responses(self, index: int, episode: Episode) -> list[tuple[str, ...]]:
        """For each query its labelled responses, and others to the same prompt drawn at random."""
        rng = random.Random(f"{self.config.seed} responses {index}")
        return [(query.chosen, query.rejected, *self._others(query, rng)) for query in episode.queries]

    def _others(self, query: Preference, rng: random.Random) -> list[str]:
        if self.config.responses == 2:
            return []
        others = [text for text in self.known[query.prompt] if text not in (query.chosen, query.rejected)]
        drawn = sorted(others, key=lambda _: rng.random())[: self.config.responses - 2]
        # Queries of a step have equally many. Two equal responses have an effect of 0, which is also their target.
        return drawn + [query.chosen] * (self.config.responses - 2 - len(drawn))

    def _targets(
        self, episode: Episode, rendered: TokenizedEpisode, responses: Sequence[Sequence[str]]
    ) -> tuple[tuple[float, ...], ...]:
        """The observer sees the shots that the model sees: an episode that is too long lost its oldest ones."""
        if self.observer is None:
            raise ValueError("The objective follows an observer, and there is none.")
        shown = episode.with_shots(episode.shots[rendered.dropped_shots :])
        counts = {branch.shots for branch in rendered.branches}
        odds = {count: self.observer.log_odds(shown, count, responses) for count in counts}
        return tuple(tuple(odds[branch.shots][branch.query]) for branch in rendered.branches)

    def _described(self, episode: Episode, drafts: Drafts | None) -> TokenizedEpisode | None:
        if self.config.describe == "gold" and episode.description:
            whole = self.renderer.render_descriptions(episode.user, episode.shots, episode.description, "")
            return _one_side(whole, 0)
        if drafts is None or drafts.closer == drafts.farther:
            return None
        return self.renderer.render_descriptions(episode.user, episode.shots, drafts.closer, drafts.farther)

    def _rungs(self, index: int, episode: TokenizedEpisode) -> list[int]:
        """For each query one of its attachments, as places among the branches."""
        places: dict[int, list[int]] = {}
        for place, branch in enumerate(episode.branches):
            places.setdefault(branch.query, []).append(place)
        rng = random.Random(f"{self.config.seed} rungs {index}")
        return [own[int(rng.random() * len(own))] for own in places.values()]


def known_responses(dataset: PreferenceDataset, config: TrainingConfig) -> dict[str, list[str]]:
    """All responses to each prompt of `dataset`, in order; none where a training scores the labelled two alone.

    Raises:
        DataError: no prompt has as many as the settings ask for.
    """
    if config.responses == 2:
        return {}
    found: dict[str, set[str]] = {}
    for preference in dataset:
        found.setdefault(preference.prompt, set()).update((preference.chosen, preference.rejected))
    most = max(map(len, found.values()), default=0)
    if most < config.responses:
        raise DataError(
            f"training.responses is {config.responses}, but no prompt of the training part has more than {most} "
            f"responses; set {most} or fewer."
        )
    return {prompt: sorted(texts) for prompt, texts in found.items()}


def split_passes(units: Sequence[Unit], row_tokens: int) -> tuple[tuple[Unit, ...], ...]:
    """Group units, in order, so that no group but those of a single unit has more than `row_tokens` tokens."""
    groups: list[list[Unit]] = []
    room = 0
    for unit in units:
        if not groups or unit.tokens > room:
            groups.append([])
            room = row_tokens
        groups[-1].append(unit)
        room -= unit.tokens
    return tuple(tuple(group) for group in groups)


def balanced(units: Sequence[Unit], processes: int) -> tuple[tuple[Unit, ...], ...]:
    """Units dealt out so that all processes have about equally many tokens, each share in the order of the step.

    The longest unit goes first, and always to the process with the fewest tokens yet; so none has more than a unit
    above the least, and none is without a unit where there are enough.
    """
    loads = [0] * processes
    places: list[list[int]] = [[] for _ in range(processes)]
    for place in sorted(range(len(units)), key=lambda place: -units[place].tokens):
        least = min(range(processes), key=lambda process: (loads[process], len(places[process])))
        places[least].append(place)
        loads[least] += units[place].tokens
    return tuple(tuple(units[place] for place in sorted(own)) for own in places)


def shares(units: Sequence[Unit], processes: int, row_tokens: int) -> tuple[Share, ...]:
    """Every process's share of `units`, at least as many units as processes.

    Processes with fewer passes than others repeat their smallest unit without counting it: sharded weights are gathered
    in every pass by all processes together.
    """
    own = [split_passes(part, row_tokens) for part in balanced(units, processes)]
    rounds = max(map(len, own))
    smallest = [min((unit for group in passes for unit in group), key=lambda unit: unit.tokens) for passes in own]
    return tuple(
        Share((*passes, *[(unit,)] * (rounds - len(passes))), len(passes))
        for passes, unit in zip(own, smallest, strict=True)
    )


def _keep(episode: TokenizedEpisode, places: Sequence[int]) -> TokenizedEpisode:
    return replace(episode, branches=tuple(episode.branches[place] for place in places))


def _one_side(episode: TokenizedEpisode, side: int) -> TokenizedEpisode:
    branches = tuple(replace(branch, responses=(branch.responses[side],)) for branch in episode.branches)
    return replace(episode, branches=branches)
