"""A tokenizer's chat format, and user text that can't turn into its control tokens.

What belongs to the chat format comes from the tokenizer's template. Any other text has the ids that the template gives
it, unless these hold a control token: an `<|im_end|>` typed by a user stays ten harmless characters.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from fspo.errors import DataError, ModelError

__all__ = [
    "ChatFormat",
    "Frame",
    "TextEncoder",
    "TextReader",
    "TurnEncoder",
    "apply_template",
    "control_ids",
    "need_chat_template",
    "takes_system",
    "template_ids",
]

_DATE = "26 Jul 2024"
"""The date for templates that show one, so that the same run has the same prompts tomorrow; Llama 3.2's own default."""

_CLOCK = "{% macro strftime_now(format) %}" + _DATE + "{% endmacro %}{{ '' }}"
"""Stops the clock of templates that ask it; the empty expression keeps a line break they may begin with."""

_PLACE = re.compile("TEXTPLACE[0-9]+X")
"""Stands for a text while the template is read."""

_CONVERSATIONS: tuple[tuple[str, ...], ...] = (
    ("user",),
    ("user", "assistant"),
    ("system", "user", "assistant"),
    ("user", "assistant", "user", "assistant"),
)
"""Roles of the conversations that are shown to a template to see which tokens it writes."""

_THOUGHT = "think|thinking|thought|reasoning"
_OPENS, _CLOSES = (re.compile(rf"\W{slash}(?:{_THOUGHT})\W", re.IGNORECASE) for slash in ("", "/"))
"""A token around reasoning, whichever brackets it has."""
_SPELT_OUT = re.compile(rf"\A\s*<({_THOUGHT})>.*?(?:</\1>|\Z)", re.DOTALL)
"""Reasoning in front of an answer, between tags that are no tokens."""


def control_ids(tokenizer: Any) -> frozenset[int]:
    """The ids that mean something to the model beyond their characters.

    These are the special tokens, the added tokens that look like a tag, such as `<think>` or `[INST]`, and the added
    tokens that the chat template writes, whatever they look like.
    """
    added = tokenizer.added_tokens_decoder.items()
    tags = {index for index, token in added if token.special or _is_tag(str(token.content))}
    return frozenset(tags | set(tokenizer.all_special_ids)) | template_ids(tokenizer)


_template_ids: WeakKeyDictionary[Any, tuple[object, frozenset[int]]] = WeakKeyDictionary()
"""Tokenizer -> what its template ids depend on, and they: to read them takes as long as to read a long conversation."""


def template_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of the added tokens that the chat template writes around texts; white space is no such token."""
    added = {i: str(token.content) for i, token in tokenizer.added_tokens_decoder.items() if _is_mark(token.content)}
    if not added or not getattr(tokenizer, "chat_template", None):
        return frozenset()
    source = str(tokenizer.get_chat_template())
    state = source, added, getattr(tokenizer, "special_tokens_map", None)
    known = _template_ids.get(tokenizer)
    if known is None or known[0] != state:
        known = _template_ids[tokenizer] = state, _written_ids(tokenizer, source, added)
    return known[1]


def _written_ids(tokenizer: Any, source: str, added: Mapping[int, str]) -> frozenset[int]:
    # Most are named in the template, also in parts that are not shown here, such as those for tools; a word in it may
    # be a variable's name. Some templates put a token together from the name of the role.
    named = {index for index, content in added.items() if content in source and not content.isidentifier()}
    shown = {index for text in _shown(tokenizer) for index in tokenizer.encode(text, add_special_tokens=False)}
    return frozenset(named | (shown & added.keys()))


class TextEncoder:
    """Encodes users' text with `tokenizer`, never into a control token."""

    def __init__(self, tokenizer: Any) -> None:
        """Read the tokenizer's control tokens once."""
        self.tokenizer = tokenizer
        # The unknown token stands for characters the vocabulary lacks; its typed name gives the same as any of those.
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
        return [index for piece in pieces for index in self._apart(piece)]

    def _apart(self, text: str) -> list[int]:
        """The ids of a text in which a control token may still be written in another way, such as in capitals."""
        ids = self._raw(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        place = self._inside_control(text)
        if place is None:
            raise DataError(f"The tokenizer reads a control token in the text {text[:60]!r}; remove it from the data.")
        return [*self._apart(text[:place]), *self._apart(text[place:])]

    def _inside_control(self, text: str) -> int | None:
        """A place in the middle of the first control token, if it has one."""
        if not getattr(self.tokenizer, "is_fast", False):
            return None
        read = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        for index, (start, end) in zip(read["input_ids"], read["offset_mapping"], strict=True):
            if index in self._forbidden:
                own = text[start:end]  # a token may take white space around it along
                start, end = start + len(own) - len(own.lstrip()), end - len(own) + len(own.rstrip())
                return (start + end) // 2 if end - start > 1 else None
        return None

    def _raw(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids


class TurnEncoder:
    """Encodes texts together with what a chat format writes around them, as its template would be encoded.

    The ids are those of the whole text in one piece, so that a server that is given messages reads the same ids. Only
    where a text would turn into a control token, or a tokenizer does not say where its tokens lie, each part is encoded
    by itself, which is as safe, and may cut words elsewhere.

    Attributes:
        text: encodes one text by itself.
    """

    def __init__(self, tokenizer: Any, *, remembered: int = 0) -> None:
        """Read the tokenizer's control tokens once; the ids of so many latest texts are remembered."""
        self._tokenizer, self.text = tokenizer, TextEncoder(tokenizer)
        self._encoded = lru_cache(remembered)(self._encode) if remembered else self._encode
        # With the unknown token: here its name would be read as the token.
        self._control = control_ids(tokenizer)
        self._expected: dict[tuple[str, ...], list[int]] = {}

    def encode(self, parts: Sequence[str], *, before: str = "", after: str = "") -> tuple[int, ...]:
        """Token ids of `parts`. Every second part is a user's text and never becomes a control token.

        Args:
            parts: what the chat format or a layout writes, a text, what follows it, another text, and so on.
            before: the end of what stands before, from the chat format; tokens of it are left out.
            after: the beginning of what stands after, in the same way.

        Raises:
            DataError: the tokenizer makes a control token of a text, however its characters are cut.
        """
        return self._encoded(tuple(parts), before, after)

    def _encode(self, parts: tuple[str, ...], before: str, after: str) -> tuple[int, ...]:
        woven = self._woven(parts, before, after)
        if woven is not None:
            return woven
        ids: list[int] = []
        for place, part in enumerate(parts):
            ids += self.text.encode(part) if place % 2 else _control(self._tokenizer, part)
        return tuple(ids)

    def _woven(self, parts: Sequence[str], before: str, after: str) -> tuple[int, ...] | None:
        """The ids within the whole text; None if a text would add a control token, or a token crosses a border."""
        if not getattr(self._tokenizer, "is_fast", False):
            return None
        inside = "".join(parts)
        ids, spans = self._read(before + inside + after)
        if self._controls(ids) != self._expectation((before, *parts[::2], after)):
            return None
        borders = (len(before), len(before) + len(inside))
        first, last = (bisect_right(spans, border, key=lambda span: span[1]) if border else 0 for border in borders)
        for place, border in ((first, borders[0]), (last, borders[1])):
            if (place > 0 and spans[place - 1][1] != border) or (place < len(spans) and spans[place][0] != border):
                return None
        return tuple(ids[first:last])

    def _expectation(self, fixed: tuple[str, ...]) -> list[int]:
        """The control tokens of the fixed parts, around ordinary texts."""
        if fixed not in self._expected:
            before, *formats, after = fixed
            self._expected[fixed] = self._controls(self._read(before + "X".join(formats) + after)[0])
        return self._expected[fixed]

    def _controls(self, ids: Iterable[int]) -> list[int]:
        return [index for index in ids if index in self._control]

    def _read(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return read["input_ids"], read["offset_mapping"]


class TextReader:
    """Reads the text of an answer that a model has sampled, without its control tokens and its reasoning."""

    def __init__(self, tokenizer: Any) -> None:
        """Read the tokenizer's control tokens once."""
        self._tokenizer = tokenizer
        added = {index: str(token.content) for index, token in tokenizer.added_tokens_decoder.items()}
        # A tag that the chat format does not use, such as `<table>`, is part of the answer.
        self._format = {index for index in template_ids(tokenizer) if _is_tag(added[index])}
        self._opens = {index for index, content in added.items() if _OPENS.fullmatch(content)}
        self._closes = {index for index, content in added.items() if _CLOSES.fullmatch(content)}

    def read(self, ids: Iterable[int], before: Sequence[int] = ()) -> str:
        """The text of `ids`, which go on from the text of `before`.

        A model that reasons writes its answer after the reasoning; one that was cut off while it reasoned has given
        none.
        """
        own = [index for index in self._answer(list(ids)) if index not in self._format]
        # Decoded together with what is before: some tokenizers drop the space before a text's first word.
        whole, begun = (self._tokenizer.decode(part, skip_special_tokens=True) for part in ([*before, *own], [*before]))
        return _SPELT_OUT.sub("", str(whole)[len(str(begun)) :])

    def reasons(self, ids: Iterable[int]) -> bool:
        """Whether `ids` hold a token around reasoning, which `read` leaves out."""
        return not (self._opens | self._closes).isdisjoint(ids)

    def _answer(self, ids: list[int]) -> list[int]:
        for place in range(len(ids) - 1, -1, -1):
            if ids[place] in self._closes:
                return ids[place + 1 :]
        return next((ids[:place] for place, index in enumerate(ids) if index in self._opens), ids)


@dataclass(frozen=True)
class Frame:
    """The ids that a chat template puts around the texts of a conversation which is to be answered."""

    parts: tuple[tuple[int, ...], ...]
    """Before the first text, between each two, and between the last one and the answer."""
    texts: tuple[str, ...]
    """The same as text."""
    end: str
    """What the template writes after the answer."""

    @classmethod
    def of(cls, tokenizer: Any, roles: Sequence[str]) -> Frame:
        """Read the template of `tokenizer` with a placeholder in the place of every text.

        An answer begins where the template puts finished answers. That is not always where it asks for one: some
        templates ask for reasoning first, which they leave out of what has been said.

        Raises:
            ModelError: there is no chat template, or it refuses these roles, or it does not show every text in one
                piece and in order.
        """
        need_chat_template(tokenizer)
        turns = _placed((*roles, "assistant"))
        answered = apply_template(tokenizer, turns, opening=False)
        if _PLACE.findall(answered) != [place for _, place in turns]:
            raise ModelError(
                f"The tokenizer's chat template does not show the turns {', '.join(roles)} and an answer exactly once "
                "and in order; fspo can't use it safely."
            )
        *parts, end = _PLACE.split(answered)
        asked = _PLACE.split(apply_template(tokenizer, turns[:-1], opening=True))[-1]
        if asked.rstrip() == parts[-1].rstrip():
            parts[-1] = asked  # white space between this and a finished answer is for the model to write
        return cls(tuple(_control(tokenizer, part) for part in parts), tuple(parts), end)


@dataclass(frozen=True)
class ChatFormat:
    """The control ids around one user message and its answer, read off the tokenizer's chat template once."""

    before_user: tuple[int, ...]
    before_answer: tuple[int, ...]
    end_of_answer: int
    opening: str
    """What `before_user` is the ids of."""
    closing: str
    """What `before_answer` is the ids of."""

    @classmethod
    def of(cls, tokenizer: Any) -> ChatFormat:
        """Read the template of `tokenizer`.

        Raises:
            ModelError: there is no chat template, it does not keep a user's message in one piece, or nothing ends an
                answer.
        """
        frame = Frame.of(tokenizer, ("user",))
        return cls(frame.parts[0], frame.parts[1], _end(tokenizer, frame.end), *frame.texts)


def need_chat_template(tokenizer: Any) -> None:
    """Check that there is a chat template.

    Raises:
        ModelError: there is none.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "The tokenizer has no chat template; use an instruction-tuned model, such as the built-in smollm2-135m."
        )


def takes_system(tokenizer: Any) -> bool:
    """Whether the chat template shows what a system role says; some refuse the role, and some leave its text out.

    Raises:
        ModelError: the template can't show a user's text either.
    """
    try:
        Frame.of(tokenizer, ("system", "user"))
    except ModelError:
        Frame.of(tokenizer, ("user",))
        return False
    return True


def apply_template(tokenizer: Any, turns: Sequence[tuple[str, str]], *, opening: bool) -> str:
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


def _placed(roles: Sequence[str]) -> list[tuple[str, str]]:
    return [(role, f"TEXTPLACE{number}X") for number, role in enumerate(roles)]


def _shown(tokenizer: Any) -> Iterator[str]:
    """What the template writes around the texts of ordinary conversations."""
    for roles in _CONVERSATIONS:
        for opening in (False, True):
            with suppress(ModelError):  # it refuses these roles, and so never writes anything for them
                yield from _PLACE.split(apply_template(tokenizer, _placed(roles), opening=opening))


def _is_tag(content: str) -> bool:
    """Whether a token is a name in brackets or between bars."""
    ends = content[:1] + content[-1:]
    if len(content) < 3 or not any(map(str.isalnum, content)):
        return False
    kinds = [unicodedata.category(letter) for letter in ends]
    return (ends[0] in "<|◁" or kinds[0] in ("Ps", "Pi")) and (ends[1] in ">|▷" or kinds[1] in ("Pe", "Pf"))


def _is_mark(content: str) -> bool:
    """Whether a token that a template writes can be told from plain text, which white space and a letter are."""
    return bool(content.strip()) and (len(content) > 1 or unicodedata.category(content).startswith("C"))


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
