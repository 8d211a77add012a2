"""Scripted reward models of which it is known what they go by, and an evaluation of nothing but them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.reward_models.protocol import FunctionRewardModel, RewardModel
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from tests.evaluation.helpers import CountingJudge

__all__ = ["CONFIG", "Instrument", "evaluated"]

CONFIG = EvaluationConfig(shots=4, ladder=(0, 1, 2, 4), queries=6, answers=0)


class Instrument:
    """Functions of (shots, prompt, response) made for one dataset, whose response pairs are each one user's alone."""

    def __init__(self, dataset: PreferenceDataset) -> None:
        self._users = {row.pair: dataset.users[row.user] for row in dataset}
        self._judge = CountingJudge()

    def knows(self, shots: Sequence[Preference], prompt: str, response: str) -> float:
        """The true reward of whoever gave the shots, turned round where the labels say the opposite of their taste."""
        if not shots:
            return 0.0
        user = self._giver(shots)
        said = sum(self._judge.utility(user, s.chosen) - self._judge.utility(user, s.rejected) for s in shots)
        return (1 if said > 0 else -1) * self._judge.utility(user, response)

    def memorises(self, shots: Sequence[Preference], prompt: str, response: str) -> float:
        """The true reward of whoever was asked about these contents, whatever was chosen of them."""
        return self._judge.utility(self._giver(shots), response) if shots else 0.0

    @staticmethod
    def ignores(shots: Sequence[Preference], prompt: str, response: str) -> float:
        """Longer is better, for everybody."""
        return float(len(response))

    def _giver(self, shots: Sequence[Preference]) -> User:
        return self._users[shots[0].pair]


def evaluated(
    out: Path, dataset: PreferenceDataset, config: EvaluationConfig = CONFIG, **models: Any
) -> dict[str, dict[str, dict[str, Any]]]:
    """The metrics of these reward models, given as functions or as they are."""
    wrapped = {
        name: model if isinstance(model, RewardModel) else FunctionRewardModel(model, name)
        for name, model in models.items()
    }
    return evaluate(config, dataset, {}, model="none", out=out, judge=CountingJudge(), reward_models=wrapped)
