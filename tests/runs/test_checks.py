"""What is checked of a run's data before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Preference, User
from fspo.runs.checks import check_episodes, check_instruments
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder


def dataset(prompts: list[str]) -> PreferenceDataset:
    rows = [
        Preference(user, prompt, f"{prompt} good {number}", f"{prompt} bad {number}", question=f"q{number}")
        for user in ("ann", "bob")
        for number, prompt in enumerate(prompts)
    ]
    return PreferenceDataset([User("ann"), User("bob")], rows)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_prompt_in_two_parts_is_told_before_training(tmp_path: Path, part: str) -> None:
    settings = ["methods=[base,ipo]", "training.all.shots=0", "training.all.queries=1"]
    folder = RunFolder(load_config(None, [*settings, "evaluation.shots=1", "evaluation.queries=1"], tmp_path))
    questions = {"train": {"q0", "q1"}, part: {"q2", "q3"}}
    splits = Splits({"train": {"ann"}, part: {"bob"}}, questions)  # type: ignore[arg-type, dict-item]
    check_episodes(folder, dataset(["a", "b", "c", "d"]), splits, evaluated=False)
    with pytest.raises(DataError, match=f"Prompt 'a' is in training data and {part} data alike"):
        check_episodes(folder, dataset(["a", "b", "a", "d"]), splits, evaluated=False)


def test_weights_can_not_be_chosen_without_a_validation_part(tmp_path: Path) -> None:
    settings = ["methods=[base,ipo]", "training.all.shots=0", "training.all.queries=1", "training.all.evaluate_every=5"]
    folder = RunFolder(load_config(None, [*settings, "training.ipo.keep_best=true"], tmp_path))
    splits = Splits({"train": {"ann", "bob"}}, {"train": {"q0", "q1"}})
    with pytest.raises(DataError, match=r"training\.ipo: keep_best and patience go by the validation part"):
        check_episodes(folder, dataset(["a", "b"]), splits, evaluated=False)


def test_answers_that_only_an_earlier_version_reads_are_named(tmp_path: Path) -> None:
    folder = RunFolder(load_config(None, [], tmp_path))
    assert check_instruments(folder.config.evaluation, folder.evaluation) == []
    old = folder.evaluation / "judges/jury.sqlite"
    old.parent.mkdir(parents=True)
    old.touch()
    (line,) = check_instruments(folder.config.evaluation, folder.evaluation)
    assert line.startswith(f"{old} holds answers of an earlier version of fspo, which this version does not read")
