"""How a user's shots and a query are laid out as text: in one message with labels, or as a conversation.

A layout makes the pieces of a trunk and of its branches: what comes before the shots, each shot, and a prompt to be
answered. Control tokens come from the chat template; users' text never turns into one. The ids are those of the chat
template on the layout's messages, so that a server that is given these messages reads what the policy was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from fspo.errors import ConfigError, ModelError
from fspo.modeling.chat import ChatFormat, Frame, TurnEncoder, takes_system
from fspo.preferences.types import Preference, Turn, transcript

__all__ = [
    "DEFAULT_LAYOUT",
    "EARLIER_LAYOUT",
    "LAYOUTS",
    "ConversationLayout",
    "LabelledLayout",
    "Layout",
    "LayoutName",
    "Message",
    "ShotTemplate",
    "conversation_messages",
    "example_messages",
    "layout_named",
]

LayoutName = Literal["labelled", "conversation"]

DEFAULT_LAYOUT: LayoutName = "conversation"
"""Small models follow the labels of a conversation better, trained or not (docs/results/written)."""
EARLIER_LAYOUT: LayoutName = "labelled"
"""The layout of policies and results that do not say theirs: versions before the choice had no other."""
LAYOUTS: tuple[str, ...] = get_args(LayoutName)

DESCRIBE = "Say in one sentence what I like and what I dislike."
"""The question after the shots whose answer is a description of the user."""

_BELOW = "\n\n"
"""Between a description and the first question, where the template takes no system role."""

Ids = tuple[int, ...]
Message = dict[str, str]
"""A turn of a conversation, as chat templates and chat servers take it: `role` and `content`."""

_TEXT = "X"
"""Stands for a text whose first letter is all that matters to what is beside it."""


class Layout(Protocol):
    """The pieces of an episode as token ids; a trunk is the start and the shots one after the other.

    `described` says of a piece whether the trunk starts with a description of the user.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """All that tells this layout apart from others; for identities."""

    def start(self, description: str) -> Ids:
        """What comes before the shots; `description` is the user's, or empty."""

    def shot(self, shot: Preference, *, first: bool, described: bool) -> Ids:
        """One labelled preference."""

    def prompt(self, prompt: Sequence[Turn], *, after_shots: bool, described: bool) -> Ids:
        """A prompt up to where its answer begins."""

    def opening_prompt(self, prompt: Sequence[Turn]) -> tuple[Ids, Ids] | None:
        """The same, in the place of `start` and `prompt`, if nothing is shown of the user.

        This is what comes before the user's first message, and the rest. None: there is no difference.
        """

    def messages(self, shots: Sequence[Preference], prompt: Sequence[Turn], description: str) -> list[Message]:
        """The turns whose ids, by the tokenizer's chat template, are those of the pieces."""

    @property
    def describe(self) -> str:
        """The question after the shots whose answer is a description of the user."""

    @property
    def overhead(self) -> int:
        """At least the tokens around a prompt, a response and a description without shots."""

    def describing(self) -> Layout:
        """The layout in which a question of our own about the user follows the shots."""


@dataclass(frozen=True)
class ShotTemplate:
    """The words of the labelled layout. Each `{}` takes a user's text as it is."""

    introduction: str = "Two answers to each question, and which one I liked:\n\n"
    shot: str = "Question: {prompt}\nLiked: {chosen}\nDisliked: {rejected}\n\n"
    query: str = "Answer the way I like.\nQuestion: {prompt}"
    description: str = "About me: {description}\n\n"
    describe: str = DESCRIBE

    def render_shot(self, shot: Preference, *, first: bool) -> str:
        """One shot; the first one brings the introduction along, so that no shots leave the bare query."""
        text = _fill(self.shot, prompt=shot.prompt, chosen=shot.chosen, rejected=shot.rejected)
        return self.introduction + text if first else text

    def render_query(self, prompt: str) -> str:
        """What is asked after shots."""
        return _fill(self.query, prompt=prompt)

    def render_description(self, description: str) -> str:
        """What comes before the shots; nothing if there is no description."""
        return _fill(self.description, description=description) if description else ""

    def messages(self, shots: Sequence[Preference], prompt: str, description: str) -> list[Message]:
        """One message of the user."""
        told = [self.render_shot(shot, first=place == 0) for place, shot in enumerate(shots)]
        asked = self.render_query(prompt) if shots else prompt
        return [{"role": "user", "content": "".join([self.render_description(description), *told, asked])}]


@dataclass(frozen=True)
class LabelledLayout:
    """Shots and query in one user message: `Question: ... Liked: ... Disliked: ...` for every shot.

    A prompt that is a conversation stands there as its transcript.
    """

    format: ChatFormat
    turns: TurnEncoder
    template: ShotTemplate = field(default_factory=ShotTemplate)

    @property
    def settings(self) -> dict[str, Any]:
        """The words around shots and queries."""
        return asdict(self.template)

    @property
    def describe(self) -> str:
        """The template's question about the user."""
        return self.template.describe

    @property
    def overhead(self) -> int:
        """A token is at least half a letter."""
        own = len(self.template.description) + len(self.describe)
        return len(self.format.before_user) + len(self.format.before_answer) + 2 * own

    def start(self, description: str) -> Ids:
        """The opening of the user's message, and the description."""
        opening, blank = _without_blank(self.format.opening)
        if not description:
            return self.turns.encode([opening], after=blank + _TEXT)
        return self.turns.encode([opening, blank + self.template.render_description(description)], after=_TEXT)

    def shot(self, shot: Preference, *, first: bool, described: bool) -> Ids:
        """A question with the liked and the disliked answer."""
        text = self.template.render_shot(shot, first=first)
        return self._inner(text, opens=first and not described, after=_TEXT)

    def prompt(self, prompt: Sequence[Turn], *, after_shots: bool, described: bool) -> Ids:
        """The question, and the end of the user's message."""
        text = transcript(prompt)
        text = self.template.render_query(text) if after_shots else text
        return self._inner(text, self.format.closing, opens=not after_shots and not described)

    def messages(self, shots: Sequence[Preference], prompt: Sequence[Turn], description: str) -> list[Message]:
        """One message of the user."""
        return self.template.messages(shots, transcript(prompt), description)

    def opening_prompt(self, prompt: Sequence[Turn]) -> None:
        """No difference: everything is in the user's message."""

    def describing(self) -> LabelledLayout:
        """The same without the words that ask for an answer the user likes."""
        return replace(self, template=replace(self.template, query="{prompt}"))

    def _inner(self, text: str, closing: str = "", *, opens: bool, after: str = "") -> Ids:
        """A part of the message; what opens it has the blank before it, which tokenizers give to the first word."""
        opening, blank = _without_blank(self.format.opening)
        before = opening if opens else _end_of(self.template.shot)
        return self.turns.encode(["", blank * opens + text, closing], before=before, after=after)


@dataclass(frozen=True)
class ConversationLayout:
    """Every shot is a turn of the user, the question, and a turn of the assistant, the liked answer.

    Disliked answers are not shown; the mirror of the context is the same conversation with the disliked answers. A
    description is a system message, or stands in front of the first question where the template takes no system role.

    Earlier turns of a shot or a query are turns. Its own system message is one only if nothing is shown of the user;
    else the conversation has begun already, and the message stands in front of the first question that it goes with.
    """

    turns: TurnEncoder
    opening: str
    """Before the first question."""
    system: tuple[str, str] | None
    """Before and after a system message that opens the conversation; None: the template takes no system role."""
    before_liked: str
    """Between a question and an answer that was given before."""
    before_question: str
    """Between an answer and the next question."""
    before_answer: str
    """Between the last question and its answer."""
    settings: dict[str, Any]
    """The ids around every turn."""
    overhead: int
    """At least the tokens around a prompt, a response and a description without shots."""
    describe: str = DESCRIBE

    @classmethod
    def of(cls, tokenizer: Any, turns: TurnEncoder) -> ConversationLayout:
        """Read the chat template of `tokenizer`.

        Raises:
            ModelError: the template does not show earlier turns, or not all of them alike.
        """
        try:
            short = Frame.of(tokenizer, _alternating(2))
            long = Frame.of(tokenizer, _alternating(3))
        except ModelError as error:
            raise ModelError(f"{error} The layout 'conversation' needs earlier turns; set layout: labelled.") from error
        if long.texts != (*short.texts[:3], *short.texts[1:]):
            raise ModelError(
                "The tokenizer's chat template does not show all turns of a conversation alike, so shots can't be "
                "added one by one; set layout: labelled."
            )
        system = Frame.of(tokenizer, ("system", "user")) if takes_system(tokenizer) else None
        opening, before_liked, before_question, before_answer = short.texts
        ids = short.parts
        around = max(len(ids[0]), sum(map(len, system.parts[:2])) if system else 0)
        return cls(
            turns,
            opening,
            None if system is None else (system.texts[0], system.texts[1]),
            before_liked,
            before_question,
            before_answer,
            {
                "opening": ids[0],
                "system": None if system is None else (system.parts[0], system.parts[1]),
                "turns": [ids[1], ids[2]],
                "describe": DESCRIBE,
            },
            around + len(ids[3]) + 2 * len(DESCRIBE) + 4,  # a token is at least half a letter
        )

    def start(self, description: str) -> Ids:
        """The opening of the conversation, up to the first question."""
        opening, blank = _without_blank(self.opening)
        if not description:
            return self.turns.encode([opening], after=blank + _TEXT)
        if self.system is None:
            return self.turns.encode([opening, f"{blank}{description}{_BELOW}"], after=_TEXT)
        end, blank = _without_blank(self.system[1])
        return self.turns.encode([self.system[0], description, end], after=blank + _TEXT)

    def shot(self, shot: Preference, *, first: bool, described: bool) -> Ids:
        """A question, the liked answer, and the opening of the next turn of the user."""
        before, blank = self._before(first=first, described=described)
        end, next_blank = _without_blank(self.before_question)
        parts = [*self._parts(shot.messages, blank), self.before_liked, shot.chosen, end]
        return self.turns.encode(parts, before=before, after=next_blank + _TEXT)

    def prompt(self, prompt: Sequence[Turn], *, after_shots: bool, described: bool) -> Ids:
        """The question as it is, after the turns before it."""
        before, blank = self._before(first=not after_shots, described=described)
        return self.turns.encode([*self._parts(prompt, blank), self.before_answer], before=before)

    def opening_prompt(self, prompt: Sequence[Turn]) -> tuple[Ids, Ids] | None:
        """The prompt's system message in the role of one, if it has one and the template takes the role."""
        first, *rest = prompt
        if first.role != "system" or self.system is None:
            return None
        return self.start(first.text), self.prompt(rest, after_shots=False, described=True)

    def messages(self, shots: Sequence[Preference], prompt: Sequence[Turn], description: str) -> list[Message]:
        """Two turns for every shot, with those before them, and the prompt's."""
        return conversation_messages(shots, prompt, description, system=self.system is not None)

    def _parts(self, turns: Sequence[Turn], blank: str) -> list[str]:
        """What stands before each turn, and its text; a system message stands in front of the first question."""
        first, *others = _without_system(turns)
        parts = ["", blank + first.text]
        for turn in others:
            parts += [self.before_liked if turn.role == "assistant" else self.before_question, turn.text]
        return parts

    def describing(self) -> ConversationLayout:
        """The same: a question of our own is a question."""
        return self

    def _before(self, *, first: bool, described: bool) -> tuple[str, str]:
        """What stands before a question, and the blank that may belong to its first word."""
        if not first:
            return _without_blank(self.before_question)
        if not described:
            return _without_blank(self.opening)
        return (_BELOW, "") if self.system is None else _without_blank(self.system[1])


def conversation_messages(
    shots: Sequence[Preference], prompt: Sequence[Turn], description: str = "", *, system: bool = True
) -> list[Message]:
    """The messages of the layout `conversation`: two turns for every shot, with those before them, and the prompt's.

    Args:
        shots: labelled preferences; their liked answers are shown.
        prompt: the turns to be answered.
        description: the user's, or empty.
        system: whether the chat template takes a system role; without, its text stands in front of the first question.
    """
    bare = system and not shots and not description
    turns = [turn for shot in shots for turn in (*_without_system(shot.messages), Turn("assistant", shot.chosen))]
    turns += prompt if bare else _without_system(prompt)
    if description and system:
        turns.insert(0, Turn("system", description))
    elif description:
        turns[0] = Turn("user", f"{description}{_BELOW}{turns[0].text}")
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The turns of user and assistant; a system message stands in front of the first question."""
    if turns[0].role != "system":
        return list(turns)
    system, first, *others = turns
    return [Turn("user", f"{system.text}{_BELOW}{first.text}"), *others]


def example_messages(name: LayoutName, *, shots: bool, description: bool) -> list[Message]:
    """The turns of a layout with placeholders in the place of texts; a template without a system role has none."""
    shown = [Preference("", f"QUESTION {n}", f"LIKED {n}", f"DISLIKED {n}") for n in (1, 2)] if shots else []
    told = "DESCRIPTION" if description else ""
    if name == "labelled":
        return ShotTemplate().messages(shown, "PROMPT", told)
    return conversation_messages(shown, [Turn("user", "PROMPT")], told, system=True)


def layout_named(name: str, tokenizer: Any, turns: TurnEncoder) -> Layout:
    """The layout of that name for a tokenizer.

    Raises:
        ConfigError: there is no layout of that name.
        ModelError: the tokenizer's chat template can't express it.
    """
    if name == "labelled":
        return LabelledLayout(ChatFormat.of(tokenizer), turns)
    if name == "conversation":
        return ConversationLayout.of(tokenizer, turns)
    raise ConfigError(f"There is no layout '{name}'; choose from {', '.join(LAYOUTS)}.")


def _alternating(questions: int) -> tuple[str, ...]:
    return (*("user", "assistant") * (questions - 1), "user")


def _without_blank(text: str) -> tuple[str, str]:
    """A text without the blanks at its end, and the blanks, which tokenizers give to the word after them."""
    kept = text.rstrip(" ")
    return kept, text[len(kept) :]


def _end_of(pattern: str) -> str:
    """What a pattern writes after its last text."""
    return pattern.rpartition("}")[2]


def _fill(pattern: str, **texts: str) -> str:
    # One pass over the pattern: braces inside a user's text are text.
    out: list[str] = []
    rest = pattern
    while True:
        places = [(rest.find("{" + name + "}"), name) for name in texts if "{" + name + "}" in rest]
        if not places:
            return "".join([*out, rest])
        start, name = min(places)
        out += [rest[:start], texts[name]]
        rest = rest[start + len(name) + 2 :]
