"""SynPO: what the improver learns from the data reaches answers to new questions, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.files import check_no_others, read_json, read_jsonl
from fspo.methods.policies.synpo import improving, keywords_of, writing
from fspo.methods.table import METHODS
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, Turn, User, transcript
from fspo.runs.made import RUN
from tests.methods.policies.round_worlds import LikesYes, agreeing, job_of, taste

FAST: dict[str, Any] = {
    "rounds": 1,
    "steps": 8,
    "generator_steps": 6,
    "improver_steps": 16,
    "question_tokens": 12,
    "probes": 0,
}


def test_the_improver_teaches_the_policy(both: Path, tmp_path: Path) -> None:
    job = job_of("synpo", both, tmp_path / "methods" / "synpo", agreeing(), judge=LikesYes, **FAST)
    out = job.method.train(job)
    check_no_others(tmp_path, RUN, below="methods/synpo")
    assert read_jsonl(out / "rounds.jsonl")[1]["right_labels"] > 0.6
    assert taste(out)[0] > 0.1
    trained = {path.parent.relative_to(out / "rounds").as_posix() for path in out.glob("rounds/**/policy.json")}
    assert trained == {"0/generator", "1", "1/improver"}
    assert read_json(out / "rounds" / "0" / "generator" / "policy.json")["details"]["context"] == "none"


def test_data_that_the_policy_says_already_improve_nothing(both: Path, tmp_path: Path) -> None:
    rows = [row if int(row.prompt.split()[2]) % 2 else row.swap() for row in agreeing()]
    data = PreferenceDataset(agreeing().users.values(), rows)
    job = job_of("synpo", both, tmp_path / "out", data, judge=LikesYes, **FAST)
    assert read_jsonl(job.method.train(job) / "rounds.jsonl")[1]["right_labels"] == pytest.approx(0.5, abs=0.12)


def test_what_the_tools_are_asked() -> None:
    assert keywords_of("Why is the Sea salty, and why is the sea so wide?") == ["salty", "wide"]
    assert writing(["salty", "wide"]) == "Write a question. Use these words: salty, wide."
    turns = improving(Preference("ann", "Is it wide?", "Yes.", "No."), "Maybe.")
    assert turns[:2] == (Turn("user", "Is it wide?"), Turn("assistant", "Maybe."))
    assert turns[2].role == "user"
    assert transcript(turns)


def test_it_counts_the_steps_of_all_trainings() -> None:
    settings = METHODS["synpo"].training({"rounds": 2, "steps": 3, "generator_steps": 5, "improver_steps": 7})
    assert settings.total_steps == 5 + 2 * (3 + 7)


def test_questions_without_words_are_named(both: Path, tmp_path: Path) -> None:
    rows = [Preference("ann", f"{n}?", f"Yes, {n}.", f"No, {n}.") for n in range(8)]
    job = job_of("synpo", both, tmp_path / "out", PreferenceDataset([User("ann")], rows), **FAST)
    with pytest.raises(DataError, match="a single message with a word of four letters"):
        job.method.train(job)
