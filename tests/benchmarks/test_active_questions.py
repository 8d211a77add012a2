from __future__ import annotations

from pathlib import Path

from benchmarks.active_questions import Sizes, measure
from fspo.modeling.policy import Policy

SMALL = Sizes(people=25, known=40, answers=4, questions=40, tested=30)


def test_chosen_questions_tell_more_than_random_ones() -> None:
    found = measure("reviews-written", SMALL)
    curves = found["accuracy"]
    assert all(len(curve) == 5 for curve in curves.values())
    for curve in curves.values():
        assert all(point["low"] <= point["value"] <= point["high"] for point in curve)
        assert curve[0]["value"] < curve[4]["value"]
    assert curves["information"][4]["value"] > curves["random"][4]["value"]
    assert found["gain"]["information"][0]["value"] == 0


def test_a_policy_can_choose(tiny_model_path: Path) -> None:
    policy = Policy.load(tiny_model_path, device="cpu")
    small = Sizes(people=2, known=10, answers=2, questions=3, tested=2, shots=1)
    found = measure("advice", small, policy=policy)
    assert {len(curve) for curve in found["policy_accuracy"].values()} == {2}
