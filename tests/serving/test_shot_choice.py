"""Which preferences are shown: the newest label of each pair, a stable core, and what is like the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.preferences.types import Preference
from fspo.serving.shot_choice import choose_shots, usable
from fspo.serving.stored_preferences import StoredPreference


def stored(number: int, prompt: str = "", chosen: str = "", rejected: str = "") -> StoredPreference:
    words = f"w{number % 7} v{number % 5} u{number}"
    preference = Preference("ann", prompt or f"Question {words}?", chosen or f"yes {words}", rejected or f"no {words}")
    return StoredPreference(f"p{number}", preference, number, number)


def many(count: int) -> list[StoredPreference]:
    return [stored(number) for number in range(count)]


def names(shots: list[StoredPreference]) -> list[str]:
    return [shot.id for shot in shots]


def test_the_newest_label_of_a_pair_counts() -> None:
    rows = [
        stored(0, "Drink?", "tea", "coffee"),
        stored(1),
        stored(2, "drink? ", "coffee", "tea"),
        stored(3, "Drink?", "coffee", "tea"),
        stored(4, "Drink?", "tea", "water"),
    ]
    assert names(usable(rows, "Hello")) == ["p1", "p3", "p4"]
    assert names(usable(rows, " DRINK?")) == ["p1"]


def test_all_are_shown_oldest_first_where_all_fit() -> None:
    assert choose_shots(many(9), "x", 9) == many(9)


@given(st.integers(0, 60), st.integers(0, 40), st.text(max_size=20))
def test_no_more_than_fit_are_chosen_each_once_and_the_newest_among_them(count: int, room: int, prompt: str) -> None:
    rows = many(count)
    shots = choose_shots(rows, prompt, room)
    assert len(shots) == min(count, room) == len(set(names(shots)))
    assert not shots or rows[-1] in shots
    assert choose_shots(rows, prompt, room) == shots


@given(st.integers(30, 60), st.integers(8, 24))
def test_the_core_stays_first_for_all_prompts_while_less_than_a_block_is_added(count: int, room: int) -> None:
    block = room // 4
    count = count // block * block
    core = names(choose_shots(many(count), "Question w1 v1?", room))[: room - 2 * block]
    for more in range(block):
        for prompt in ("Question w3?", "v2 v4"):
            assert names(choose_shots(many(count + more), prompt, room))[: len(core)] == core


def test_what_is_like_the_prompt_is_shown_even_if_it_is_old() -> None:
    rows = [stored(0, "How do I prune apple trees?", "Cut in winter.", "Never cut."), *many(60)[1:]]
    assert "p0" in names(choose_shots(rows, "When do I prune my apple trees?", 8))
    assert "p0" not in names(choose_shots(rows, "Question w3 v2?", 8))


def test_the_core_is_of_unlike_preferences() -> None:
    """Forty preferences on films, and four older ones on other matters."""
    topics = enumerate(["tea", "sea", "art", "law"])
    other = [stored(n, f"{topic}?", f"{topic} a{n}", f"{topic} b{n}") for n, topic in topics]
    films = [stored(n, f"A film number {n}?", f"a calm slow film {n}", f"a loud fast film {n}") for n in range(10, 50)]
    shots = names(choose_shots([*other, *films], "A film number 7?", 16))
    assert {"p0", "p1", "p2", "p3"} <= set(shots)


@pytest.mark.parametrize("room", [1, 2, 3])
def test_where_few_fit_the_newest_are_shown(room: int) -> None:
    assert choose_shots(many(20), "x", room) == many(20)[-room:]


@given(st.integers(40, 120), st.integers(8, 24))
def test_what_is_read_of_many_preferences_is_enough_for_the_same_choice(count: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fspo.serving.shot_choice.CANDIDATES", 20)
        rows, older = many(count), max(0, count - 20 - room)
        for prompt in ("Question w3 v2?", ""):
            assert choose_shots(rows[older:], prompt, room, older) == choose_shots(rows, prompt, room)
