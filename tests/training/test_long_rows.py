"""A limit beyond the model, and preferences that the model can't read whole: left out and counted, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fspo.errors import ConfigError, DataError
from fspo.files import read_json, read_jsonl
from fspo.modeling.policies import is_policy
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from fspo.training.train import train_policy
from fspo.training.trainer import METRICS_FILE
from fspo.training.training_folder import TRAINING_FILE, left_out_of
from tests.progress_lines import Lines
from tests.training.helpers import small_dataset
from tests.training.train_tiny import tiny_settings, train_tiny


def test_a_limit_beyond_what_the_model_reads_is_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_length is 5000, and the model reads at most 4096 tokens"):
        train_tiny(tiny_model_path, tmp_path / "out", max_length=5000)


def with_a_long_row(tokens: int = 20_000) -> PreferenceDataset:
    rows = list(small_dataset())
    rows[13] = replace(rows[13], rejected="It was long. " * (tokens // 4))
    return PreferenceDataset(small_dataset().users, rows)


@pytest.mark.parametrize("objective", ["ipo", "pref-ft"])
def test_one_row_that_is_too_long_is_left_out_and_counted(
    tiny_model_path: Path, tmp_path: Path, objective: str
) -> None:
    """Enough steps for every preference to be a query."""
    settings = tiny_settings(objective=objective, bias_weight=0.0, steps=6, users_per_step=4, queries=4)
    said = Lines()
    out = train_policy(settings, with_a_long_row(), model=tiny_model_path, out=tmp_path / "out", progress=said)
    assert any("Left out: 1 of 32 preferences" in line and "user 'u1'" in line for line in said.lines)
    assert (left_out_of(out), read_json(out / TRAINING_FILE)["finished"]) == (1, True)
    assert len(read_jsonl(out / METRICS_FILE)) == 6


def test_a_row_that_is_too_long_is_refused_before_training_where_the_settings_say_so(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"row 14 \(user 'u1', prompt 'What about book 5\?'\) makes .* limit is 4,096"):
        train_policy(tiny_settings(long_rows="refuse"), with_a_long_row(), model=tiny_model_path, out=out)
    assert not (out / TRAINING_FILE).exists()


def test_long_rows_of_the_validation_part_are_left_out_too(tiny_model_path: Path, tmp_path: Path) -> None:
    held_out = PreferenceDataset(
        [User("v", "Likes ending 0.")], [replace(row, user="v") for row in with_a_long_row() if row.user == "u1"]
    )
    settings = tiny_settings(steps=2, evaluate_every=1, evaluate_episodes=12)
    out = train_policy(settings, small_dataset(), model=tiny_model_path, out=tmp_path / "out", validation=held_out)
    assert is_policy(out)
