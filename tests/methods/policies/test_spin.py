"""SPIN: it learns to say what the data say, no more than that, and for whom only where it sees the shots."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import TrainingError
from fspo.files import read_jsonl
from fspo.modeling.policy import Policy
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference
from tests.methods.policies.round_worlds import LikesYes, agreeing, camps, job_of, taste


def test_it_learns_to_say_what_the_data_say(both: Path, tmp_path: Path) -> None:
    job = job_of("spin-population", both, tmp_path / "out", agreeing(), judge=LikesYes)
    out = job.method.train(job)
    start, *_, last = read_jsonl(out / "rounds.jsonl")
    assert last["win_over_start"] > 0.6
    assert start["win_over_chosen"] < last["win_over_chosen"] <= 0.5  # never better than the data
    assert taste(out)[0] > 0.5


def test_it_stops_where_the_policy_equals_the_data(both: Path, tmp_path: Path) -> None:
    people = agreeing()
    said = Policy.load(both).generate(None, [row.prompt for row in people], temperature=0.0, max_new_tokens=10)
    rows = [Preference(row.user, row.prompt, text, row.rejected + "!") for row, text in zip(people, said, strict=True)]
    data = PreferenceDataset(people.users.values(), rows)
    job = job_of("spin-population", both, tmp_path / "out", data, temperature=0.0)
    with pytest.raises(TrainingError, match=r"'spin-population' has nothing to learn .*80 pairs have two equal"):
        job.method.train(job)


def test_without_shots_it_cannot_tell_users_apart(both: Path, tmp_path: Path) -> None:
    job = job_of("spin-population", both, tmp_path / "out", camps(), rounds=1, steps=3, probes=0)
    one, other = taste(job.method.train(job))
    assert one == pytest.approx(-other, abs=1e-4)
