from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError, ModelError
from fspo.modeling.chat import control_ids
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Episode, Preference
from tests.modeling.templates import KINDS, NO_SYSTEM, tokenizer_of
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
    labelled = EpisodeRenderer(tokenizer).identity
    assert EpisodeRenderer(tokenizer, layout="conversation").identity != labelled
    assert EpisodeRenderer(tokenizer).identity == labelled
