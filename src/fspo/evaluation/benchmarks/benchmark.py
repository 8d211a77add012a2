"""What a benchmark is: where its data come from, who is shown what, and which measure its papers report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fspo.evaluation.benchmarks.config import BenchmarkConfig
from fspo.evaluation.config import EvaluationConfig
from fspo.preferences.published import Drawn

__all__ = ["Benchmark", "Protocol", "Rows"]

_CHANGEABLE = ("users", "shots", "queries", "episodes", "answers")


@dataclass(frozen=True)
class Rows:
    """Published rows: who has them, and how they are read."""

    kind: str
    """One of `fspo.preferences.published.PUBLISHED`."""
    hub: str
    """Where they are, as `hub:owner/name`, or one file of it."""
    part: str = ""
    """Of several files, those of this part are read, by their names; see `fspo.preferences.hub.of_part`."""
    drawn: Drawn | None = None
    """Users that are drawn, where the rows have none."""
    group: str = ""
    """Where some users are of this group, they alone are held out."""


@dataclass(frozen=True)
class Protocol:
    """Who is shown how many shots and asked how many queries."""

    shots: int
    queries: int | None = None
    """Of each episode, at most; None: all of the user's held-out pairs."""
    users: int | None = None
    """At most so many, drawn evenly from their groups; None: all of them."""
    episodes: int = 1
    answers: int | None = 0
    """Prompts answered for each user; None: as many as the run's evaluation says."""
    parted: bool = False
    """Whether the rows say which of a user's pairs may be shots and which are queries (`split`)."""
    seed: int = 0

    def changed(self, settings: BenchmarkConfig) -> Protocol:
        """The protocol as a run wants it."""
        return Protocol(**vars(self) | {name: getattr(settings, name) for name in self.departures(settings)})

    def departures(self, settings: BenchmarkConfig) -> dict[str, tuple[Any, Any]]:
        """Setting -> (the protocol's, the run's), of those that differ."""
        wanted = {name: getattr(settings, name) for name in _CHANGEABLE}
        return {
            name: (getattr(self, name), value)
            for name, value in wanted.items()
            if value is not None and value != getattr(self, name)
        }

    def evaluation(self, config: EvaluationConfig) -> EvaluationConfig:
        """A run's settings of evaluation with what the protocol decides."""
        decided: dict[str, Any] = {"seed": self.seed, "users": None, "shots": self.shots, "episodes": self.episodes}
        if self.queries is not None:
            decided["queries"] = self.queries
        if self.answers is not None:
            decided["answers"] = self.answers
        return config.model_copy(update=decided)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; see docs/benchmarks.md."""

    name: str
    title: str
    measure: Literal["reward_accuracy", "win_rate"]
    """What its papers report, by its name in `metrics.json`."""
    rows: Rows
    protocol: Protocol
    differences: tuple[str, ...]
    """How our protocol differs from that of the published figures, one sentence each."""
    users: int | None = None
    """Of how many the published figures are, where that is told."""
    synthesis: Mapping[str, Any] = field(default_factory=dict)
    """Of the own domains: the section `synthesis` by which the data are made, that of the domain's file in configs/."""
