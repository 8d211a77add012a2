"""ALOE: pairs of every turn, given what was known in it; it teaches as much as knowing the user helps, and no more."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError, TrainingError
from fspo.files import read_jsonl
from fspo.llm.pool import EndpointPool
from fspo.methods import round_setup
from fspo.methods.one_round import Pairs
from fspo.methods.policies.aloe import AloeSettings
from fspo.modeling.answering import Prompt, Reply
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from tests.fake_endpoint import fake_endpoint, stats
from tests.methods.policies.round_worlds import LikesYes, agreeing, answers, job_of, taste
from tests.progress_lines import Lines

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

    monkeypatch.setattr(round_setup, "answer", answer)
    job = job_of("aloe", both, tmp_path / "out", described(), judge=LikesYes, **TALK)
    out = job.method.train(job)
    assert read_jsonl(out / "rounds.jsonl")[1]["right_labels"] == 1.0
    assert read_jsonl(out / "rounds.jsonl")[1]["pairs"] == 24
    # Knowing answers see two other preferences; plain ones see what was said before, one thing more in each turn.
    assert set(seen) == {(True, 2), (False, 0), (False, 1), (False, 2)}
    assert taste(out)[0] > 0.3


def test_no_shot_answers_the_question_that_is_asked(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users with eight preferences on three questions ask some of them again in five turns."""
    seen: list[tuple[str, set[str]]] = []

    def answer(model: Any, renderer: Any, prompts: Sequence[Prompt], *rest: Any, **more: Any) -> list[Reply]:
        seen.extend((prompt.text[0].text, {shot.prompt for shot in prompt.shots}) for prompt in prompts)
        return [Reply(answers(9)[not prompt.description]) for prompt in prompts]

    monkeypatch.setattr(round_setup, "answer", answer)
    learned: list[Any] = []
    monkeypatch.setattr(Pairs, "of", classmethod(lambda kind, episodes: learned.extend(episodes) or kind(())))
    rows = [replace(row, prompt=f"Is book {place % 3} good?", question="") for place, row in enumerate(described())]
    data = PreferenceDataset(described().users, rows)
    job = job_of("aloe", both, tmp_path / "out", data, judge=LikesYes, **{**TALK, "shots": 1, "queries": 5})
    with pytest.raises(TrainingError):
        job.method.train(job)
    assert seen and all(asked not in shown for asked, shown in seen)
    assert learned and all(row.queries[0].prompt not in {shot.prompt for shot in row.shots} for row in learned)


def test_where_knowing_the_user_does_not_help_nothing_is_taught(both: Path, tmp_path: Path) -> None:
    job = job_of("aloe", both, tmp_path / "out", described(), judge=LikesYes, **{**TALK, "steps": 9})
    assert read_jsonl(job.method.train(job) / "rounds.jsonl")[1]["right_labels"] == pytest.approx(0.5, abs=0.2)


def test_users_with_too_few_questions_are_named(both: Path, tmp_path: Path) -> None:
    job = job_of("aloe", both, tmp_path / "out", described(), **{**TALK, "queries": 7})
    with pytest.raises(DataError, match="8 questions, and an episode of 2 shots and 7 queries needs 9"):
        job.method.train(job)


def test_questions_without_room_for_the_description_are_left_out(tiny_model_path: Path, tmp_path: Path) -> None:
    data, said = described(), Lines()
    long = Preference("u0", f"Is book {', '.join(map(str, range(40)))} good?", *answers(9))
    users = [User(user.id, "Likes yes. " * 4) for user in data.users.values()]
    renderer = EpisodeRenderer(load_tokenizer(tiny_model_path), layout="conversation")
    changes = {**TALK, "steps": 1, "max_length": renderer.bare_length(long, answer=10), "long_rows": "leave-out"}
    everything = PreferenceDataset(users, [*data, long])
    job = job_of("aloe", tiny_model_path, tmp_path / "out", everything, progress=said, **changes)
    job.method.train(job)
    assert any(line.startswith("Left out: 1 of 33 preferences") for line in said.lines)


def test_a_language_model_plays_the_users(both: Path, tmp_path: Path) -> None:
    with fake_endpoint(replies={"always-only-reasoning": 0.2}) as address:
        endpoint = {"base_url": address, "model": "m"}
        settings = {**TALK, "steps": 1, "episodes": 6, "endpoint": endpoint, "lora": {"r": 2, "alpha": 4}}
        said = Lines()
        job = job_of("aloe", both, tmp_path / "aloe", described(), progress=said, **settings)
        with closing(EndpointPool(tmp_path, job.config.endpoints())) as pool:
            out = job.method.train(replace(job, endpoints=pool))
        came = stats(address)["came"]
        shutil.rmtree(out)
        with closing(EndpointPool(tmp_path, job.config.endpoints())) as pool:
            assert job.method.train(replace(job, endpoints=pool)) == out
        assert stats(address)["came"] == came  # the replies outlive the policy
    assert read_jsonl(out / "rounds.jsonl")[1]["pairs"] > 0
    rows = [row for path in out.glob("rounds/1/turn-?-messages.jsonl") for row in read_jsonl(path)]
    assert sorted(row["turn"] for row in rows) == [1, 1, 2, 2, 3, 3]
    failed = sum(bool(row["failure"]) for row in rows)
    assert not failed or any(f"{failed} of 6 messages" in line for line in said.lines)


def test_the_pairs_of_played_users_follow_the_conversation(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Pairs, "of", classmethod(lambda kind, episodes: seen.extend(episodes) or kind(())))
    with fake_endpoint() as address:
        endpoint = {"base_url": address, "model": "m"}
        job = job_of("aloe", both, tmp_path / "aloe", described(), **{**TALK, "episodes": 3, "endpoint": endpoint})
        with closing(EndpointPool(tmp_path, job.config.endpoints())) as pool, pytest.raises(TrainingError):
            job.method.train(replace(job, endpoints=pool))
    assert [len(episode.queries[0].messages) for episode in seen] == [1, 3, 5]
    assert all(not episode.shots for episode in seen)


def test_what_decides_the_pairs_is_the_model_and_what_it_is_asked() -> None:
    def identity(**changes: Any) -> Any:
        endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m", **changes}
        return AloeSettings(objective="dpo", endpoint=endpoint).identity()

    assert identity() == identity(base_url="http://127.0.0.1:2/v1", timeout=3, budget={"tokens": 7})
    assert identity() != identity(model="other")
    assert "wording" in identity()["endpoint"]
    assert "endpoint" not in AloeSettings(objective="dpo").identity()
