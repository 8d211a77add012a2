"""One round of a training in rounds, as a method works with it, and the pairs that the method makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fspo.identity import seed_by
from fspo.methods.method import Job
from fspo.methods.round_setup import RoundSetup
from fspo.modeling.answering import Prompt, Reply
from fspo.modeling.rendering import Context, EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler, short_users_said
from fspo.preferences.types import Episode
from fspo.training.processes import by_first
from fspo.training.train import train_policy

__all__ = ["Pairs", "Round"]

T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """The preferences of a round, and what could not be used."""

    episodes: tuple[Episode, ...]
    """The round's episodes; each query compares two responses."""
    same: int = 0
    """Pairs of equal responses, which teach nothing."""
    empty: int = 0
    """Pairs with an empty response."""

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> Pairs:
        """The pairs that can be trained on; episodes without any are left out."""
        kept, same, empty = [], 0, 0
        for episode in episodes:
            texts = [(query.chosen.strip(), query.rejected.strip()) for query in episode.queries]
            empty += sum(not (chosen and rejected) for chosen, rejected in texts)
            same += sum(bool(chosen) and chosen == rejected for chosen, rejected in texts)
            usable = [a != b and bool(a) and bool(b) for a, b in texts]
            queries = tuple(query for query, use in zip(episode.queries, usable, strict=True) if use)
            kept += [replace(episode, queries=queries)] if queries else []
        return cls(tuple(kept), same, empty)

    @property
    def count(self) -> int:
        """How many pairs can be trained on."""
        return sum(len(episode.queries) for episode in self.episodes)


@dataclass(frozen=True)
class Round:
    """One round: which policy answers, and where the answers go."""

    number: int
    """From 1."""
    chain: tuple[str | Path, ...]
    """The start of the whole training, and the policies of all rounds before, as names or folders."""
    folder: Path
    """Of this round."""
    job: Job
    setup: RoundSetup

    @property
    def policy(self) -> str | Path:
        """What the round starts from, and what answers in it."""
        return self.chain[-1]

    @property
    def config(self) -> Any:
        """The settings: an instance of the method's `settings`."""
        return self.job.config

    @property
    def renderer(self) -> EpisodeRenderer:
        """Renders with the method's context."""
        return self.setup.renderer

    @property
    def dataset(self) -> PreferenceDataset:
        """The training part, without what the model can't read whole."""
        return self.setup.read.dataset

    def seed(self, *parts: Any) -> int:
        """A seed for something in this round."""
        return seed_by("rounds", self.config.seed, "round", self.number, *parts)

    def sampler(
        self, dataset: PreferenceDataset | None = None, *, shots: int | None = None, skip: bool = False
    ) -> EpisodeSampler:
        """Draws the round's episodes, as `draw` does; the first round says which users are left out."""
        dataset, seed = dataset or self.dataset, self.seed("episodes")
        found = self.setup.sampler(dataset, seed, self.config.queries, shots=shots, skip=skip)
        for line in short_users_said(found.skipped, "the training part") if self.number == 1 else ():
            self.job.progress.say(line)
        return found

    def draw(
        self, dataset: PreferenceDataset | None = None, *, shots: int | None = None, skip: bool = False
    ) -> list[Episode]:
        """The round's episodes: as many as its steps show, or `episodes` of them; every round draws its own.

        `shots` are by default those that the method shows; `skip` leaves out users with too few preferences.
        """
        config, sampler = self.config, self.sampler(dataset, shots=shots, skip=skip)
        return [sampler.episode(n) for n in range(config.episodes or config.steps * config.users_per_step)]

    def answers(
        self,
        prompts: Mapping[str, Prompt],
        *,
        name: str = "answers",
        model: str | Path | None = None,
        context: Context | None = None,
        max_new_tokens: int | None = None,
    ) -> dict[str, Reply]:
        """The reply to each prompt, by its key, which also says which draw it is; the file `name` has them.

        The model, what it sees of the user, and the longest answer are those of the round unless others are given.
        """
        renderer = self.renderer if context is None else self.renderer.with_context(context)
        seeded = {key: replace(prompt, seed=self.seed(name, key)) for key, prompt in prompts.items()}
        title = f"Round {self.number} of {self.config.rounds}, {name}"
        path = self.folder / f"{name}.jsonl"
        title = f"{self.job.method.name}: {title}"
        return self.setup.written(seeded, path, model or self.policy, renderer, title, max_new_tokens)

    def once(self, compute: Callable[[], T]) -> T:
        """What the first process computes, at all of them; its error too."""
        return by_first(compute)

    def train(self, name: str, episodes: Sequence[Episode], steps: int, *, context: Context | None = None) -> Path:
        """Fine-tune the round's policy on the chosen responses of other episodes: a tool of the round, named `name`."""
        return self._tool(self.folder / name, self.policy, self.seed(name), episodes, steps, context)

    def train_once(self, name: str, episodes: Sequence[Episode], steps: int, *, context: Context | None = None) -> Path:
        """The same from the start, once for all rounds."""
        seed = seed_by("rounds", self.config.seed, name)
        return self._tool(self.folder.parent / "0" / name, self.chain[0], seed, episodes, steps, context)

    def _tool(
        self,
        folder: Path,
        model: str | Path,
        seed: int,
        episodes: Sequence[Episode],
        steps: int,
        context: Context | None,
    ) -> Path:
        return train_policy(
            self.config.of_fine_tuning(len(episodes), steps, seed=seed),
            self.dataset,
            model=model,
            out=folder,
            context=context or self.job.method.context,
            progress=self.job.progress,
            method=f"{self.job.method.name} {folder.name}",
            callbacks=self.job.callbacks,
            episodes=episodes,
        )

    def own_answers(
        self, episodes: Sequence[Episode], count: int = 1, *, name: str = "answers"
    ) -> Iterator[tuple[Episode, list[list[Reply]]]]:
        """Each episode with `count` answers of the round's policy to each query, given the episode's shots."""
        prompts = {
            f"{place}.{number}.{draw}": Prompt(query.messages, episode.shots)
            for place, episode in enumerate(episodes)
            for number, query in enumerate(episode.queries)
            for draw in range(count)
        }
        found = iter(self.answers(prompts, name=name).values())
        for episode in episodes:
            yield episode, [[next(found) for _ in range(count)] for _ in episode.queries]

    def margins(self, episodes: Sequence[Episode], place: int) -> list[list[float]]:
        """Log pi(chosen) - log pi(rejected) of each query of each episode, under one policy of the chain.

        `place` is that of the policy; they are of sums over tokens or of means, as in training.
        """
        keyed = {str(number): episode for number, episode in enumerate(episodes)}
        title = f"{self.job.method.name}: Round {self.number} of {self.config.rounds}, scoring"
        path = self.folder / f"margins-{place % len(self.chain)}.jsonl"
        return self.setup.scored(keyed, path, self.chain[place], title)
