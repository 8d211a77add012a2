"""What all rounds of one training share: its start and data, and how a model writes and scores in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fspo.errors import ConfigError
from fspo.methods.method import Job
from fspo.methods.round_settings import RoundSettings
from fspo.modeling.answering import Prompt, Reply, answer
from fspo.modeling.fitting import Fitted, Room, fitted
from fspo.modeling.generation import Sampling
from fspo.modeling.loading import context_length, fast_dtype, load_model, load_tokenizer
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.policies import is_policy, load_policy
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import REMEMBERED_TEXTS, EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Episode
from fspo.records import KeyedLog
from fspo.training.long_rows import max_length_of
from fspo.training.processes import by_first
from fspo.training.start import Start

__all__ = ["ROUNDS_FOLDER", "RoundSetup"]

ROUNDS_FOLDER = "rounds"


@dataclass(frozen=True)
class RoundSetup:
    """What all rounds of one training share."""

    job: Job

    @property
    def config(self) -> RoundSettings:
        """The settings.

        Raises:
            ConfigError: they are of no training in rounds.
        """
        if not isinstance(self.job.config, RoundSettings):
            raise ConfigError(f"'{self.job.method.name}' trains in rounds and needs the settings of rounds.")
        return self.job.config

    @cached_property
    def start(self) -> Start:
        """What the first round starts from."""
        return Start(self.job.model, self.job.out)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which weights come out, ready for JSON."""
        validation = self.job.validation
        return {
            "config": self.config.identity(),
            "dataset": self.job.dataset.fingerprint,
            **self.start.identity(),
            "context": self.job.method.context,
            **({"validation": validation.fingerprint} if validation is not None else {}),
        }

    @cached_property
    def renderer(self) -> EpisodeRenderer:
        """Renders with the method's context."""
        limit = max_length_of(self.config, context_length(self.job.model))
        tokenizer = load_tokenizer(self.job.model)
        return EpisodeRenderer(
            tokenizer,
            context=self.job.method.context,
            max_length=limit,
            layout=self.config.layout,
            remembered=REMEMBERED_TEXTS,
        )

    @cached_property
    def read(self) -> Fitted:
        """The training part, and what of it the model can't read whole or has no room to answer."""
        shown = [self.renderer, *([self.renderer.with_context("both")] if self.config.shows_descriptions else [])]
        rooms = [Room(renderer, answer=self.config.room) for renderer in shown]
        part, number = "The training part", self.job.row_number
        return fitted(self.job.dataset, rooms, self.config.long_rows, setting="long_rows", file=part, number=number)

    def sampler(
        self, dataset: PreferenceDataset, seed: int, queries: int, *, shots: int | None = None, skip: bool = False
    ) -> EpisodeSampler:
        """Draws episodes, by default with as many shots as the method shows."""
        if shots is None:
            shots = self.config.shots if self.job.method.context == "shots" else 0
        skip = skip or self.config.skip_short_users
        return EpisodeSampler(dataset, shots=shots, queries=queries, seed=seed, skip_short_users=skip)

    def written(
        self,
        prompts: Mapping[str, Prompt],
        path: Path,
        model: str | Path,
        renderer: EpisodeRenderer,
        title: str,
        max_new_tokens: int | None = None,
    ) -> dict[str, Reply]:
        """The replies of a model by the keys of the prompts; the first process writes them, and all get them.

        Raises:
            DataError: a prompt is too long.
            ModelError: the model can't be had.
        """
        longest = max_new_tokens or self.config.max_new_tokens
        sampling = Sampling(longest, self.config.temperature, self.config.top_p)
        loaded: list[Any] = []

        def write(some: Sequence[Prompt]) -> list[Reply]:
            if not loaded:
                loaded.append(_load(model, self.config.dtype))
            return answer(loaded[0], renderer, some, sampling, batch_size=self.config.answer_batch)

        def complete() -> list[Reply]:
            batch, progress = self.config.answer_batch, self.job.progress
            return KeyedLog(path, Reply).complete(prompts, write, batch=batch, title=title, progress=progress)

        return dict(zip(prompts, by_first(complete), strict=True))

    def scored(self, episodes: Mapping[str, Episode], path: Path, model: str | Path, title: str) -> list[list[float]]:
        """The margins of each episode's queries under a model, by the keys of the episodes."""
        loaded: list[Any] = []

        def score(some: Sequence[Episode]) -> list[_Margins]:
            if not loaded:
                loaded.append(_load(model, self.config.dtype))
            with torch.no_grad():
                (found,) = branch_logprobs(loaded[0], [self.renderer.render(some[0])])
            logps = found.reduced(self.config.reduction)
            return [_Margins((logps[:, 0] - logps[:, 1]).tolist())]

        def complete() -> list[_Margins]:
            return KeyedLog(path, _Margins).complete(episodes, score, title=title, progress=self.job.progress)

        return [row.margins for row in by_first(complete)]


@dataclass(frozen=True)
class _Margins:
    """The margins of an episode's queries."""

    margins: list[float]


def _load(model: str | Path, dtype: str) -> Any:
    """A model or a policy, ready to answer."""
    dtype = fast_dtype() if dtype == "auto" else dtype
    loaded = load_policy(Path(model), dtype=dtype) if is_policy(model) else load_model(model, dtype=dtype)
    prepare_model(loaded)
    return loaded.eval()
