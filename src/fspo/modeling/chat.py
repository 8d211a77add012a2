"""A tokenizer's chat format, and user text that can't turn into its control tokens.

What belongs to the chat format comes from the tokenizer's template. Any other text is encoded apart from it and never
parsed for control tokens, so that an `<|im_end|>` typed by a user stays ten harmless characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from fspo.errors import DataError, ModelError

__all__ = ["ChatFormat", "TextEncoder", "control_ids", "show_turns"]

_DATE = "26 Jul 2024"
"""The date for templates that show one, so that the same run has the same prompts tomorrow; Llama 3.2's own default."""

_CLOCK = "{% macro strftime_now(format) %}" + _DATE + "{% endmacro %}{{ '' }}"
"""Stops the clock of templates that ask it; the empty expression keeps a line break they may begin with."""


def control_ids(tokenizer: Any) -> frozenset[int]:
    """The ids that mean something to the model beyond their characters: special tokens and tag-like added ones."""
    added = tokenizer.added_tokens_decoder.items()
    tags = {
        index
        for index, token in added
        if token.special or (str(token.content)[:1], str(token.content)[-1:]) == ("<", ">")
    }
    return frozenset(tags | set(tokenizer.all_special_ids))


class TextEncoder:
    """Encodes users' text with `tokenizer`, never into a control token."""

    def __init__(self, tokenizer: Any) -> None:
        """Read the tokenizer's control tokens once."""
        self.tokenizer = tokenizer
        # The unknown token stands for characters the vocabulary lacks; whoever types its name gets the same as for any
        # of those.
        self._forbidden = control_ids(tokenizer) - {tokenizer.unk_token_id}
        self._contents = sorted(
            (str(tokenizer.convert_ids_to_tokens(i)) for i in self._forbidden), key=len, reverse=True
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, none of which is a control token.

        Raises:
            DataError: the tokenizer makes a control token of these very characters, however they are cut.
        """
        ids = self._raw(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        # Some tokenizers keep added tokens whole all the same: cut each one's characters apart.
        pieces = [text]
        for content in self._contents:
            pieces = [part for piece in pieces for part in _cut(piece, content)]
        ids = [index for piece in pieces for index in self._raw(piece)]
        if not self._forbidden.isdisjoint(ids):
            raise DataError(f"The tokenizer reads a control token in the text {text[:60]!r}; remove it from the data.")
        return ids

    def _raw(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids


@dataclass(frozen=True)
class ChatFormat:
    """The control ids around one user message and its answer, read off the tokenizer's chat template once."""

    before_user: tuple[int, ...]
    before_answer: tuple[int, ...]
    end_of_answer: int

    @classmethod
    def of(cls, tokenizer: Any) -> ChatFormat:
        """Read the template of `tokenizer` with a placeholder in the place of every text.

        Raises:
            ModelError: there is no chat template, or it does not keep a user's message in one piece.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                "The tokenizer has no chat template; use an instruction-tuned model, such as the embedded smollm2-135m."
            )
        user, answer = "QUERYPLACE", "ANSWERPLACE"
        asked = show_turns(tokenizer, [("user", user)], opening=True)
        answered = show_turns(tokenizer, [("user", user), ("assistant", answer)], opening=False)
        if asked.count(user) != 1 or answered.count(answer) != 1:
            raise ModelError(
                "The tokenizer's chat template does not show a message exactly once; fspo can't use it safely."
            )
        before, after = asked.split(user)
        return cls(_control(tokenizer, before), _control(tokenizer, after), _end(tokenizer, answered.split(answer)[1]))


def show_turns(tokenizer: Any, turns: Sequence[tuple[str, str]], *, opening: bool) -> str:
    """The text that the chat template makes of turns (role, content), up to an answer's opening if `opening`.

    Raises:
        ModelError: the template refuses these turns, as some do a system role.
    """
    template = tokenizer.get_chat_template()
    try:
        # `enable_thinking` is Qwen3's: an answer is scored and sampled without a hidden monologue. Other templates
        # ignore what they don't know.
        return str(
            tokenizer.apply_chat_template(
                [{"role": role, "content": text} for role, text in turns],
                chat_template=_CLOCK + template if "strftime_now" in template else template,
                tokenize=False,
                add_generation_prompt=opening,
                enable_thinking=False,
                date_string=_DATE,
            )
        )
    except TemplateError as error:
        roles = ", ".join(role for role, _ in turns)
        raise ModelError(
            f"The tokenizer's chat template refuses the turns {roles} ({error}); use another model."
        ) from error


def _cut(text: str, content: str) -> list[str]:
    if len(content) < 2:
        return [text]
    parts = text.split(content)
    pieces = [parts[0]]
    for part in parts[1:]:
        pieces[-1] += content[0]
        pieces.append(content[1:] + part)
    return pieces


def _control(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _end(tokenizer: Any, text: str) -> int:
    for index in _control(tokenizer, text.lstrip())[:1]:
        if index in control_ids(tokenizer):
            return index
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "Neither the chat template nor the tokenizer says which token ends an answer; use another model."
        )
    return int(tokenizer.eos_token_id)
