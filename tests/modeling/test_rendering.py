from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.modeling.chat import control_ids
from fspo.modeling.layouts import LAYOUTS, LayoutName, ShotTemplate
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode
from fspo.preferences.types import Episode, Preference
from tests.modeling.test_chat import hostile_texts

labelled = partial(EpisodeRenderer, layout="labelled")
"""These tests are about the paper's layout; tests/modeling/test_layouts.py is about both."""


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    return load_tokenizer(tiny_model_path)


def preference(number: int) -> Preference:
    return Preference("ann", f"Review film {number}.", f"Good {number}!", f"It was bad, number {number}.")


def episode(shots: int = 3, queries: int = 2) -> Episode:
    numbers = [preference(i) for i in range(shots + queries)]
    return Episode("ann", tuple(numbers[:shots]), tuple(numbers[shots:]), description="I like short answers.")


def preferences() -> st.SearchStrategy[Preference]:
    texts = hostile_texts()
    return st.builds(Preference, st.just("ann"), texts, texts, texts)


@given(st.lists(preferences(), max_size=3), st.lists(preferences(), min_size=1, max_size=2), hostile_texts())
def test_control_tokens_come_from_the_template_only(
    tokenizer: Any, shots: list[Preference], queries: list[Preference], description: str
) -> None:
    renderer = labelled(tokenizer, context="both")
    rendered = renderer.render(Episode("ann", tuple(shots), tuple(queries), description))
    control, form = control_ids(tokenizer), renderer.format
    head = len(form.before_user)
    assert rendered.trunk_ids[:head] == form.before_user
    assert control.isdisjoint(rendered.trunk_ids[head:])
    for branch in rendered.branches:
        tail = len(form.before_answer)
        assert branch.prompt_ids[-tail:] == form.before_answer
        assert control.isdisjoint(branch.prompt_ids[:-tail])
        for response in branch.responses:
            assert response[-1] == form.end_of_answer
            assert control.isdisjoint(response[:-1])


@given(st.integers(0, 4), st.integers(1, 3), st.data())
def test_a_ladder_holds_what_each_number_of_shots_alone_renders(
    tokenizer: Any, shots: int, queries: int, data: st.DataObject
) -> None:
    whole = episode(shots, queries)
    counts = data.draw(st.lists(st.integers(0, shots), min_size=1, unique=True))
    renderer = labelled(tokenizer)
    ladder = renderer.render(whole, shots=counts)
    assert len(ladder.boundaries) == shots + 1
    assert ladder.boundaries[-1] == len(ladder.trunk_ids)
    assert len(ladder.branches) == len(counts) * queries
    for branch in ladder.branches:
        alone = renderer.render(whole.first_shots(branch.shots))
        assert branch.boundary == ladder.boundaries[branch.shots]
        assert ladder.trunk_ids[: branch.boundary] == alone.trunk_ids
        same = alone.branches[branch.query]
        assert (branch.prompt_ids, branch.responses) == (same.prompt_ids, same.responses)


def test_no_shots_leave_the_bare_query(tokenizer: Any) -> None:
    without = labelled(tokenizer, context="none").render(episode())
    ladder = labelled(tokenizer).render(episode(), shots=[0])
    assert without.branches == ladder.branches
    assert without.trunk_ids == ladder.trunk_ids[: ladder.boundaries[0]]
    text = tokenizer.decode([*without.trunk_ids, *without.branches[0].prompt_ids])
    chat = [{"role": "user", "content": "Review film 3."}]
    assert text == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def test_the_words_around_shots_and_queries(tokenizer: Any) -> None:
    template = ShotTemplate(
        introduction="Intro. ",
        shot="[{prompt}|{chosen}|{rejected}]",
        query="Q {prompt}",
        description="D {description} ",
    )
    rendered = labelled(tokenizer, context="both", template=template).render(episode(2, 1))
    form = labelled(tokenizer).format
    assert tokenizer.decode(rendered.trunk_ids[len(form.before_user) :]) == (
        "D I like short answers. Intro. [Review film 0.|Good 0!|It was bad, number 0.]"
        "[Review film 1.|Good 1!|It was bad, number 1.]"
    )
    assert tokenizer.decode(rendered.branches[0].prompt_ids[: -len(form.before_answer)]) == "Q Review film 2."
    assert [tokenizer.decode(response[:-1]) for response in rendered.branches[0].responses] == [
        "Good 2!",
        "It was bad, number 2.",
    ]


def test_braces_in_a_users_text_are_text(tokenizer: Any) -> None:
    shot = Preference("ann", "{chosen} {0} {", "{rejected}", "}")
    asked = labelled(tokenizer, template=ShotTemplate(introduction="")).render_prompt([shot], "x")
    assert tokenizer.decode(asked.trunk_ids).endswith("Question: {chosen} {0} {\nLiked: {rejected}\nDisliked: }\n\n")


@pytest.mark.parametrize(("context", "shown", "described"), [
    ("none", False, False), ("shots", True, False), ("description", False, True), ("both", True, True),
])  # fmt: skip
def test_the_context_says_what_is_told(tokenizer: Any, context: Any, shown: bool, described: bool) -> None:
    rendered = labelled(tokenizer, context=context).render(episode(), shots=[0, 3])
    text = tokenizer.decode(rendered.trunk_ids)
    assert ("Review film 0." in text, "short answers" in text) == (shown, described)
    assert len(rendered.branches) == (4 if shown else 2)


def lengths(rendered: TokenizedEpisode) -> list[int]:
    return [branch.boundary + len(branch.prompt_ids) + max(map(len, branch.responses)) for branch in rendered.branches]


@given(st.integers(0, 500))
def test_too_long_an_episode_loses_whole_shots_oldest_first(tokenizer: Any, limit: int) -> None:
    whole = episode(5, 2)
    full = labelled(tokenizer).render(whole)
    shortest = max(lengths(labelled(tokenizer).render(whole.first_shots(0))))
    renderer = labelled(tokenizer, max_length=limit)
    if limit < shortest:
        with pytest.raises(DataError, match="user 'ann'"):
            renderer.render(whole)
        return
    try:
        rendered = renderer.render(whole)
    except DataError:  # the words before the query of an episode with shots may be what is too long
        assert limit < shortest + 20
        return
    assert max(lengths(rendered)) == rendered.longest <= limit
    assert rendered.dropped_shots == 0 or max(lengths(full)) > limit
    left = Episode("ann", whole.shots[rendered.dropped_shots :], whole.queries)
    assert rendered.trunk_ids == labelled(tokenizer).render(left).trunk_ids


def test_a_ladder_over_dropped_shots_counts_those_that_are_left(tokenizer: Any) -> None:
    whole = episode(5, 1)
    limit = max(lengths(labelled(tokenizer).render(whole.first_shots(3)))) + 1
    rendered = labelled(tokenizer, max_length=limit).render(whole, shots=[0, 1, 5])
    kept = 5 - rendered.dropped_shots
    assert 0 < kept < 5
    assert [branch.shots for branch in rendered.branches] == [0, 1, kept]


def test_a_prompt_to_answer_is_rendered_as_a_query_is(tokenizer: Any) -> None:
    whole = episode(3, 1)
    for context in ("none", "shots", "description", "both"):
        renderer = labelled(tokenizer, context=context)  # type: ignore[arg-type]
        rendered = renderer.render(whole)
        asked = renderer.render_prompt(whole.shots, whole.queries[0].prompt, whole.description)
        assert (asked.trunk_ids, asked.prompt_ids) == (rendered.trunk_ids, rendered.branches[0].prompt_ids)
        mirror = renderer.render(whole.flip_shots()).trunk_ids if context in ("shots", "both") else None
        assert asked.mirror_trunk_ids == mirror


def test_a_prompt_leaves_room_for_its_answer_and_says_what_that_cost(tokenizer: Any) -> None:
    shots = episode(4).shots
    unlimited = labelled(tokenizer)
    whole = unlimited.render_prompt(shots, "Hello")
    limit = len(whole.trunk_ids) + len(whole.prompt_ids) + 10
    renderer = labelled(tokenizer, max_length=limit)
    assert renderer.render_prompt(shots, "Hello", reserve=10) == whole
    shorter = renderer.render_prompt(shots, "Hello", reserve=11)
    assert shorter == replace(unlimited.render_prompt(shots[1:], "Hello"), dropped_shots=1)
    room = limit - len(unlimited.format.before_user) - len(whole.prompt_ids)
    bare = renderer.render_prompt(shots, "Hello", reserve=room)
    assert bare == replace(unlimited.render_prompt((), "Hello"), dropped_shots=4)
    assert bare.mirror_trunk_ids is None
    with pytest.raises(DataError, match="prompt"):
        renderer.render_prompt(shots, "Hello", reserve=limit)


@given(st.integers(60, 400))
def test_an_episode_and_its_mirror_show_the_same_shots(tokenizer: Any, limit: int) -> None:
    renderer = labelled(tokenizer, max_length=limit)
    # The first shot is a token longer one way than the other.
    lopsided = Preference("ann", "Review film 9.", "a b" * 9, "Good!")
    whole = replace(episode(4, 1), shots=(lopsided, *episode(4, 1).shots))
    try:
        trimmed, dropped = renderer.trim(whole)
    except DataError:
        return
    assert trimmed.shots == whole.shots[dropped:]
    assert renderer.render(trimmed).dropped_shots == renderer.render(trimmed.flip_shots()).dropped_shots == 0
    asked = renderer.render_prompt(whole.shots, "Hello")
    left = len(whole.shots) - asked.dropped_shots
    mirror = labelled(tokenizer).render_prompt([s.swap() for s in whole.shots[asked.dropped_shots :]], "Hello")
    assert asked.mirror_trunk_ids == (mirror.trunk_ids if left else None)


def test_mirrored_shots_cost_the_same_room(tokenizer: Any) -> None:
    renderer = labelled(tokenizer)
    assert renderer.render(episode()).tokens == renderer.render(episode().mirror()).tokens


def test_room_that_is_kept_free_costs_shots_and_no_query(tokenizer: Any) -> None:
    whole = episode(3, 1)
    shortest = max(lengths(labelled(tokenizer).render(whole.first_shots(0))))
    renderer = labelled(tokenizer, max_length=labelled(tokenizer).render(whole).longest)
    assert renderer.trim(whole) == (whole, 0)
    kept, dropped = renderer.trim(whole, reserve=9)
    assert (len(kept.shots), dropped) == (2, 1)
    bare, all_dropped = replace(renderer, max_length=shortest + 30).trim(whole, reserve=40)
    assert (bare.shots, all_dropped) == ((), 3)
    with pytest.raises(DataError):
        replace(renderer, max_length=shortest - 1).trim(whole)


@pytest.mark.builtin_model
def test_where_the_introduction_changes_how_a_shot_is_split_nothing_overruns_the_limit(
    builtin_model_path: Path,
) -> None:
    renderer = labelled(load_tokenizer(builtin_model_path), remembered=100)
    introduction, shot = ShotTemplate().introduction, ShotTemplate().render_shot(preference(0), first=False)
    apart = len(renderer.render_response(introduction)) + len(renderer.render_response(shot)) - 1
    assert len(renderer.render_response(introduction + shot)) > apart, "this tokenizer shows nothing"
    whole = episode(5, 2)
    for limit in range(70, 260):
        limited = renderer._with(max_length=limit)
        assert limited.render(whole).longest <= limit
        trimmed, dropped = limited.trim(whole)
        assert len(trimmed.shots) == 5 - dropped
        assert limited.render(trimmed).dropped_shots == limited.render(trimmed.flip_shots()).dropped_shots == 0
        asked = limited.render_prompt(whole.shots, "Hello", reserve=9)
        assert len(asked.trunk_ids) + len(asked.prompt_ids) + 9 <= limit


@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_that_are_remembered_have_the_same_ids(tokenizer: Any, layout: LayoutName) -> None:
    fresh, remembering = (EpisodeRenderer(tokenizer, "both", layout=layout, remembered=size) for size in (0, 50))
    whole = episode(3, 2)
    # As a query and as a shot, first and later, described and not, and again.
    for shown in (whole, replace(whole, shots=whole.shots[::-1], description=""), whole.first_shots(0), whole):
        for one in (shown, replace(shown, queries=shown.shots[:1] or shown.queries)):
            assert remembering.render(one) == fresh.render(one)
            assert remembering.render_twins(one) == fresh.render_twins(one)


def test_other_words_around_shots_make_another_identity(tokenizer: Any) -> None:
    usual = labelled(tokenizer)
    same = labelled(tokenizer)
    others = [
        labelled(tokenizer, template=replace(ShotTemplate(), **{name: text}))
        for name, text in (("introduction", "Look:\n"), ("query", "Question: {prompt}"), ("describe", "Who am I?"))
    ]
    others += [labelled(tokenizer, context="both"), labelled(tokenizer, max_length=900)]

    assert usual.identity == same.identity
    assert len({usual.identity, *(other.identity for other in others)}) == 1 + len(others)


@given(st.integers(60, 400), st.sampled_from(["", "Someone who likes short answers."]))
def test_twins_are_what_each_alone_would_be_with_the_same_shots(tokenizer: Any, limit: int, description: str) -> None:
    renderer = labelled(tokenizer, context="both", max_length=limit)
    lopsided = Preference("ann", "Review film 9.", "a b" * 9, "Good!")
    whole = replace(episode(4, 2), shots=(lopsided, *episode(4, 1).shots), description="Likes films.")
    try:
        trimmed, dropped = renderer.trim(whole, description)
    except DataError:
        with pytest.raises(DataError):
            renderer.render_twins(whole, description)
        return
    for ladder in (None, (1, 2)):
        plain, mirrored = renderer.render_twins(whole, description, shots=ladder)
        assert plain == replace(renderer.render(trimmed, shots=ladder), dropped_shots=dropped)
        other = replace(trimmed.flip_shots(), description=description)
        assert mirrored == replace(renderer.render(other, shots=ladder), dropped_shots=dropped)
