"""Per-user test-time training on a tiny random model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.errors import ConfigError
from fspo.methods.policies.ttt import TestTimeTraining
from fspo.preferences.types import Preference
from tests.methods.adaptation_worlds import accuracy, adapting, liking_marks, margins

SHOTS, QUERIES = liking_marks(6), liking_marks(12, start=20)
STRONG: dict[str, Any] = {"steps": 12, "learning_rate": 0.01, "episodes": "bare"}


def test_a_taste_is_learned_from_the_labels(tiny_model_path: Path) -> None:
    assert accuracy(adapting(tiny_model_path, "ttt", **STRONG), SHOTS, QUERIES) == 1.0
    # Without steps a random model only reads the shots, and follows no labels.
    assert accuracy(adapting(tiny_model_path, "ttt", steps=0), SHOTS, QUERIES) < 1.0


def test_norms_learn_it_too(tiny_model_path: Path) -> None:
    norms = adapting(tiny_model_path, "ttt", weights="norms", **(STRONG | {"steps": 20, "learning_rate": 0.05}))
    assert accuracy(norms, SHOTS, QUERIES) >= 0.9
    assert norms.state(SHOTS).numbers == 5 * 32  # two norms in each of two layers, and the last one


def test_contradicting_shots_teach_nothing(tiny_model_path: Path) -> None:
    both = [shot for pair in zip(SHOTS, (shot.swap() for shot in SHOTS), strict=True) for shot in pair]
    ttt = adapting(tiny_model_path, "ttt", **(STRONG | {"steps": 1, "beta": 1.0}))
    # The gradients of a pair and of its opposite cancel at the start: -log s(h) - log s(-h) is flat at h = 0. What is
    # left is rounding, and a step of Adam, which has the size of the rate whatever the gradient is, follows nothing.
    start = ttt.places.start(torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    assert _gradient(ttt, both, start) < 1e-3 * _gradient(ttt, SHOTS, start)


def _gradient(ttt: Any, shots: list[Preference], start: dict[str, torch.Tensor]) -> float:
    weights = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    ttt.loss(shots)(weights, 0).backward()
    return sum(float(value.grad.square().sum()) for value in weights.values() if value.grad is not None) ** 0.5


@pytest.mark.parametrize("episodes", ["prefix", "leave-one-out", "bare"])
def test_user_and_mirrored_user_learn_the_same_with_a_mirror(tiny_model_path: Path, episodes: str) -> None:
    ttt: Any = adapting(tiny_model_path, "ttt", mirror=True, episodes=episodes)
    other = [shot.swap() for shot in SHOTS]
    start = ttt.places.start(torch.Generator().manual_seed(1))
    moved = {name: value + 0.1 * (name.endswith("B")) for name, value in start.items()}
    assert float(ttt.loss(SHOTS)(moved, 0)) == pytest.approx(float(ttt.loss(other)(moved, 0)), abs=1e-5)
    ttt.settings = ttt.settings.model_copy(update={"mirror": False})
    assert float(ttt.loss(SHOTS)(moved, 0)) != pytest.approx(float(ttt.loss(other)(moved, 0)), abs=1e-3)


def test_each_shot_is_learned_after_the_shots_before_it(tiny_model_path: Path) -> None:
    ttt = adapting(tiny_model_path, "ttt")
    assert isinstance(ttt, TestTimeTraining)
    (whole,) = ttt.episodes(SHOTS)
    assert [(branch.query, branch.shots) for branch in whole.branches] == [(n, n) for n in range(6)]
    ttt.settings = ttt.settings.model_copy(update={"episodes": "leave-one-out"})
    assert [len(one.boundaries) - 1 for one in ttt.episodes(SHOTS)] == [5] * 6


@pytest.mark.parametrize("objective", ["dpo", "ipo"])
def test_the_loss_is_that_of_the_formula(tiny_model_path: Path, objective: str) -> None:
    ttt: Any = adapting(tiny_model_path, "ttt", beta=0.3, episodes="bare", objective=objective, pull=0.7)
    weights = ttt.places.start(torch.Generator().manual_seed(0))
    moved = {name: value + 0.1 * (name.endswith("B")) for name, value in weights.items()}
    before = margins(ttt, (), SHOTS)
    with ttt.places.on(moved):
        after = margins(ttt, (), SHOTS)
    h = [new - old for new, old in zip(after, before, strict=True)]
    by_hand = [math.log1p(math.exp(-0.3 * x)) if objective == "dpo" else (x - 1 / 0.6) ** 2 for x in h]
    far = sum(0.01 * value.numel() for name, value in moved.items() if name.endswith("B"))
    assert float(ttt.loss(SHOTS)(moved, 0)) == pytest.approx(sum(by_hand) / len(by_hand) + 0.7 * far, rel=1e-4)


def test_the_pull_holds_the_user_near_the_shared_policy(tiny_model_path: Path) -> None:
    def distance(pull: float) -> float:
        ttt = adapting(tiny_model_path, "ttt", pull=pull, **STRONG)
        return float(ttt.places.distance(ttt.state(SHOTS).tensors))  # type: ignore[attr-defined]

    assert distance(100.0) < distance(0.0) / 4


def test_the_model_is_as_before_when_no_user_is_entered(tiny_model_path: Path) -> None:
    ttt = adapting(tiny_model_path, "ttt", **STRONG)
    before = margins(ttt, (), QUERIES)
    assert margins(ttt, SHOTS, QUERIES) != pytest.approx(before, abs=1e-3)
    assert margins(ttt, (), QUERIES) == before
    assert all(not part._forward_hooks for part in ttt.model.modules())


def test_too_many_layers_are_refused(tiny_model_path: Path) -> None:
    with pytest.raises(ConfigError, match="last_layers: 3, but the model has only 2 layers"):
        adapting(tiny_model_path, "ttt", last_layers=3)


def test_the_last_layers_alone_can_learn(tiny_model_path: Path) -> None:
    ttt = adapting(tiny_model_path, "ttt", last_layers=1)
    assert {name.split(".layers.")[1][0] for name in ttt.state(SHOTS[:1]).tensors} == {"1"}
