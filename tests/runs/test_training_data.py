"""What methods are trained on: the run's own training part, and those of other datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import ConfigError, DataError
from fspo.judging.declared import DeclaredJudge
from fspo.judging.observer import Observer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.splits import Splits
from fspo.preferences.types import Preference, User
from fspo.progress import Silent
from fspo.runs import pipeline
from fspo.runs.checks import check_episodes
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.training_data import ObserverBySource, merged, observer_of, training_parts


def saved(folder: Path, name: str, *, users: int = 6, questions: int = 10, judged: bool = True) -> Path:
    """A divided dataset of people who like one end of a declared trait, and its judge."""
    people = [User(f"{name}-{number}", traits={"shape": 1.0 if number % 2 else -1.0}) for number in range(users)]
    texts = {f"{name} {number} {form}": {"shape": form} for number in range(questions) for form in (0, 1)}
    rows = []
    for number, user in enumerate(people):
        for question in range(questions):
            chosen, rejected = (f"{name} {question} {form}" for form in ((1, 0) if number % 2 else (0, 1)))
            asked = f"{name} {question}?"
            rows.append(Preference(user.id, asked, chosen, rejected, asked, source={"judge": "declared"}))
    dataset = PreferenceDataset(people, rows)
    dataset.save(folder)
    ids = [user.id for user in people]
    asked = [f"{name} {number}?" for number in range(questions)]
    Splits(
        {"train": frozenset(ids[:-2]), "test": frozenset(ids[-2:])},
        {"train": frozenset(asked[:-4]), "test": frozenset(asked[-4:])},
    ).save(folder / "splits.json")
    if judged:
        DeclaredJudge({"shape": (0, 1)}, texts).save(folder / "judge.json")
    return folder


def run_on(tmp_path: Path, *others: Path, **settings: str) -> RunFolder:
    wanted = {"training.all.shots": "2", "training.all.queries": "2", "evaluation.shots": "2", **settings}
    lines = [f"data={saved(tmp_path / 'own', 'own')}", f"also_train=[{', '.join(map(str, others))}]"]
    lines += [f"{key}={value}" for key, value in wanted.items()]
    folder = RunFolder(load_config(None, [*lines, "evaluation.queries=2"], tmp_path / "run"))
    pipeline.synth(folder, Silent())
    return folder


def test_training_parts_are_joined_and_nothing_held_out_is_among_them(tmp_path: Path) -> None:
    folder = run_on(tmp_path, saved(tmp_path / "other", "other"))
    trained = pipeline.trained_on(folder)
    assert {user.partition("-")[0] for user in trained.users} == {"own", "other"}
    assert len(trained.users) == 8
    assert set(trained.questions()) == {f"{name} {number}?" for name in ("own", "other") for number in range(6)}
    assert check_episodes(folder, pipeline.dataset_of(folder), pipeline.splits_of(folder), evaluated=True) == []


def test_other_data_make_another_training(tmp_path: Path) -> None:
    alone, both = run_on(tmp_path), run_on(tmp_path, saved(tmp_path / "other", "other"))
    assert alone._settings("methods/fspo") != both._settings("methods/fspo")
    assert "also_train" not in alone._settings("methods/fspo")  # as runs of before it have it


def test_bad_folders_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    def refused(other: Path) -> str:
        folder = run_on(tmp_path, other)
        with pytest.raises((ConfigError, DataError)) as caught:
            check_episodes(folder, pipeline.dataset_of(folder), pipeline.splits_of(folder), evaluated=True)
        return str(caught.value)

    assert f"there is no folder {tmp_path / 'none'}; make it" in refused(tmp_path / "none")
    undivided = saved(tmp_path / "undivided", "other")
    (undivided / "splits.json").unlink()
    assert f"{undivided} has no splits.json" in refused(undivided)
    assert "also_train: The datasets describe user 'own-0' differently" in refused(_changed(tmp_path / "same"))
    few = saved(tmp_path / "few", "few", questions=5)
    assert f"training part of {few}" in refused(few)
    leaking = saved(tmp_path / "leaking", "own-", users=4)
    PreferenceDataset(
        [User("x-1")], [Preference("x-1", f"own {number}?", "yes", "no") for number in range(6, 10)]
    ).save(leaking)
    asked = frozenset(f"own {number}?" for number in range(6, 10))
    Splits({"train": frozenset({"x-1"})}, {"train": asked}).save(leaking / "splits.json")
    assert "leak" in refused(leaking)


def _changed(folder: Path) -> Path:
    saved(folder, "own")
    dataset, splits = PreferenceDataset.load(folder), Splits.load(folder / "splits.json")
    people = [User(user.id, description="Somebody else.") for user in dataset.users.values()]
    PreferenceDataset(people, dataset.preferences).save(folder)
    splits.save(folder / "splits.json")
    return folder


def test_each_user_is_observed_by_those_of_the_same_data(tmp_path: Path) -> None:
    folder = run_on(tmp_path, saved(tmp_path / "other", "other"))
    parts = training_parts(folder, pipeline.dataset_of(folder), pipeline.splits_of(folder))
    observer = observer_of(parts, "fspo", seed=0)
    sampler = EpisodeSampler(merged(parts), shots=2, queries=2, seed=0)
    for episode in (sampler.episode(number) for number in range(8)):
        assert min(odds for (odds,) in observer.log_odds(episode, 2)) > 3  # two shots leave one kind of user
    own = [(part.train, Observer(list(part.train.users.values()), _Half())) for part in parts]
    assert ObserverBySource(own).identity != observer.identity


class _Half:
    """Likes nothing more than anything else."""

    identity = "half"

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        return 0.0


def test_an_observer_needs_traits_and_a_judge(tmp_path: Path) -> None:
    silent = saved(tmp_path / "silent", "silent", judged=False)
    folder = run_on(tmp_path, silent)
    parts = training_parts(folder, pipeline.dataset_of(folder), pipeline.splits_of(folder))
    with pytest.raises(ConfigError, match=r"training\.fspo\.target: .*judge\.json is missing"):
        observer_of(parts, "fspo", seed=0)
