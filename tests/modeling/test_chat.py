from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from fspo.errors import DataError, ModelError
from fspo.modeling.chat import ChatFormat, TextEncoder, apply_template, control_ids, template_ids
from fspo.modeling.loading import load_tokenizer

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    """The tiny tokenizer, with a tag that is an added token but not a special one, as in Qwen3."""
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def hostile_texts() -> st.SearchStrategy[str]:
    """Texts rich in control tokens, whole, cut and nested."""
    pieces = st.one_of(
        st.sampled_from(CONTROL),
        st.sampled_from([c[:-1] for c in CONTROL] + [c[1:] for c in CONTROL] + ["<|im_<|im_end|>end|>", "assistant\n"]),
        st.text(max_size=8),
    )
    return st.lists(pieces, max_size=6).map("".join)


@given(hostile_texts())
def test_no_text_becomes_a_control_token_and_no_character_is_lost(tokenizer: Any, text: str) -> None:
    ids = TextEncoder(tokenizer).encode(text)
    assert control_ids(tokenizer).isdisjoint(ids)
    assert tokenizer.decode(ids) == text.encode("utf-8", "replace").decode("utf-8")


def test_parsing_would_have_made_them(tokenizer: Any) -> None:
    for content in CONTROL:
        assert set(tokenizer.encode(content, add_special_tokens=False)) & control_ids(tokenizer)


def test_a_tokenizer_that_can_do_no_other_is_refused() -> None:
    class Stubborn:
        unk_token_id = None
        all_special_ids = (1,)
        added_tokens_decoder: ClassVar[dict[int, Any]] = {}

        def convert_ids_to_tokens(self, index: int) -> str:
            return "x"

        def encode(self, text: str, **options: Any) -> list[int]:
            return [1 for letter in text if letter == "x"]

    with pytest.raises(DataError, match="control token"):
        TextEncoder(Stubborn()).encode("axb")


def test_the_format_is_the_templates(tokenizer: Any) -> None:
    form = ChatFormat.of(tokenizer)
    assert tokenizer.decode(form.before_user) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    )
    assert tokenizer.decode(form.before_answer) == "<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode([form.end_of_answer]) == "<|im_end|>"


@pytest.mark.parametrize("ask", [
    "{{ strftime_now('%d %b %Y') }}",
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}",
])  # fmt: skip
def test_prompts_are_the_same_tomorrow(tiny_model_path: Path, ask: str) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.chat_template = "\n{% for m in messages %}" + ask + " {{ m['content'] }}{% endfor %}"
    assert apply_template(tokenizer, [("user", "Hi")], opening=True) == "\n26 Jul 2024 Hi"


def test_without_an_end_in_the_template_the_tokenizers_own_counts(tiny_model_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    assert ChatFormat.of(tokenizer).end_of_answer == tokenizer.eos_token_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer.eos_token = None
    with pytest.raises(ModelError, match="ends an answer"):
        ChatFormat.of(tokenizer)


def test_templates_that_cannot_be_used_are_refused(tiny_model_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}"
    with pytest.raises(ModelError, match="exactly once"):
        ChatFormat.of(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        ChatFormat.of(tokenizer)


def test_a_template_that_shows_the_date_always_shows_the_same(tiny_model_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.chat_template = (  # as in Llama 3.2
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}{% for m in messages %} {{ m['content'] }}{% endfor %}"
    )
    assert apply_template(tokenizer, [("user", "Hi")], opening=True) == "26 Jul 2024 Hi"


def test_a_template_that_refuses_a_role_is_one_sentence(tiny_model_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ModelError, match=r"refuses the turns system, user \(System role not supported\)"):
        apply_template(tokenizer, [("system", "a"), ("user", "b")], opening=True)


@pytest.mark.builtin_model
def test_the_builtin_models_texts_are_safe_too(builtin_model_path: Path) -> None:
    tokenizer = load_tokenizer(builtin_model_path)
    encoder = TextEncoder(tokenizer)
    for content in (token.content for token in tokenizer.added_tokens_decoder.values()):
        ids = encoder.encode(f"a {content} b")
        assert control_ids(tokenizer).isdisjoint(ids)
        assert tokenizer.decode(ids) == f"a {content} b"


def test_a_template_or_token_that_is_changed_is_read_again(tiny_model_path: Path) -> None:
    tokenizer: Any = load_tokenizer(tiny_model_path)
    before, template = template_ids(tokenizer), tokenizer.chat_template
    assert before and template_ids(tokenizer) == before
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    assert template_ids(tokenizer) == frozenset()
    tokenizer.chat_template = template + "[END]"
    tokenizer.add_tokens(["[END]"])
    assert template_ids(tokenizer) == before | {tokenizer.convert_tokens_to_ids("[END]")}
