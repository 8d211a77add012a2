"""How often an evaluation adapts a policy to a user, or lets a text about a user be written, before it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.judges.win_rates import asked_prompts
from fspo.evaluation.scoring.eval_episodes import Trial, texts_of
from fspo.evaluation.scoring.logprob_scores import passes
from fspo.evaluation.scoring.variations import Probe
from fspo.evaluation.scoring_stage import TIMED
from fspo.identity import digest
from fspo.methods.adaptation import Adaptation, AdaptationWork, LastStates
from fspo.preferences.types import Preference

__all__ = ["PlannedAdaptation", "ShownShots"]

Shots = tuple[Preference, ...]


@dataclass(frozen=True)
class PlannedAdaptation:
    """How often a method makes something of a user's shots, and what that takes."""

    method: str
    sets: Mapping[int, int]
    """Number of shots -> how many sets of so many shots it adapts to, those that no longer are in memory again."""
    work: AdaptationWork | None
    """Of all together; None: the method can't say."""

    @property
    def count(self) -> int:
        """How often it adapts."""
        return sum(self.sets.values())


@dataclass(frozen=True)
class ShownShots:
    """The shots that an evaluation shows to a method which makes something of them, in the order it shows them."""

    config: EvaluationConfig
    trials: Sequence[Trial]
    answered: Sequence[Trial]
    """Those whose prompts are answered."""
    probes: Sequence[Probe]

    def adapted(self, kind: type[Adaptation]) -> Counter[int]:
        """Number of shots -> how often a policy adapts to a set of so many, as `Adaptation.state` does."""
        found: Counter[int] = Counter()
        states = LastStates[None]()

        def adapt(shots: Sequence[Preference]) -> None:
            if len(shots) < kind.least_shots:
                return
            if kind.continues:
                states.get(shots[:-1], adapt)
            found[len(shots)] += 1

        timed = (trial.own.shots for trial in self.trials[:TIMED])
        for shots in (*timed, *self._scored(), *self._answered()):
            states.get(shots, adapt, continues=kind.continues)
        return found

    def described(self) -> Counter[int]:
        """Number of shots -> of how many sets of so many a text is written, each once and ahead."""
        own = [*self.trials, *(trial.first(k) for trial in self.trials for k in self._fewer)]
        read = (side.shots for trial in own for side in (trial.own, trial.own.flip_shots()))
        sets = {digest(texts_of(shots)): len(shots) for shots in (*read, *self._scored()) if shots}
        return Counter(sets.values())

    def work(
        self, sets: Mapping[int, int], sample: Sequence[Trial], work_of: Callable[[Shots], AdaptationWork | None]
    ) -> AdaptationWork | None:
        """The work of all sets, by the first shots of the trials of a sample; None where a method can't say."""
        total = AdaptationWork()
        for shots, count in sets.items():
            for trial in sample:
                try:
                    one = work_of(trial.own.shots[:shots])
                except DataError:  # too long to be read
                    continue
                if one is None:
                    return None
                total += one.times(count / len(sample))
        return total

    @property
    def _fewer(self) -> list[int]:
        """Smaller numbers of shots that answers are given after."""
        return [k for k in self.config.answer_ladder if k < self.config.shots] if self.config.answers else []

    def _scored(self) -> Iterator[Shots]:
        shown = [passes("shots", trial.own, trial.swapped, self.config) for trial in self.trials]
        shown += [probe.variations(self.config) for probe in self.probes]
        yield from (part.episode.shots for found in shown for one in found for part in one.by_rung(None))

    def _answered(self) -> Iterator[Shots]:
        if not self.config.answers:
            return
        for k in (None, *self._fewer):
            trials = self.answered if k is None else [trial.first(k) for trial in self.answered]
            yield from (trial.own.shots for trial, _, _ in asked_prompts(trials, self.config))
