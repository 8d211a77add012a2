"""Continual adapters of each user on a tiny random model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.methods import user_weights
from fspo.modeling.logprobs import branch_logprobs
from fspo.preferences.types import Episode, Preference
from tests.methods.adaptation_worlds import accuracy, adapting, liking_marks, margins

SHOTS, QUERIES = liking_marks(6), liking_marks(12, start=20)
STRONG: dict[str, Any] = {"steps": 3, "learning_rate": 0.01}


def gains(asls: Any, shots: list[Preference]) -> float:
    """How much the margins of the queries grow by the shots, in nats."""
    pairs = zip(margins(asls, shots, QUERIES), margins(asls, (), QUERIES), strict=True)
    return sum(after - before for after, before in pairs) / len(QUERIES)


def test_a_taste_is_learned_from_the_interactions(tiny_model_path: Path) -> None:
    assert accuracy(adapting(tiny_model_path, "asls", **STRONG), SHOTS, QUERIES) == 1.0


def test_contradicting_interactions_leave_the_last_of_them(tiny_model_path: Path) -> None:
    asls = adapting(tiny_model_path, "asls", **STRONG)
    opposite = [shot.swap() for shot in SHOTS]
    assert gains(asls, [*SHOTS, *opposite]) < 0 < gains(asls, [*opposite, *SHOTS])


def test_a_user_is_tuned_on_where_the_last_interaction_ended(tiny_model_path: Path) -> None:
    asls: Any = adapting(tiny_model_path, "asls", **STRONG)
    at_once = asls.state(SHOTS).tensors
    later: Any = adapting(tiny_model_path, "asls", **STRONG)
    for count in range(1, len(SHOTS) + 1):
        step_by_step = later.state(SHOTS[:count]).tensors
    assert all(torch.equal(at_once[name], step_by_step[name]) for name in at_once)


def test_there_may_be_many_interactions(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asls: Any = adapting(tiny_model_path, "asls")
    tuned: list[int] = []
    monkeypatch.setattr(user_weights, "take_steps", lambda weights, *_, **__: (tuned.append(1), weights)[1])
    asls.loss = lambda shots: None
    many = liking_marks(1000)
    asls.state(many)
    assert len(tuned) == len(many)
    asls.state([*many, SHOTS[0]])
    assert len(tuned) == len(many) + 1


def test_interactions_before_the_last_are_seen_again_by_replay_alone(tiny_model_path: Path) -> None:
    seen: list[int] = []
    for replay in (0, 2):
        asls: Any = adapting(tiny_model_path, "asls", replay=replay, steps=1)
        usual = asls.loss
        asls.loss = lambda shots, usual=usual: (seen.append(len(shots)), usual(shots))[1]
        asls.state(SHOTS[:4])
    assert seen == [1, 1, 1, 1, 1, 2, 3, 3]


def moved_weights(asls: Any) -> dict[str, torch.Tensor]:
    """Weights of a user that change the model."""
    weights = asls.places.start(torch.Generator().manual_seed(0))
    return {name: value + 0.1 * (name.endswith("B")) for name, value in weights.items()}


def test_the_loss_is_that_of_the_formula(tiny_model_path: Path) -> None:
    asls: Any = adapting(tiny_model_path, "asls", beta=0.3)
    moved = moved_weights(asls)
    before = margins(asls, (), SHOTS)
    with asls.places.on(moved):
        after = margins(asls, (), SHOTS)
    by_hand = [math.log1p(math.exp(-0.3 * (new - old))) for new, old in zip(after, before, strict=True)]
    assert float(asls.loss(SHOTS)(moved, 0)) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_likelihood_takes_no_notice_of_what_was_rejected(tiny_model_path: Path) -> None:
    asls: Any = adapting(tiny_model_path, "asls", objective="pref-ft")
    moved, other = moved_weights(asls), [replace(shot, rejected="No.") for shot in SHOTS]
    shown = asls.renderer.render(Episode("ann", (), tuple(SHOTS)))
    with torch.no_grad(), asls.places.on(moved):
        (scored,) = branch_logprobs(asls.model, [shown])
    by_hand = -float(scored.means[:, 0].mean())
    assert float(asls.loss(SHOTS)(moved, 0)) == pytest.approx(by_hand, rel=1e-5)
    assert float(asls.loss(other)(moved, 0)) == pytest.approx(by_hand, rel=1e-5)
