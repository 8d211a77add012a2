"""What is checked of a run's data before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Preference, User
from fspo.runs.checks import check_episodes, check_instruments
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.pipeline import own_data


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
    with pytest.raises(DataError, match=r"training\.ipo: keep_best and patience need a validation part"):
        check_episodes(folder, dataset(["a", "b"]), splits, evaluated=False)


def own_run(tmp_path: Path, questions: int, *settings: str) -> RunFolder:
    users = [User(f"u{number}") for number in range(10)]
    rows = [
        Preference(user.id, f"Question {number}?", f"good {number}", f"bad {number}")
        for user in users
        for number in range(questions)
    ]
    PreferenceDataset(users, rows).save(tmp_path / "mine")
    config = ["methods=[few-shot,ipo]", "training.all.queries=4", "evaluation.shots=4", "evaluation.queries=2"]
    return RunFolder(load_config(None, [f"data={tmp_path / 'mine'}", *config, *settings], tmp_path / "run"))


def check_own(folder: RunFolder) -> None:
    check_episodes(folder, *own_data(folder), evaluated=True)


def test_what_to_change_about_a_test_part_that_the_run_draws_itself_is_told(tmp_path: Path) -> None:
    folder = own_run(tmp_path, 20)
    with pytest.raises(DataError) as caught:
        check_own(folder)
    said = str(caught.value)
    assert f"{tmp_path / 'mine'}, which has no splits.json (2 of 10 users on 4 of 20 questions): User 'u" in said
    assert "has 4 preferences on 4 questions" in said and "; one more user has too few. " in said and "skip" not in said
    assert said.endswith(f"`fspo data split {tmp_path / 'mine'} --test-questions 0.3`.")
    dataset = PreferenceDataset.load(tmp_path / "mine")
    dataset.split(test_questions=0.3).splits.save(tmp_path / "mine" / "splits.json")
    check_own(folder)  # with what was proposed
    dataset.split(test_questions=0.2).splits.save(tmp_path / "mine" / "splits.json")
    with pytest.raises(
        DataError, match=r"^In the test part: User .* --test-questions 0\.3 --test-users 0\.2 --overwrite`\.$"
    ):
        check_own(folder)


def test_no_division_is_proposed_that_leaves_too_little_to_train_on(tmp_path: Path) -> None:
    folder = own_run(tmp_path, 20, "methods=[few-shot,fspo]", "from_base=[fspo]", "training.all.shots=12")
    with pytest.raises(DataError, match=r"^In the test part") as caught:
        check_own(folder)
    assert "fspo data split" not in str(caught.value)


def test_a_label_noise_that_is_no_probability_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    few = ["evaluation.shots=1", "evaluation.queries=1"]
    folder = own_run(tmp_path, 20, *few, "training.ipo.objective=dpo")
    data, splits = own_data(folder)
    trained = next(iter(splits.part(data, "train")))
    place = next(number for number, row in enumerate(data) if row == trained)
    rows = [replace(row, source={"label_noise": 0.7}) if number == place else row for number, row in enumerate(data)]
    wrong = PreferenceDataset(data.users.values(), rows)
    with pytest.raises(DataError, match=rf"preferences\.parquet, row {place + 1}: .* has label_noise 0\.7"):
        check_episodes(folder, wrong, splits, evaluated=True)
    unread = own_run(tmp_path, 20, *few)  # IPO takes no such probability
    check_episodes(unread, wrong, splits, evaluated=True)


def test_short_users_are_left_out_only_where_others_are_left(tmp_path: Path) -> None:
    folder = own_run(tmp_path, 5, "evaluation.shots=1", "evaluation.queries=1", "training.all.queries=9")
    with pytest.raises(DataError, match=r"training part that the run draws .* Lower training\.all\.queries") as caught:
        check_own(folder)
    assert "skip_short_users" not in str(caught.value)


def test_all_parts_that_are_too_small_are_told_at_once(tmp_path: Path) -> None:
    folder = own_run(tmp_path, 10, "training.all.queries=9")
    with pytest.raises(DataError, match=r"^In the training part .* In the test part .*evaluation\.queries"):
        check_own(folder)


def test_users_who_are_left_out_are_counted_before_anything_is_made(tmp_path: Path) -> None:
    few = ["methods=[base,ipo]", "training.all.shots=0", "training.all.queries=2", "evaluation.users=null"]
    settings = [*few, "evaluation.shots=1", "evaluation.queries=1"]
    users = [User(name) for name in ("ann", "bob", "cem", "dan")]
    counts = {"ann": (0, 3), "bob": (0, 1), "cem": (3, 6), "dan": (3, 4)}  # bob and dan are short
    rows = [Preference(u, f"Question {n}?", f"good {n}", f"bad {n}") for u in counts for n in range(*counts[u])]
    data = PreferenceDataset(users, rows)
    splits = Splits(
        {"train": {"ann", "bob"}, "test": {"cem", "dan"}},
        {"train": {row.question_id for row in rows[:4]}, "test": {row.question_id for row in rows[4:]}},
    )

    def check(*more: str) -> list[str]:
        folder = RunFolder(load_config(None, [*settings, *more], tmp_path))
        return check_episodes(folder, data, splits, evaluated=True)

    with pytest.raises(DataError, match=r"bob.*training\.ipo\.skip_short_users.*dan.*evaluation\.skip_short_users"):
        check()
    said = check("training.ipo.skip_short_users=true", "evaluation.skip_short_users=true")
    assert said == [
        f"Left out of {of}: 1 user with too few preferences for an episode."
        for of in ("the training part", "the test part")
    ]


def test_methods_that_are_not_trained_now_need_no_episodes(tmp_path: Path) -> None:
    few = ["evaluation.shots=1", "evaluation.queries=1"]
    folder = own_run(tmp_path, 20, *few, "methods=[ipo,fspo]", "from_base=[fspo]", "training.ipo.queries=99")
    assert check_episodes(folder, *own_data(folder), trained=["fspo"], evaluated=False) == []
    with pytest.raises(DataError, match=r"Lower training\.ipo\.queries"):
        check_episodes(folder, *own_data(folder), trained=["ipo"], evaluated=False)


def test_settings_to_lower_are_named_in_the_section_that_has_them(tmp_path: Path) -> None:
    few = ["evaluation.shots=1", "evaluation.queries=1"]
    with pytest.raises(DataError, match=r"Lower training\.all\.queries\."):
        check_own(own_run(tmp_path, 5, *few, "training.all.queries=9"))
    few += ["methods=[few-shot,fspo]", "from_base=[fspo]"]
    with pytest.raises(DataError, match=r"Lower training\.all\.shots or training\.fspo\.queries"):
        check_own(own_run(tmp_path, 5, *few, "training.fspo.queries=9", "training.all={shots: 2}"))


def test_the_split_that_is_proposed_holds_out_as_many_users_as_now(tmp_path: Path) -> None:
    folder = own_run(tmp_path, 20)
    data = PreferenceDataset.load(tmp_path / "mine")
    data.split(test_users=0.3, validation=0.1).splits.save(tmp_path / "mine" / "splits.json")
    with pytest.raises(DataError) as caught:
        check_own(folder)
    assert str(caught.value).endswith(" --test-questions 0.3 --test-users 0.3 --validation 0.1 --overwrite`.")


@pytest.mark.parametrize("is_file", [True, False])
def test_data_that_are_not_there_are_named_with_their_place_and_how_to_make_them(tmp_path: Path, is_file: bool) -> None:
    source = tmp_path / "ratings.csv"
    if is_file:
        source.write_text("user,prompt,chosen,rejected\n")
    (tmp_path / "my.yaml").write_text(f"name: mine\ndata: {source}\n")
    with pytest.raises(DataError, match=rf"my\.yaml, line 2: data: .*{source}.*`fspo data import") as caught:
        own_data(RunFolder(load_config(tmp_path / "my.yaml")))
    assert ("is a file" if is_file else "no folder") in str(caught.value)


def test_answers_that_only_an_earlier_version_reads_are_named(tmp_path: Path) -> None:
    folder = RunFolder(load_config(None, [], tmp_path))
    assert check_instruments(folder.config.evaluation, folder.evaluation) == []
    old = folder.evaluation / "judges/jury.sqlite"
    old.parent.mkdir(parents=True)
    old.touch()
    (line,) = check_instruments(folder.config.evaluation, folder.evaluation)
    assert line.startswith(f"{old} holds answers of an earlier version of fspo, which this version does not read")
