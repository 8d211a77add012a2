from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fspo.errors import ConfigError, ModelError
from fspo.modeling.chat import control_ids
from fspo.modeling.layouts import LAYOUTS, LayoutName
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Episode, Preference, Turn
from tests.modeling.templates import KINDS, NO_SYSTEM, PUBLISHED, SPLITTING, tokenizer_of
from tests.modeling.test_chat import hostile_texts


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    return load_tokenizer(tiny_model_path)


def preference(number: int) -> Preference:
    return Preference("ann", f"Review film {number}.", f"Good {number}!", f"It was bad, number {number}.")


def messages(shots: list[Preference], prompt: str, answer: str, system: str = "") -> list[dict[str, str]]:
    turns = [("system", system)] if system else []
    for shot in shots:
        turns += [("user", shot.prompt), ("assistant", shot.chosen)]
    return [{"role": role, "content": text} for role, text in [*turns, ("user", prompt), ("assistant", answer)]]


@pytest.mark.parametrize("shots", [0, 1, 3])
@pytest.mark.parametrize("system", ["", "I like short answers."])
def test_the_ids_are_those_of_the_chat_template_on_the_same_messages(tokenizer: Any, shots: int, system: str) -> None:
    renderer = EpisodeRenderer(tokenizer, context="both", layout="conversation")
    known, query = [preference(number) for number in range(shots)], preference(9)
    rendered = renderer.render(Episode("ann", tuple(known), (query,), system))
    [branch] = rendered.branches
    for response, text in zip(branch.responses, (query.chosen, query.rejected), strict=True):
        ids = [*rendered.trunk_ids, *branch.prompt_ids, *response]
        whole = tokenizer.apply_chat_template(messages(known, query.prompt, text, system), return_dict=False)
        assert whole[: len(ids)] == ids
        assert not tokenizer.decode(whole[len(ids) :]).strip()


TALK = (Turn("user", "Hi?"), Turn("assistant", "Yes, it is warm."), Turn("user", "And now?"))
PROMPTS: tuple[tuple[Turn, ...], ...] = (
    (Turn("user", "Is the cast brilliant?"),),
    (Turn("user", "10 words (or more)."),),
    (Turn("system", "Be brilliant!"), *TALK),
)
SHOTS = (
    Preference("ann", "Is the film warm?", "Yes, it is wonderful!", "No (not at all): it's far too long...\n\n- dull"),
    Preference("ann", "2 or 3 books?", "3.\nOr 2?", 'the book "Brilliant"'),
    Preference.after("ann", TALK, "[a] list\n- one\n- two", "none"),
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", SPLITTING)
@pytest.mark.parametrize("kind", [*KINDS, *PUBLISHED])
def test_a_server_that_is_given_the_messages_reads_the_ids(kind: str, backend: str, layout: LayoutName) -> None:
    own = tokenizer_of(kind, backend, plain=())
    renderer = EpisodeRenderer(own, context="both", layout=layout)
    for prompt, count, told in product(PROMPTS, (0, 2, len(SHOTS)), ("", "I loved every minute!")):
        rendered = renderer.render_prompt(SHOTS[:count], prompt, told)
        asked = own.apply_chat_template(
            renderer.messages(SHOTS[:count], prompt, told),
            add_generation_prompt=True,
            enable_thinking=False,
            return_dict=False,
        )
        if kind == "deepseek":  # asks for reasoning, which the policy is neither trained on nor asked for
            asked = asked[: -len(own.encode("<think>\n", add_special_tokens=False))]
        assert [*rendered.trunk_ids, *rendered.prompt_ids] == asked, (prompt, count, told)
        # The trunk is that of every query, and a boundary cuts it where its shots end.
        query = Preference.after("ann", prompt, "Yes.", "No.")
        ladder = renderer.render(Episode("ann", SHOTS, (query,), told), shots=[count])
        [branch] = ladder.branches
        assert [*ladder.trunk_ids[: branch.boundary], *branch.prompt_ids] == asked


def test_messages_leave_out_what_has_no_room(tokenizer: Any) -> None:
    shots = [preference(number) for number in range(4)]
    whole = EpisodeRenderer(tokenizer, layout="conversation").render_prompt(shots, "Review film 9.")
    assert whole.mirror_trunk_ids is not None
    longest = max(map(len, (whole.trunk_ids, whole.mirror_trunk_ids))) + len(whole.prompt_ids)
    narrow = EpisodeRenderer(tokenizer, layout="conversation", max_length=longest + 9)
    assert len(narrow.messages(shots, "Review film 9.", reserve=9)) == 9
    assert narrow.messages(shots, "Review film 9.", reserve=10) == narrow.messages(shots[1:], "Review film 9.")
    bare = EpisodeRenderer(tokenizer, context="none", layout="conversation")
    assert bare.messages(shots, "Review film 9.", "Short.") == [{"role": "user", "content": "Review film 9."}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_reads_as_any_chat_template_writes_it(kind: str) -> None:
    own = tokenizer_of(kind)
    known, query = [preference(0), preference(1)], preference(9)
    rendered = EpisodeRenderer(own, layout="conversation").render(Episode("ann", tuple(known), (query,)))
    [branch] = rendered.branches
    read = own.decode([*rendered.trunk_ids, *branch.prompt_ids, *branch.responses[0]])
    whole = own.apply_chat_template(messages(known, query.prompt, query.chosen), tokenize=False, enable_thinking=False)
    assert whole.replace(" ", "").startswith(read.replace(" ", ""))


@given(st.lists(st.builds(Preference, st.just("ann"), *[hostile_texts()] * 3), max_size=3), hostile_texts())
def test_no_text_of_a_shot_opens_or_closes_a_turn(tokenizer: Any, shots: list[Preference], prompt: str) -> None:
    renderer = EpisodeRenderer(tokenizer, layout="conversation")
    control = control_ids(tokenizer)
    plain = renderer.render_prompt([Preference("ann", "a", "b", "c")] * len(shots), "d")
    hostile = renderer.render_prompt(shots, prompt)

    def turns(ids: tuple[int, ...]) -> list[int]:
        return [index for index in ids if index in control]

    assert turns(hostile.trunk_ids) == turns(plain.trunk_ids)
    assert turns(hostile.prompt_ids) == turns(plain.prompt_ids)


def test_a_ladder_holds_what_each_number_of_shots_alone_renders(tokenizer: Any) -> None:
    renderer = EpisodeRenderer(tokenizer, layout="conversation")
    shots = tuple(preference(number) for number in range(4))
    ladder = renderer.render(Episode("ann", shots, (preference(9),)), shots=(0, 1, 3, 4))
    for branch in ladder.branches:
        alone = renderer.render(Episode("ann", shots[: branch.shots], (preference(9),)))
        assert ladder.trunk_ids[: branch.boundary] == alone.trunk_ids
        assert (branch.prompt_ids, branch.responses) == (alone.branches[0].prompt_ids, alone.branches[0].responses)


def test_the_mirror_is_the_conversation_with_the_disliked_answers(tokenizer: Any) -> None:
    renderer = EpisodeRenderer(tokenizer, layout="conversation")
    shots = [preference(0), preference(1)]
    rendered = renderer.render_prompt(shots, "Review film 9.")
    other = renderer.render_prompt([shot.swap() for shot in shots], "Review film 9.")
    assert rendered.mirror_trunk_ids == other.trunk_ids != rendered.trunk_ids
    text = tokenizer.decode(rendered.trunk_ids)
    assert shots[0].chosen in text and shots[0].rejected not in text
    assert shots[0].rejected in tokenizer.decode(rendered.mirror_trunk_ids)


def test_too_long_a_conversation_loses_whole_turns_oldest_first(tokenizer: Any) -> None:
    shots = tuple(preference(number) for number in range(4))
    whole = EpisodeRenderer(tokenizer, layout="conversation").render(Episode("ann", shots, (preference(9),)))
    narrow = EpisodeRenderer(tokenizer, layout="conversation", max_length=whole.longest - 1)
    rendered = narrow.render(Episode("ann", shots, (preference(9),)))
    assert rendered.dropped_shots == 1
    alone = narrow.render(Episode("ann", shots[1:], (preference(9),)))
    assert rendered.trunk_ids == alone.trunk_ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_a_system_message_or_stands_before_the_first_question(kind: str) -> None:
    own, told = tokenizer_of(kind), "I like short answers."
    renderer = EpisodeRenderer(own, context="both", layout="conversation")
    text = own.decode(renderer.render_prompt([preference(0)], "Review film 9.", told).trunk_ids)
    assert text.count(told) == 1 and text.index(told) < text.index("film 0")
    if kind in NO_SYSTEM:
        bare = own.decode(renderer.render_prompt([preference(0)], "Review film 9.").trunk_ids)
        assert text.replace(f"{told}\n\n", "") == bare


def test_a_description_is_asked_for_after_the_conversation(tokenizer: Any) -> None:
    shown = EpisodeRenderer(tokenizer, layout="conversation").render_describing([preference(0)])
    assert tokenizer.decode(shown.prompt_ids).startswith("Say in one sentence what I like")


def test_a_template_without_earlier_turns_is_refused(tiny_model_path: Path) -> None:
    own = load_tokenizer(tiny_model_path)
    own.chat_template = (
        "{% for message in messages[-2:] %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    with pytest.raises(ModelError, match="labelled"):
        EpisodeRenderer(own, layout="conversation")


def test_a_template_that_numbers_its_turns_is_refused(tiny_model_path: Path) -> None:
    own = load_tokenizer(tiny_model_path)
    own.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' ~ loop.index ~ '\\n' + "
        "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    with pytest.raises(ModelError, match="labelled"):
        EpisodeRenderer(own, layout="conversation")


def test_an_unknown_layout_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="conversation"):
        EpisodeRenderer(tokenizer, layout="table")  # type: ignore[arg-type]


def test_layouts_have_identities_of_their_own(tokenizer: Any) -> None:
    conversation = EpisodeRenderer(tokenizer).identity
    assert EpisodeRenderer(tokenizer, layout="labelled").identity != conversation
    assert EpisodeRenderer(tokenizer).identity == conversation


TURNS = (
    Turn("system", "Answer in rhyme."),
    Turn("user", "Review film 1."),
    Turn("assistant", "It was fun."),
    Turn("user", "And film 2?"),
)


def chat(turns: Sequence[Turn], answer: str) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in (*turns, Turn("assistant", answer))]


def in_front(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns with the system message in front of the first question."""
    return (Turn("user", f"{turns[0].text}\n\n{turns[1].text}"), *turns[2:])


@pytest.mark.parametrize("turns", [TURNS, TURNS[1:], (TURNS[0], TURNS[3])])
@pytest.mark.parametrize("context", ["none", "shots"])
def test_the_ids_of_a_conversation_are_those_of_the_chat_template(
    tokenizer: Any, turns: tuple[Turn, ...], context: Any
) -> None:
    renderer = EpisodeRenderer(tokenizer, context=context, layout="conversation")
    query = Preference.after("ann", turns, "Good!", "Bad!")
    rendered = renderer.render(Episode("ann", (), (preference(3), query)))
    branch = rendered.branches[1]
    ids = [*rendered.trunk_ids[: branch.boundary], *branch.prompt_ids, *branch.responses[0]]
    whole = tokenizer.apply_chat_template(chat(turns, "Good!"), return_dict=False)
    assert whole[: len(ids)] == ids and not tokenizer.decode(whole[len(ids) :]).strip()
    asked = renderer.render_prompt((), query.messages)
    assert [*asked.trunk_ids, *asked.prompt_ids, *branch.responses[0]] == ids
    assert renderer.bare_length(query) == len(ids) - len(branch.responses[0]) + max(map(len, branch.responses))


@pytest.mark.parametrize("kind", KINDS)
def test_earlier_turns_read_as_any_chat_template_writes_them(kind: str) -> None:
    own = tokenizer_of(kind)
    renderer, shot = EpisodeRenderer(own, layout="conversation"), Preference.after("ann", TURNS, "Good!", "Bad!")
    for shots, turns in (((), TURNS), ((shot,), TURNS[1:])):
        query = Preference.after("ann", turns, "Fine!", "Poor!")
        rendered = renderer.render(Episode("ann", shots, (query,)))
        [branch] = rendered.branches
        read = own.decode([*rendered.trunk_ids[: branch.boundary], *branch.prompt_ids, *branch.responses[0]])
        shown = in_front(turns) if kind in NO_SYSTEM and turns[0].role == "system" else turns
        if shots:
            shown = (*in_front(TURNS), Turn("assistant", "Good!"), *turns)
        whole = own.apply_chat_template(chat(shown, "Fine!"), tokenize=False, enable_thinking=False)
        assert whole.replace(" ", "").startswith(read.replace(" ", ""))


def test_a_ladder_shows_the_system_message_in_its_role_only_without_shots(tokenizer: Any) -> None:
    renderer, query = EpisodeRenderer(tokenizer, layout="conversation"), Preference.after("ann", TURNS, "Good!", "Bad!")
    rendered = renderer.render(Episode("ann", (preference(1), preference(2)), (query,)), shots=(0, 2))
    bare, full = rendered.branches
    assert bare.boundary <= rendered.boundaries[0] and full.boundary == rendered.boundaries[2]
    alone = renderer.render(Episode("ann", (), (query,)))
    assert rendered.trunk_ids[: bare.boundary] + bare.prompt_ids == (
        alone.trunk_ids[: alone.branches[0].boundary] + alone.branches[0].prompt_ids
    )
    assert tokenizer.decode(full.prompt_ids).startswith("Answer in rhyme.\n\nReview film 1.")


def test_no_text_of_a_conversation_becomes_a_turn() -> None:
    own = tokenizer_of(next(iter(KINDS)))
    marks = control_ids(own) - {own.unk_token_id}
    renderers = [EpisodeRenderer(own, layout="labelled"), EpisodeRenderer(own, layout="conversation")]

    def shown(turns: tuple[Turn, ...]) -> list[list[int]]:
        shots = [Preference.after("ann", turns, "a", "b")]
        asked = [renderer.render_prompt(some, turns) for renderer in renderers for some in (shots, [])]
        return [[index for index in (*one.trunk_ids, *one.prompt_ids) if index in marks] for one in asked]

    tame = shown(TURNS)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(hostile_texts().filter(str.strip), min_size=4, max_size=4))
    def check(texts: list[str]) -> None:
        assert shown(tuple(Turn(turn.role, text) for turn, text in zip(TURNS, texts, strict=True))) == tame

    check()


def test_labelled_shots_hold_a_conversation_as_its_transcript(tokenizer: Any) -> None:
    renderer, row = EpisodeRenderer(tokenizer, layout="labelled"), Preference.after("ann", TURNS, "Good!", "Bad!")
    for shots in ((), (row,)):
        asked = renderer.render_prompt(shots, row.messages)
        assert row.prompt in tokenizer.decode([*asked.trunk_ids, *asked.prompt_ids])
