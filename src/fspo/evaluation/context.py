"""One evaluation: what is measured on which items, with which weights, and where results go; and what adds measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.judges.fluency import answer_log_probs
from fspo.evaluation.judges.judges import answer_judge
from fspo.evaluation.judges.win_rates import Answer, AnswerKey
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Table
from fspo.evaluation.provenance import Provenance
from fspo.evaluation.scoring.descriptions import Describer
from fspo.evaluation.scoring.eval_episodes import Item, Trial
from fspo.evaluation.scoring.variations import Probe, build_probes
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.statistics.intervals import Estimate
from fspo.judging.judge import Judge, TextUtility
from fspo.llm.pool import EndpointPool
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Progress

__all__ = ["Evaluation", "OptionalMeasure"]


@dataclass(frozen=True)
class Evaluation:
    """What every stage of an evaluation works with."""

    config: EvaluationConfig
    dataset: PreferenceDataset
    """The test part, held-out users on held-out questions, without preferences that some method can't read whole."""
    trials: Sequence[Trial]
    methods: Sequence[str]
    weights: Weights
    out: Path
    """Folder of the evaluation."""
    progress: Progress
    endpoints: EndpointPool | None = None
    """Opens the endpoints of judges and reward models; by default each measure opens its own."""
    judge: Judge | None = None
    """The one that labelled the data, where it can judge."""
    train: PreferenceDataset | None = None
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    """Method -> how its policy was trained."""

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Every query of every trial."""
        return tuple((trial.user, trial.item(n)) for trial in self.trials for n in range(len(trial.own.queries)))

    @cached_property
    def probes(self) -> list[Probe]:
        """The trials that are measured under variations of their shots."""
        return build_probes(self.dataset, self.trials, self.config)

    @property
    def answer_judge(self) -> Judge | None:
        """The judge of answers; see `judges.answer_judge`."""
        return answer_judge(self.judge)

    @property
    def utility(self) -> TextUtility | None:
        """The users' own utilities; None where users or judge have none."""
        known = all(self.dataset.users[trial.user].traits for trial in self.trials)
        return self.judge if known and isinstance(self.judge, TextUtility) else None

    def log_probs(self, answers: Sequence[Answer]) -> list[float]:
        """Mean log-probs a token of answers under the base model given the prompt alone, in nats."""
        base, path = self.weights.loadable(None, "none"), self.out / "fluency.jsonl"
        turns = {query.prompt: query.turns for trial in self.trials for query in trial.own.queries if query.turns}
        return answer_log_probs(base, answers, conversations=turns, path=path, progress=self.progress)

    def trained(self, method: str) -> Provenance:
        """How a method's policy was trained; empty for reward models."""
        return self.provenance.get(method, Provenance())


class OptionalMeasure:
    """A measure beside those of every evaluation. What it does not override adds nothing."""

    def __init__(self, evaluation: Evaluation) -> None:
        """Get ready; no model is loaded and nobody is asked yet."""
        self.evaluation = evaluation

    def use_weights(self, method: str, describer: Describer | None) -> None:
        """Do what needs the weights of `method` (`base`: the base model) while they are loaded.

        `describer` has the descriptions of a method that writes its own.
        """

    def rewards(self, method: str, rewards: Mapping[str, Rewards]) -> Table:
        """Columns of one method or reward model, from the rewards of all."""
        return {}

    def answers(self, key: AnswerKey, answers: Sequence[Answer]) -> Table:
        """Columns from one method's answers by one sampling."""
        return {}

    def estimates(self, method: str) -> dict[str, Estimate]:
        """Figures of one method that are no means over items."""
        return {}

    def notes(self) -> list[str]:
        """Sentences on what went wrong or is odd, known once the estimates are."""
        return []

    def files(self, rewards: Mapping[str, Rewards]) -> dict[str, dict[str, Any]]:
        """File name -> what it holds, or adds to what others put into it, ready for JSON."""
        return {}
