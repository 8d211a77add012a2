"""What an adaptation says of its own work, against the tokens that the model reads for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.methods import adaptation
from fspo.methods.adaptation import AdaptationInput, LastStates
from tests.methods.adaptation_worlds import adapting, counted_tokens, liking_marks

SHOTS = liking_marks(4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ttt", {"steps": 3}),
        ("ttt", {"steps": 2, "episodes": "leave-one-out", "mirror": True}),
        ("ttt", {"steps": 1, "episodes": "bare"}),
        ("ttt", {"steps": 0}),
        ("asls", {"steps": 2, "replay": 1}),
    ],
)
def test_the_work_is_the_tokens_of_the_steps(tiny_model_path: Path, name: str, settings: dict[str, Any]) -> None:
    made = adapting(tiny_model_path, name, **settings)
    made.state(SHOTS[:3])  # which asls continues, and which pays for what a model does once
    with counted_tokens() as found:
        made.state(SHOTS)
    work = made.work(AdaptationInput(made.settings, made.renderer, SHOTS))
    assert work is not None
    assert (work.read, work.learned) == (found["read"], found["learned"])


def test_a_steering_vector_takes_one_pass_over_the_responses(tiny_model_path: Path) -> None:
    made = adapting(tiny_model_path, "steering")
    with counted_tokens() as found:
        made.state(SHOTS)
    work = made.work(AdaptationInput(made.settings, made.renderer, SHOTS))
    assert work is not None and work.learned == found["learned"] == 0
    assert 0.8 * found["read"] < work.read <= found["read"]  # what is read has padding


def test_a_summary_reads_the_shots_once(tiny_model_path: Path) -> None:
    made: Any = adapting(tiny_model_path, "summary")
    (written,) = made.write([SHOTS], tokens=2)
    work = made.work(AdaptationInput(made.settings, made.renderer, SHOTS))
    assert work.read == written.read and work.learned == 0


def test_states_are_made_again_when_they_are_no_longer_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "_REMEMBERED", 2)
    made: list[int] = []
    states = LastStates[None]()
    for count in (0, 1, 1, 0, 2, 0):
        states.get(SHOTS[:count], lambda shots: made.append(len(shots)))
    assert made == [0, 1, 2, 0]
