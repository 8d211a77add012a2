"""`evaluate` on a tiny random model, with everything but what a test is about filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fspo.evaluation.config import EvaluationConfig, Floors, RobustnessConfig
from fspo.evaluation.evaluate import evaluate
from tests.evaluation.helpers import CountingJudge, small_dataset

__all__ = ["CONFIG", "NO_ANSWERS", "Run", "runner"]

CONFIG = EvaluationConfig(
    shots=2, ladder=(0, 1, 2), queries=2, answers=1, max_new_tokens=4, floors=Floors(log_prob=-99, words=0, distinct=0)
)
NO_ANSWERS = CONFIG.model_copy(update={"answers": 0, "robustness": RobustnessConfig(users=0)})

Run = Callable[..., dict[str, Any]]


def runner(model: Path, policies: Mapping[str, Path | None], usual: Path) -> Run:
    """Evaluates into `usual` unless it is told otherwise."""

    def run(config: EvaluationConfig = CONFIG, out: Path = usual, **options: Any) -> dict[str, Any]:
        options = {"train": small_dataset("train"), "judge": CountingJudge(), "policies": policies} | options
        chosen, test = options.pop("policies"), options.pop("test", small_dataset("test"))
        return evaluate(config, test, chosen, model=str(model), out=out, **options)

    return run
