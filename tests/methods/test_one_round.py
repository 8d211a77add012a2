"""What a method is given in a round, and the pairs that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import TrainingError
from fspo.methods import round_setup
from fspo.methods.one_round import Pairs, Round
from fspo.methods.rounds import play
from fspo.modeling.answering import Prompt
from fspo.preferences.types import Episode, Preference
from tests.methods.policies.round_worlds import SMALL, job_of


def test_answers_are_given_the_shots_of_the_episode(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        round_setup, "answer", lambda model, renderer, prompts, *rest, **more: seen.extend(prompts) or []
    )

    def look(one: Round) -> Pairs:
        episodes = one.draw()
        with pytest.raises(ValueError, match="shorter"):
            one.answers({"0": Prompt("?", episodes[0].shots)})
        assert seen[-1].shots == episodes[0].shots
        assert len(seen[-1].shots) == 2
        assert {shot.user for shot in seen[-1].shots} == {episodes[0].user}
        return Pairs(())

    job = job_of("spin", tiny_model_path, tmp_path / "out", **{**SMALL, "probes": 0})
    with pytest.raises(TrainingError, match="nothing to learn"):
        play(job, look)


def test_pairs_that_teach_nothing_are_counted_and_left_out() -> None:
    queries = [Preference("ann", "?", chosen, rejected) for chosen, rejected in (("a", "b"), ("a", "a "), ("a", " "))]
    found = Pairs.of([Episode("ann", (), tuple(queries)), Episode("ann", (), tuple(queries[1:]))])
    assert (found.count, found.same, found.empty) == (1, 2, 2)
    assert [episode.queries for episode in found.episodes] == [(queries[0],)]
