"""SPA: a few labels spread to the policy's own answers, if they say anything; no other label is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fspo.errors import ConfigError, DataError
from fspo.files import read_jsonl
from fspo.judging.verdicts import MIRRORED
from fspo.methods import round_setup
from fspo.methods.policies.spa import divided, least_confident
from fspo.methods.table import METHODS
from fspo.modeling.answering import Prompt, Reply
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from tests.methods.policies.round_worlds import LikesYes, agreeing, answers, camps, job_of, taste

FEW: dict[str, Any] = {"seeds": 4, "shots": 1, "queries": 3, "steps": 10, "probes": 0}


def swapped(data: PreferenceDataset, seeds: int, *, rest: bool) -> PreferenceDataset:
    """The data with the opposite labels, of the questions that are labelled or of all others."""
    turned = {row.prompt + row.user for row in divided(data, seeds, 0)[rest]}
    rows = [row.swap() if row.prompt + row.user in turned else row for row in data]
    return PreferenceDataset(data.users.values(), rows)


class LikesByQuestion:
    """Likes yes to questions with odd numbers, and no to the others."""

    def compare(self, user: User, prompt: str, first: str, second: str) -> Any:
        preferred = LikesYes().compare(user, prompt, first, second)
        return preferred if int(prompt.split()[2]) % 2 else MIRRORED[preferred]


def says_yes_then_no(model: Any, renderer: Any, prompts: Sequence[Prompt], *rest: Any, **more: Any) -> list[Reply]:
    """Two answers to each question that differ."""
    return [Reply(answers(9)[place % 2]) for place, _ in enumerate(prompts)]


def test_few_labels_spread_by_the_implicit_reward(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_setup, "answer", says_yes_then_no)
    job = job_of("spa", both, tmp_path / "out", agreeing(), judge=LikesYes, **FEW)
    out = job.method.train(job)
    _, first, second = read_jsonl(out / "rounds.jsonl")
    assert (first["right_labels"], second["pairs"]) == (1.0, 120)
    assert second["right_labels"] > 0.7
    own, start = (
        [margin for row in read_jsonl(out / "rounds" / "2" / f"margins-{place}.jsonl") for margin in row["margins"]]
        for place in (1, 0)
    )
    rewards = [one - other for one, other in zip(own, start, strict=True)]
    assert second["right_labels"] == pytest.approx(sum(reward >= 0 for reward in rewards) / len(rewards))
    assert taste(out)[0] > 0.1


def test_no_other_label_is_read(both: Path, tmp_path: Path) -> None:
    found = []
    for name, data in (("one", agreeing()), ("other", swapped(agreeing(), 4, rest=True))):
        job = job_of("spa", both, tmp_path / name, data, **{**FEW, "steps": 2})
        found.append(load_file(job.method.train(job) / "model.safetensors"))
    one, other = found
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_labels_that_say_nothing_spread_nothing(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_setup, "answer", says_yes_then_no)
    # Nothing in a question says what its user likes of it.
    rows = [row if int(row.prompt.split()[2]) % 2 else row.swap() for row in agreeing()]
    data = PreferenceDataset(agreeing().users.values(), rows)
    job = job_of("spa", both, tmp_path / "out", data, judge=LikesByQuestion, **FEW)
    found = read_jsonl(job.method.train(job) / "rounds.jsonl")
    assert found[1]["right_labels"] == 1.0
    # No better than a coin. Often worse: where more of the few questions are odd, fewer of the others are.
    assert found[2]["right_labels"] < 0.6


def test_the_least_confident_labels() -> None:
    assert least_confident([0.5, -0.1, 2.0, 0.3, 0.9, 0.1, 4.0, 1.0, 1.5, 3.0], 0.2) == {1, 5}
    assert least_confident([0.5, -0.1], 0.0) == set()


def test_each_user_has_so_many_labelled_questions() -> None:
    labelled, rest = divided(camps(), 3, 7)
    for user in camps().users:
        own, others = ({row.question_key for row in part.of_user(user)} for part in (labelled, rest))
        assert (len(own), len(others), own & others) == (3, 5, set())
    # The same in every process, whatever the order of its sets.
    drawn = [{int(row.prompt.split()[2]) for row in labelled.of_user(user)} for user in ("u0", "u1")]
    assert drawn == [{4, 5, 6}, {0, 5, 7}]


def test_bad_settings_and_data_are_named(both: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="objective: ipo takes no noisy labels"):
        METHODS["spa"].training({"objective": "ipo"})
    with pytest.raises(ConfigError, match="rounds: the first round trains on the seeds alone"):
        METHODS["spa"].training({"rounds": 1})
    with pytest.raises(ConfigError, match="seeds: the first round shows 8 labelled questions of a user"):
        METHODS["spa"].training({"seeds": 7, "shots": 4, "queries": 4})
    job = job_of("spa", both, tmp_path / "out", agreeing(), **{**FEW, "seeds": 8})
    with pytest.raises(DataError, match="No user has more than 8 questions"):
        job.method.train(job)
    assert not (tmp_path / "out" / "rounds").exists()  # nothing was answered before
