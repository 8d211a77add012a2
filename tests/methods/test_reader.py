"""Episodes of readers, and what the table of readers finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fspo.errors import ConfigError, DataError
from fspo.methods.reader import TrainingUsers, index_users
from fspo.methods.reader_table import READERS, ReaderRow, reader_class
from fspo.preferences.types import Preference

QUESTIONS = 5


def people() -> TrainingUsers:
    """Three users with two preferences on each of five questions, the last one with three questions alone."""
    rows = [
        Preference(f"u{user}", f"q{question}", f"liked {question} {number}", f"disliked {question}")
        for user in range(3)
        for question in range(QUESTIONS if user < 2 else 3)
        for number in range(2)
    ]
    users, responses, questions = index_users(rows)
    assert len(responses) == len(set(responses)) == len(questions) == 3 * QUESTIONS
    # The only feature is the place of the response.
    return TrainingUsers(torch.arange(float(len(responses)))[:, None], users)


def question_of(users: TrainingUsers, places: torch.Tensor) -> list[list[int]]:
    """The question of each response, by its place: liked, disliked, liked of each question in their order."""
    return [[int(place) // 3 for place in row] for row in places[..., 0]]


def test_shots_and_queries_of_an_episode_are_on_different_questions() -> None:
    users, generator = people(), torch.Generator().manual_seed(0)
    for _ in range(20):
        batch = users.episodes(generator, users=4, shots=2, queries=3)
        assert set(batch.users.tolist()) <= {0, 1}, "the third user has too few questions"
        shots, queries = question_of(users, batch.shots_chosen), question_of(users, batch.chosen)
        for one, other in zip(shots, queries, strict=True):
            assert len({*one, *other}) == 5
        assert question_of(users, batch.rejected) == queries


def test_episodes_depend_on_the_generator_alone() -> None:
    one, same, other = (
        people().episodes(torch.Generator().manual_seed(seed), users=8, shots=1, queries=2) for seed in (0, 0, 1)
    )
    assert torch.equal(one.chosen, same.chosen) and torch.equal(one.shots_rejected, same.shots_rejected)
    assert not torch.equal(one.chosen, other.chosen)


def test_half_of_the_episodes_are_mirrored() -> None:
    plain, mirrored = (
        people().episodes(torch.Generator().manual_seed(0), users=4, shots=2, queries=2, mirror=mirror)
        for mirror in (False, True)
    )
    assert torch.equal(plain.chosen[:2], mirrored.chosen[:2])
    assert torch.equal(plain.chosen[2:], mirrored.rejected[2:])
    assert torch.equal(plain.shots_chosen[2:], mirrored.shots_rejected[2:])


def test_users_with_too_few_questions_are_refused() -> None:
    with pytest.raises(DataError, match=r"episodes of 6 questions.*have at most 5; lower its setting shots,"):
        people().episodes(torch.Generator(), users=1, shots=3, queries=3)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_says_what_it_is(name: str) -> None:
    kind = reader_class(name)
    assert kind.title and kind.description and kind.Settings().model_dump()


def test_all_settings_go_to_the_readers_that_have_them() -> None:
    shared = {"steps": 7, "components": 5}
    assert ReaderRow("np-btl", {}, shared).settings.model_dump()["steps"] == 7
    assert ReaderRow("mean-difference", {}, shared).settings.components == 5
    assert ReaderRow("np-btl", {"steps": 9}, shared).settings.model_dump()["steps"] == 9


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from fspo.methods.reader import Reader\nclass Mine(Reader): title = 'x'", "lacks adapt, fit, rewards, desc"),
        ("class Mine: pass", "is no class of fspo.methods.reader.Reader"),
        ("raise RuntimeError('no')", "can't be imported .RuntimeError: no"),
        ("", "can't be imported"),
    ],
)
def test_code_that_is_no_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    module = f"own_reader_{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        _ = ReaderRow("mine", {"reader": f"{module}:Mine"}).kind


def test_shots_that_a_reader_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match="'gpo' takes at most 4 shots, and the evaluation shows 8"):
        ReaderRow("gpo", {"shots": 4}).check_shots(8)
    with pytest.raises(ConfigError, match="'mean-difference' needs at least 1 shots"):
        ReaderRow("mean-difference", {}).check_shots(0)
    ReaderRow("ridge", {}).check_shots(100)
