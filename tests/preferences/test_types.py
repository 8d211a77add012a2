from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.preferences.types import Episode, Preference, Role, Turn, User
from tests.preferences.worlds import text


def preference(n: int, user: str = "u") -> Preference:
    return Preference(user, f"prompt {n}", f"good {n}", f"bad {n}", question=f"q{n}", source={"model": "m"})


EPISODE = Episode("u", tuple(map(preference, range(3))), tuple(map(preference, range(3, 7))), "likes good things")


def test_swap_is_its_own_inverse_and_changes_the_label_alone() -> None:
    row = preference(1)
    assert row.swap() == dataclasses.replace(row, chosen="bad 1", rejected="good 1")
    assert row.swap().swap() == row
    assert row.swap().pair == row.pair


def test_mirror_swaps_shots_and_queries_and_flip_swaps_shots_alone() -> None:
    assert EPISODE.mirror().mirror() == EPISODE
    assert EPISODE.mirror().shots == EPISODE.flip_shots().shots == tuple(row.swap() for row in EPISODE.shots)
    assert EPISODE.mirror().queries == tuple(row.swap() for row in EPISODE.queries)
    assert EPISODE.flip_shots().queries == EPISODE.queries
    assert EPISODE.mirror().description == EPISODE.description


def test_split_and_first_shots_divide_without_loss() -> None:
    one, rest = EPISODE.split(1)
    assert one.queries + rest.queries == EPISODE.queries
    assert one.shots == rest.shots == EPISODE.shots
    assert EPISODE.first_shots(2).shots == EPISODE.shots[:2]
    assert EPISODE.with_shots(()).queries == EPISODE.queries


def test_a_question_without_an_id_is_known_by_its_prompt() -> None:
    assert preference(1).question_id == "q1"
    assert Preference("u", "why?", "a", "b").question_id == "why?"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 1),
        lambda d: d.update(a=1),
        lambda d: d.pop("model"),
        lambda d: d.clear(),
        lambda d: d.setdefault("a", 1),
    ],
)
def test_source_and_traits_can_not_be_changed(change: Any) -> None:
    row = preference(1)
    with pytest.raises(TypeError, match="replace"):
        change(row.source)
    assert row.source == {"model": "m"}


def test_the_caller_s_own_dict_stays_the_caller_s() -> None:
    traits = {"length": 1.0}
    user = User("u", traits=traits)
    traits["length"] = 2.0
    assert user.traits == {"length": 1.0}


def test_values_can_be_hashed_copied_pickled_and_written_as_json() -> None:
    assert len({preference(1), preference(1), preference(2)}) == 2
    assert len({EPISODE, EPISODE.mirror().mirror()}) == 1
    assert pickle.loads(pickle.dumps(EPISODE)) == EPISODE
    assert copy.deepcopy(EPISODE) == EPISODE
    assert json.loads(json.dumps(dataclasses.asdict(preference(1))))["source"] == {"model": "m"}
    assert pickle.loads(pickle.dumps(User("u", traits={"a": 1.0}))) == User("u", traits={"a": 1.0})


LINE_ENDS = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"


@given(st.lists(text, min_size=3, max_size=5).filter(lambda texts: len(texts) % 2 == 1), st.booleans())
def test_a_transcript_tells_its_turns_apart_whatever_is_in_them(texts: list[str], system: bool) -> None:
    texts = [f"{one}\nUser: {one}\u2028Assistant: no." for one in texts]
    roles: tuple[Role, ...] = ("user", "assistant")
    turns = tuple(Turn(roles[place % 2], one) for place, one in enumerate(texts))
    turns = (Turn("system", texts[0]), *turns) if system else turns
    parts = re.split(r"\n(?=(?:System|User|Assistant): )", Preference.after("ann", turns, "so", "thus").prompt)
    pairs = [part.partition(": ") for part in parts]
    said = [(role.lower(), re.sub(f"({LINE_ENDS})  ", r"\1", body)) for role, _, body in pairs]
    assert said == [(turn.role, turn.text) for turn in turns]


def test_a_prompt_of_one_message_is_text_however_it_is_given() -> None:
    assert Preference.after("ann", (Turn("user", "why?"),), "so", "thus") == Preference("ann", "why?", "so", "thus")
    with pytest.raises(DataError, match="must be the transcript of its turns"):
        Preference(
            "ann", "why?", "so", "thus", turns=(Turn("user", "how?"), Turn("assistant", "so"), Turn("user", "?"))
        )


def test_a_label_says_how_probably_it_is_wrong() -> None:
    row = preference(1)
    assert row.label_noise == dataclasses.replace(row, source={"label_noise": None}).label_noise == 0.0
    assert row.with_noise(0.2).label_noise == row.with_noise(0.2).swap().label_noise == 0.2
    assert row.with_noise(0.2).source == {"model": "m", "label_noise": 0.2}


def test_a_cell_of_a_csv_says_how_probably_a_label_is_wrong() -> None:
    for cell, noise in (("0.1", 0.1), (" ", 0.0)):
        assert dataclasses.replace(preference(1), source={"label_noise": cell}).label_noise == noise


@pytest.mark.parametrize("noise", [0.5, -0.1, "0.7", "little", True, float("nan")])
def test_a_label_can_not_be_wrong_more_often_than_right(noise: Any) -> None:
    row = dataclasses.replace(preference(1), source={"label_noise": noise})
    with pytest.raises(DataError, match="user 'u' on 'prompt 1' has label_noise"):
        _ = row.label_noise
