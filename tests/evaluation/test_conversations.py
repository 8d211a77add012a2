"""Alignment by turn in an evaluation, end to end on a tiny random model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.weights import Weights
from fspo.files import read_json, read_jsonl
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from tests.evaluation.helpers import CountingJudge, small_dataset
from tests.fake_endpoint import fake_endpoint, stats
from tests.progress_lines import Lines

CONFIG = EvaluationConfig.model_validate(
    {
        "shots": 2,
        "ladder": [0, 2],
        "queries": 2,
        "answers": 0,
        "samplings": ["plain"],
        "max_new_tokens": 6,
        "robustness": {"users": 0},
        "conversations": {"turns": 3, "users": 4, "responses": 2},
    }
)


def run(
    model: Path,
    out: Path,
    config: EvaluationConfig = CONFIG,
    methods: Sequence[str] = ("base", "few-shot"),
    **more: Any,
) -> dict[str, Any]:
    given: dict[str, Any] = {"judge": CountingJudge(), "dataset": small_dataset("test"), **more}
    return evaluate(config, policies=dict.fromkeys(methods), model=str(model), out=out, **given)


def played(address: str) -> EvaluationConfig:
    """Users that the model at an endpoint plays."""
    settings = {"turns": 3, "users": 4, "endpoint": {"base_url": address, "model": "m", "retries": 1}}
    return EvaluationConfig.model_validate({**CONFIG.model_dump(), "conversations": settings})


def test_every_method_holds_the_same_conversations(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tiny_model_path, tmp_path)
    for row in found.values():
        assert all(1 <= row[f"alignment@{turn}"]["value"] <= 5 for turn in (1, 2, 3))
        assert row["alignment@1"]["users"] == 4
        assert {"alignment_slope", "alignment_slope_normalised", "alignment_fit"} <= row.keys()
        levels = [row[f"alignment@{turn}"]["value"] for turn in (1, 2, 3)]
        assert row["alignment_slope"]["value"] == pytest.approx((levels[2] - levels[0]) / 2)
    # Nothing is known of the users in the first turn.
    assert found["base"]["alignment@1"] == found["few-shot"]["alignment@1"]
    spoken = {name: read_jsonl(tmp_path / name / "conversations.jsonl") for name in found}
    assert [row["text"] for row in spoken["base"][:4]] == [row["text"] for row in spoken["few-shot"][:4]]
    assert [row["shots"] for row in spoken["few-shot"]] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({(row["user"], row["prompt"]) for row in spoken["few-shot"]}) == 12
    monkeypatch.setattr(Weights, "_read", lambda *_: pytest.fail("a model was loaded again"))
    assert run(tiny_model_path, tmp_path) == found


def test_no_shot_answers_the_question_that_is_asked(tiny_model_path: Path, tmp_path: Path) -> None:
    rows = [replace(row, prompt=f"Film {place % 2}?", question="") for place, row in enumerate(small_dataset("test"))]
    data = PreferenceDataset(small_dataset("test").users, rows)
    settings = {**CONFIG.model_dump(), "shots": 1, "ladder": [], "conversations": {"turns": 4, "users": 1}}
    run(tiny_model_path, tmp_path, EvaluationConfig.model_validate(settings), ["few-shot"], dataset=data)
    spoken = read_jsonl(tmp_path / "few-shot" / "conversations.jsonl")
    asked = [row["prompt"] for row in spoken]
    assert len(asked) == 4 and set(asked) == {"Film 0?", "Film 1?"}
    assert [row["shots"] for row in spoken] == [sum(one != row for one in asked[:k]) for k, row in enumerate(asked)]


def test_a_user_who_is_described_otherwise_is_answered_again(tiny_model_path: Path, tmp_path: Path) -> None:
    data, log = small_dataset("test"), tmp_path / "oracle" / "conversations.jsonl"
    others = [replace(user, description="Wants poems about the sea.") for user in data.users.values()]
    settings = {**CONFIG.model_dump(), "ladder": [], "conversations": {"turns": 2, "users": 1}}
    config = EvaluationConfig.model_validate(settings)
    for users, lines in ((data.users, 2), (others, 4), (data.users, 4)):
        run(tiny_model_path, tmp_path, config, ["oracle"], dataset=PreferenceDataset(users, data))
        assert len(read_jsonl(log)) == lines


def test_more_turns_than_questions_are_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    longer = CONFIG.model_copy(update={"conversations": CONFIG.conversations.model_copy(update={"turns": 13})})
    with pytest.raises(DataError, match="no evaluated user has 13 questions to ask"):
        run(tiny_model_path, tmp_path, longer)
    assert not (tmp_path / "base").exists()  # before anything is scored


def test_a_question_that_is_too_long_is_not_asked(tiny_model_path: Path, tmp_path: Path) -> None:
    data = small_dataset("test")
    prompt = "What about " + "a very long story " * 100
    long = [Preference(user, prompt, "Good and long.", "Bad.") for user in data.users]
    settings = {**CONFIG.model_dump(), "ladder": [], "max_length": 256, "conversations": {"turns": 12, "users": 2}}
    config, everything = EvaluationConfig.model_validate(settings), PreferenceDataset(data.users, [*data, *long])
    found = run(tiny_model_path, tmp_path, config, ["base"], dataset=everything)
    assert found["base"]["alignment@12"]["users"] == 2
    assert prompt not in {row["prompt"] for row in read_jsonl(tmp_path / "base" / "conversations.jsonl")}


def test_a_language_model_plays_the_users(tiny_model_path: Path, tmp_path: Path) -> None:
    with fake_endpoint() as address:
        methods, said = ["base", "oracle", "summary", "steering"], Lines()
        found = run(tiny_model_path, tmp_path, played(address), methods, judge=None, progress=said)
        came = stats(address)["came"]
        assert run(tiny_model_path, tmp_path, played(address), methods, judge=None) == found
        assert stats(address)["came"] == came  # every reply is kept
    for name in ("base", "oracle"):
        assert all(1 <= found[name][f"alignment@{turn}"]["value"] <= 5 for turn in (1, 2, 3))
        assert found[name]["alignment@1"]["users"] == 4
        rows = read_jsonl(tmp_path / name / "played-users.jsonl")
        assert len(rows) == 12 and all(row["message"].startswith("Tell me: ") for row in rows if row["turn"] == 1)
        assert all(row["message"].startswith("I like the ") for row in rows if row["turn"] > 1)
        spoken = read_jsonl(tmp_path / name / "conversations.jsonl")
        assert [row["prompt"].count("Assistant: ") for row in spoken] == [0] * 4 + [1] * 4 + [2] * 4
        assert [row["shots"] for row in spoken] == [0] * 12
    assert "alignment_slope" in found["base"] and "alignment_slope" not in found["summary"]
    assert any("not measured for summary, steering" in line for line in said.lines)
    assert read_json(tmp_path / "conversations.json")["base"] | {"wording": ""} == {
        "messages": 12, "unusable": {}, "answers": 12, "unread": {}, "wording": "",
    }  # fmt: skip


def test_bad_replies_are_counted_and_stop_nothing(tiny_model_path: Path, tmp_path: Path) -> None:
    said = Lines()
    with fake_endpoint(replies={"always-only-reasoning": 0.4, "always-content_filter": 0.2}) as address:
        found = run(tiny_model_path, tmp_path, played(address), ["base"], progress=said)
    rows, record = read_jsonl(tmp_path / "base" / "played-users.jsonl"), read_json(tmp_path / "conversations.json")
    failed = [row for row in rows if row["failure"]]
    assert 0 < len(failed) < 12 and sum(record["base"]["unusable"].values()) == len(failed)
    asked = {row.prompt for row in small_dataset("test")}
    assert all(row["message"] in asked for row in failed)
    rated = [row["level"] for row in rows if row["level"] is not None]
    assert 0 < len(rated) < 12 and sum(record["base"]["unread"].values()) == 12 - len(rated)
    assert sum(found["base"].get(f"alignment@{turn}", {"users": 0})["users"] for turn in (1, 2, 3)) == len(rated)
    assert any(line.startswith("Conversations of base:") for line in said.lines)


def test_users_without_descriptions_cannot_be_played(tiny_model_path: Path, tmp_path: Path) -> None:
    data = small_dataset("test")
    bare = PreferenceDataset([User(user.id, traits=user.traits) for user in data.users.values()], data)
    with pytest.raises(DataError, match=r"plays users by their descriptions, and user '.*' has none"):
        evaluate(
            played("http://127.0.0.1:9/v1"), bare, {"base": None}, model=str(tiny_model_path), out=tmp_path, judge=None
        )
