from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError, StorageError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
from fspo.preferences.splits import SPLITS, SplitDataset, Splits, make_splits
from fspo.preferences.types import Preference, User
from tests.preferences.worlds import crowded, grid

fraction = st.floats(0.05, 1.0)

USERS_OF_SEED_0 = {"validation": ["u1"], "test": ["u7"]}


@given(st.integers(3, 40), st.integers(3, 40), st.integers(), st.tuples(fraction, fraction, fraction))
def test_users_and_questions_are_divided_completely_and_nothing_leaks(
    users: int, questions: int, seed: int, shares: tuple[float, float, float]
) -> None:
    dataset = grid(users, questions)
    fractions = dict(zip(SPLITS, shares, strict=True))
    splits = make_splits(dataset, seed=seed, user_fractions=fractions, question_fractions=fractions)
    for parts, whole in ((splits.users, dataset.users), (splits.questions, dataset.questions())):
        assert sorted(id for ids in parts.values() for id in ids) == sorted(whole)
        for split, ids in parts.items():
            assert ids and abs(len(ids) - len(whole) * fractions[split] / sum(shares)) < 3
    check_no_leak(splits.part(dataset, "train"), splits.part(dataset, "test"))
    check_no_leak(splits.part(dataset, "train"), splits.part(dataset, "validation"))


@given(crowded(), st.integers())
def test_questions_that_share_a_prompt_stay_together(dataset: PreferenceDataset, seed: int) -> None:
    renamed = [Preference(r.user, r.prompt, r.chosen, r.rejected, f"q{i}") for i, r in enumerate(dataset)]
    dataset = PreferenceDataset(dataset.users, renamed)
    prompts = len({row.prompt for row in dataset})
    users = {"train": list(dataset.users)}
    if prompts < 2:
        with pytest.raises(DataError, match="the parts train, test need at least one each"):
            make_splits(dataset, seed=seed, users=users, question_fractions={"train": 1, "test": 1})
        return
    splits = make_splits(dataset, seed=seed, users=users, question_fractions={"train": 1, "test": 1})
    train = splits.part(dataset, "train")
    test = splits.cross(dataset, users="train", questions="test")
    assert {row.prompt for row in train}.isdisjoint(row.prompt for row in test)
    assert len(train) + len(test) == len(dataset)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    dataset = grid(20, 20)
    backwards = PreferenceDataset(reversed(list(dataset.users.values())), reversed(dataset.preferences))
    assert make_splits(dataset, seed=1) == make_splits(backwards, seed=1)
    assert make_splits(dataset, seed=1) != make_splits(dataset, seed=2)


def test_the_splits_of_a_seed_stay_what_they_are_from_version_to_version() -> None:
    splits = make_splits(grid(10, 10), seed=0)
    assert {split: sorted(ids) for split, ids in splits.users.items() if split != "train"} == USERS_OF_SEED_0


def test_users_can_be_told_and_questions_drawn() -> None:
    dataset = grid()
    told = {"train": ["u0", "u1", "u2", "u3"], "test": ["u4", "u5"]}
    splits = make_splits(dataset, seed=0, users=told)
    assert splits.users == {
        "train": frozenset(told["train"]),
        "validation": frozenset(),
        "test": frozenset(told["test"]),
    }
    assert len(splits.part(dataset, "test")) == 2 * len(splits.questions["test"])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"users": {"train": ["u0"]}}, "leave out 5 users, such as 'u1'"),
        ({"users": {"train": ["nobody"]}}, "no user 'nobody'"),
        ({"users": {"trian": ["u0"]}}, "no split 'trian'; did you mean 'train'"),
        ({"questions": {"train": ["q0"]}}, "leave out 11 questions"),
        ({"user_fractions": {"train": 1, "tset": 1}}, "no split 'tset'; did you mean 'test'"),
        ({"user_fractions": {"train": -1}}, "share of users for train must be zero or more, not -1"),
        ({"question_fractions": {"train": float("nan")}}, "must be zero or more, not nan"),
        ({"question_fractions": {"train": 0}}, "must not all be zero"),
        ({"question_fractions": {"train": float("inf")}}, "must be zero or more, not inf"),
    ],
)
def test_impossible_wishes_are_refused(how: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        make_splits(grid(), seed=0, **how)


def test_too_few_users_for_the_splits_are_counted() -> None:
    with pytest.raises(DataError, match=r"has 2 users, .* at least 3 users, or leave out .* \(validation=0\)"):
        make_splits(grid(users=2), seed=0)
    with pytest.raises(DataError, match=r"has 1 user, .* train, test need .* of at least 2 users\.$"):
        grid(users=1).split()


def test_a_leak_can_not_be_made() -> None:
    with pytest.raises(DataError, match=r"User 'b' is in both train and test, which is a leak \(1 more like it\)"):
        Splits({"train": frozenset("abc"), "test": frozenset("bcd")}, {})
    with pytest.raises(DataError, match="Question 'q' is in both train and validation"):
        Splits({}, {"train": frozenset("q"), "validation": frozenset("q")})


def test_splits_come_back_from_disk(tmp_path: Path) -> None:
    splits = make_splits(grid(), seed=3)
    assert Splits.load(splits.save(tmp_path / "splits.json")) == splits
    assert pickle.loads(pickle.dumps(splits)) == splits


def test_splits_go_with_the_data_that_they_divide(tmp_path: Path) -> None:
    parts = grid().split()
    parts.save(tmp_path)
    parts.whole.save(tmp_path)
    assert SplitDataset.load(tmp_path) == parts
    grid(users=7).save(tmp_path)
    with pytest.raises(StorageError, match=r"splits\.json.* does not exist"):
        SplitDataset.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"users": {}}', '{"users": {"train": "abc"}, "questions": {}}'])
def test_a_file_that_holds_no_splits_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    with pytest.raises(StorageError, match="does not exist"):
        Splits.load(path)
    path.write_text(text)
    with pytest.raises(DataError, match=r"splits\.json must hold"):
        Splits.load(path)


def test_a_part_leaves_out_what_belongs_to_no_split() -> None:
    dataset = grid(users=3, questions=3)
    splits = Splits(
        {"train": frozenset({"u0"}), "test": frozenset({"u1", "gone"})}, {"train": frozenset({"q0", "gone"})}
    )
    assert [(row.user, row.question) for row in splits.part(dataset, "train")] == [("u0", "q0")]
    assert len(splits.part(dataset, "test")) == 0
    assert len(splits.cross(dataset, users="test", questions="train")) == 1
    with pytest.raises(DataError, match="no split 'dev'; the splits are"):
        splits.part(dataset, "dev")  # type: ignore[arg-type]


def test_a_leak_between_datasets_is_found_on_every_side() -> None:
    def one(user: str, prompt: str, question: str) -> PreferenceDataset:
        return PreferenceDataset([User(user)], [Preference(user, prompt, "a", "b", question)])

    train = one("u", "p", "q")
    check_no_leak(train, one("v", "other", "r"))
    with pytest.raises(DataError, match="User 'u' is in training data and test data alike"):
        check_no_leak(train, one("u", "other", "r"))
    with pytest.raises(DataError, match="Question 'q'"):
        check_no_leak(train, one("v", "other", "q"))
    with pytest.raises(DataError, match="Prompt 'p'"):
        check_no_leak(train, one("v", "p", "r"))


def test_a_leak_in_another_spelling_is_a_leak() -> None:
    def one(user: str, prompt: str) -> PreferenceDataset:
        return PreferenceDataset([User(user)], [Preference(user, prompt, "a", "b")])

    train = one("u", "Is it warm?")
    check_no_leak(train, one("v", "Is it warm"))
    for other in ("is it warm?", "Is it  warm?\n", "\uff29s it warm\uff1f", "Is it warm?"):
        with pytest.raises(
            DataError, match=r"'Is it warm\?' is in training data and test data alike.* which is a leak"
        ) as caught:
            check_no_leak(train, one("v", other))
        assert "divide the data again with `fspo data split --overwrite`" in str(caught.value)
        assert (f"(there as {other!r}: blanks, case" in str(caught.value)) == (other != "Is it warm?")


@given(st.integers())
def test_spellings_of_one_question_stay_together(seed: int) -> None:
    prompts = [way for n in range(6) for way in (f"What about {n}?", f"WHAT  about {n}? ", f"what about {n}\uff1f")]
    rows = [Preference("u", prompt, f"a{i}", f"b{i}") for i, prompt in enumerate(prompts)]
    dataset = PreferenceDataset([User("u")], rows)
    assert dataset.question_count == 6
    splits = make_splits(dataset, seed=seed, users={"train": ["u"]}, question_fractions={"train": 1, "test": 1})
    assert all(len(ids) == 9 for split, ids in splits.questions.items() if split != "validation")
    check_no_leak(
        PreferenceDataset([User("u")], splits.part(dataset, "train")),
        PreferenceDataset(
            [User("v")], [replace(row, user="v") for row in splits.cross(dataset, users="train", questions="test")]
        ),
    )
