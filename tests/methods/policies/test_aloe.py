"""ALOE: pairs of every turn, given what was known in it; it teaches as much as knowing the user helps, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.files import read_jsonl
from fspo.methods import rounds
from fspo.modeling.answering import Prompt, Reply
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from tests.methods.policies.round_worlds import LikesYes, agreeing, answers, job_of, taste

TALK: dict[str, Any] = {"rounds": 1, "queries": 3, "shots": 2, "steps": 6, "users_per_step": 4, "probes": 0}


def described() -> PreferenceDataset:
    data = agreeing()
    return PreferenceDataset([User(name, "Likes yes.") for name in data.users], data)


def test_it_learns_from_answers_that_know_the_user(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []

    def answer(
        model: Any, renderer: EpisodeRenderer, prompts: Sequence[Prompt], *rest: Any, **more: Any
    ) -> list[Reply]:
        """Who knows the user says what the user likes."""
        seen.extend((bool(prompt.description), len(prompt.shots)) for prompt in prompts)
        return [Reply(answers(9)[not prompt.description]) for prompt in prompts]

    monkeypatch.setattr(rounds, "answer", answer)
    job = job_of("aloe", both, tmp_path / "out", described(), judge=LikesYes, **TALK)
    out = job.method.train(job)
    assert read_jsonl(out / "rounds.jsonl")[1]["right_labels"] == 1.0
    assert read_jsonl(out / "rounds.jsonl")[1]["pairs"] == 24
    # Knowing answers see two other preferences; plain ones see what was said before, one thing more in each turn.
    assert set(seen) == {(True, 2), (False, 0), (False, 1), (False, 2)}
    assert taste(out)[0] > 0.3


def test_where_knowing_the_user_does_not_help_nothing_is_taught(both: Path, tmp_path: Path) -> None:
    job = job_of("aloe", both, tmp_path / "out", described(), judge=LikesYes, **{**TALK, "steps": 9})
    assert read_jsonl(job.method.train(job) / "rounds.jsonl")[1]["right_labels"] == pytest.approx(0.5, abs=0.2)


def test_users_with_too_few_questions_are_named(both: Path, tmp_path: Path) -> None:
    job = job_of("aloe", both, tmp_path / "out", described(), **{**TALK, "queries": 7})
    with pytest.raises(DataError, match="8 unrelated questions, and an episode of 2 shots and 7 queries needs 9"):
        job.method.train(job)
