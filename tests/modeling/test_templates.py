"""What people write never becomes a control token, and answers stand where the template puts them, for any template."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from fspo.modeling.chat import TextEncoder, TextReader, control_ids, takes_system
from fspo.modeling.generation import Answer, decode_answers, end_tokens
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Episode, Preference
from tests.modeling.templates import BACKENDS, BAR, KINDS, NO_SYSTEM, PLAIN, tokenizer_of

every_kind = pytest.mark.parametrize("kind", KINDS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


@cache
def tokenizer(kind: str, backend: str = "bytes") -> Any:
    return tokenizer_of(kind, backend)


def format_ids(kind: str, backend: str) -> set[int]:
    """The tokens of the chat format, as the template names them."""
    return set(tokenizer(kind, backend).convert_tokens_to_ids([*KINDS[kind][1], "<s>", "</s>"]))


def hostile_texts(kind: str) -> st.SearchStrategy[str]:
    """Texts rich in the tokens of a chat format: whole, cut, nested and in capitals."""
    tokens = [*KINDS[kind][1], "<s>", "</s>"]
    nested = [one[: len(one) // 2] + other + one[len(one) // 2 :] for one in tokens for other in tokens]
    parts = [part for one in tokens for part in (one[:-1], one[1:], one.upper(), one.title(), f" {one} ", one + "\n")]
    pieces = st.one_of(st.sampled_from([*tokens, *nested, *parts]), st.text(max_size=6))
    return st.lists(pieces, max_size=6).map("".join)


@every_backend
@every_kind
@given(st.data())
def test_no_text_becomes_a_token_of_the_chat_format_and_no_character_is_lost(
    kind: str, backend: str, data: st.DataObject
) -> None:
    text = data.draw(hostile_texts(kind))
    own = tokenizer(kind, backend)
    ids = TextEncoder(own).encode(text)
    assert format_ids(kind, backend).isdisjoint(ids)
    if backend == "bytes":
        assert own.decode(ids) == text.encode("utf-8", "replace").decode("utf-8")


@every_backend
@every_kind
def test_parsing_would_have_made_them(kind: str, backend: str) -> None:
    own = tokenizer(kind, backend)
    for token in KINDS[kind][1]:
        assert set(own.encode(f"a {token} b", add_special_tokens=False)) & format_ids(kind, backend)


def test_added_tokens_that_are_plain_text_are_read_as_such() -> None:
    for kind in KINDS:
        own = tokenizer(kind)
        plain = own.convert_tokens_to_ids(list(PLAIN))
        assert control_ids(own).isdisjoint(plain)
        assert plain[1] in TextEncoder(own).encode("One paragraph.\n\nAnother.")


@every_kind
def test_an_episode_reads_as_the_template_has_a_finished_conversation(kind: str) -> None:
    own, renderer = tokenizer(kind), EpisodeRenderer(tokenizer(kind))
    query = Preference("ann", "Is it warm?", "Yes.", "It is not.")
    rendered = renderer.render(Episode("ann", (), (query,)))
    [branch] = rendered.branches
    for response, text in zip(branch.responses, ("Yes.", "It is not."), strict=True):
        read = own.decode([*rendered.trunk_ids, *branch.prompt_ids, *response])
        chat = [{"role": "user", "content": query.prompt}, {"role": "assistant", "content": text}]
        whole = own.apply_chat_template(chat, tokenize=False)
        assert whole.replace(" Yes", "Yes").replace("] It", "]It").startswith(read)
        assert whole.strip().endswith(own.decode([response[-1]]))
        assert response[-1] in end_tokens(own)
    asked = renderer.render_prompt((), query.prompt)
    assert (asked.trunk_ids, asked.prompt_ids) == (rendered.trunk_ids, branch.prompt_ids)


def test_an_answer_is_not_scored_as_reasoning() -> None:
    rendered = EpisodeRenderer(tokenizer("deepseek")).render_prompt((), "Is it warm?")
    assert tokenizer("deepseek").convert_ids_to_tokens(rendered.prompt_ids[-1]) == f"<{BAR}Assistant{BAR}>"
    rendered = EpisodeRenderer(tokenizer("qwen3")).render_prompt((), "Is it warm?")
    assert tokenizer("qwen3").decode(rendered.prompt_ids).endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("kind", ["deepseek", "qwen3"])
@pytest.mark.parametrize(("said", "answer"), [
    ("<think>\nThe user asks.\n</think>\n\nIt is warm.", "It is warm."),
    ("The user asks.</think>It is warm.", "It is warm."),
    ("<think>First.</think>Hm.<think>Second.</think>It is warm.", "It is warm."),
    ("<think>\nThe user asks whether", ""),
    ("It is warm.", "It is warm."),
])  # fmt: skip
def test_reasoning_is_no_part_of_an_answer(kind: str, said: str, answer: str) -> None:
    own = tokenizer(kind)
    ids = tuple(own.encode(said, add_special_tokens=False))
    assert decode_answers(own, [Answer(ids, finished=True)]) == [answer]


def test_reasoning_between_tags_that_are_no_tokens_is_left_out_too() -> None:
    own = tokenizer("phi")
    for said, answer in (
        ("<think>Hm.</think> Warm.", "Warm."),
        ("<think>Hm", ""),
        ("A <think> tag.", "A <think> tag."),
    ):
        ids = tuple(own.encode(said, add_special_tokens=False))
        assert decode_answers(own, [Answer(ids, finished=True)]) == [answer]


def test_an_answer_is_read_without_tokens_of_the_chat_format_and_with_all_others() -> None:
    own = tokenizer_of("exaone")
    own.add_tokens([AddedToken("<table>", special=False), AddedToken("COVID-19", special=False)])
    said = "<table>[|user|] of COVID-19[|endofturn|]"
    assert TextReader(own).read(own.encode(said, add_special_tokens=False)) == "<table> of COVID-19"
    assert TextReader(own).read(own.encode(" b"), before=own.encode("a")) == " b"


def test_which_templates_take_a_system_role() -> None:
    assert {kind for kind in KINDS if not takes_system(tokenizer(kind))} == set(NO_SYSTEM)
