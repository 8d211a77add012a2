"""How a user's shots and a query are laid out as text: in one message with labels, or as a conversation.

A layout makes the pieces of a trunk and of its branches: what comes before the shots, each shot, and a prompt to be
answered. Control tokens come from the chat template; users' text never turns into one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from fspo.errors import ConfigError, ModelError
from fspo.modeling.chat import ChatFormat, Frame, takes_system
from fspo.preferences.types import Preference, Turn, transcript

__all__ = ["LAYOUTS", "ConversationLayout", "LabelledLayout", "Layout", "LayoutName", "ShotTemplate", "layout_named"]

LayoutName = Literal["labelled", "conversation"]
LAYOUTS: tuple[str, ...] = get_args(LayoutName)

DESCRIBE = "Say in one sentence what I like and what I dislike."
"""The question after the shots whose answer is a description of the user."""

Ids = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]


class Layout(Protocol):
    """The pieces of an episode as token ids; a trunk is the start and the shots one after the other."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that tells this layout apart from others; for identities."""

    def start(self, description: str) -> Ids:
        """What comes before the shots; `description` is the user's, or empty."""

    def shot(self, shot: Preference, *, first: bool) -> Ids:
        """One labelled preference."""

    def prompt(self, prompt: Sequence[Turn], *, after_shots: bool) -> Ids:
        """A prompt up to where its answer begins."""

    def opening_prompt(self, prompt: Sequence[Turn]) -> tuple[Ids, Ids] | None:
        """The same, in the place of `start` and `prompt`, if nothing is shown of the user.

        This is what comes before the user's first message, and the rest. None: there is no difference.
        """

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


@dataclass(frozen=True)
class LabelledLayout:
    """Shots and query in one user message: `Question: ... Liked: ... Disliked: ...` for every shot.

    A prompt that is a conversation stands there as its transcript.
    """

    format: ChatFormat
    encode: Encode
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
        if not description:
            return self.format.before_user
        return (*self.format.before_user, *self.encode(_fill(self.template.description, description=description)))

    def shot(self, shot: Preference, *, first: bool) -> Ids:
        """A question with the liked and the disliked answer."""
        return tuple(self.encode(self.template.render_shot(shot, first=first)))

    def prompt(self, prompt: Sequence[Turn], *, after_shots: bool) -> Ids:
        """The question, and the end of the user's message."""
        text = transcript(prompt)
        text = self.template.render_query(text) if after_shots else text
        return (*self.encode(text), *self.format.before_answer)

    def opening_prompt(self, prompt: Sequence[Turn]) -> None:
        """No difference: everything is in the user's message."""

    def describing(self) -> LabelledLayout:
        """The same without the words that ask for an answer the user likes."""
        return replace(self, template=replace(self.template, query="{prompt}"))


@dataclass(frozen=True)
class ConversationLayout:
    """Every shot is a turn of the user, the question, and a turn of the assistant, the liked answer.

    Disliked answers are not shown; the mirror of the context is the same conversation with the disliked answers. A
    description is a system message, or stands in front of the first question where the template takes no system role.
    The ids are those of the chat template on the same messages, as far as the tokenizer splits text where turns end.

    Earlier turns of a shot or a query are turns. Its own system message is one only if nothing is shown of the user;
    else the conversation has begun already, and the message stands in front of the first question that it goes with.
    """

    encode: Encode
    opening: Ids
    """Before the first question."""
    system: tuple[Ids, Ids] | None
    """Before and after a system message that opens the conversation; None: the template takes no system role."""
    before_liked: Ids
    """Between a question and an answer that was given before."""
    before_question: Ids
    """Between an answer and the next question."""
    before_answer: Ids
    """Between the last question and its answer."""
    describe: str = DESCRIBE

    @classmethod
    def of(cls, tokenizer: Any, encode: Encode) -> ConversationLayout:
        """Read the chat template of `tokenizer`.

        Raises:
            ModelError: the template does not show earlier turns, or not all of them alike.
        """
        try:
            short = Frame.of(tokenizer, _alternating(2)).parts
            long = Frame.of(tokenizer, _alternating(3)).parts
        except ModelError as error:
            raise ModelError(f"{error} The layout 'conversation' needs earlier turns; set layout: labelled.") from error
        if long != (*short[:3], *short[1:]):
            raise ModelError(
                "The tokenizer's chat template does not show all turns of a conversation alike, so shots can't be "
                "added one by one; set layout: labelled."
            )
        system = Frame.of(tokenizer, ("system", "user")).parts[:2] if takes_system(tokenizer) else None
        opening, before_liked, before_question, before_answer = short
        system_turn = None if system is None else (system[0], system[1])
        return cls(encode, opening, system_turn, before_liked, before_question, before_answer)

    @property
    def settings(self) -> dict[str, Any]:
        """The ids around every turn."""
        return {
            "opening": self.opening,
            "system": self.system,
            "turns": [self.before_liked, self.before_question],
            "describe": self.describe,
        }

    @property
    def overhead(self) -> int:
        """A token is at least half a letter."""
        around = max(len(self.opening), sum(map(len, self.system or ())))
        return around + len(self.before_answer) + 2 * len(self.describe) + 4

    def start(self, description: str) -> Ids:
        """The opening of the conversation, up to the first question."""
        if not description:
            return self.opening
        if self.system is None:
            return (*self.opening, *self.encode(f"{description}\n\n"))
        return (*self.system[0], *self.encode(description), *self.system[1])

    def shot(self, shot: Preference, *, first: bool) -> Ids:
        """A question, the liked answer, and the opening of the next turn of the user."""
        del first
        return (*self._turns(shot.messages), *self.before_liked, *self.encode(shot.chosen), *self.before_question)

    def prompt(self, prompt: Sequence[Turn], *, after_shots: bool) -> Ids:
        """The question as it is, after the turns before it."""
        del after_shots
        return (*self._turns(prompt), *self.before_answer)

    def opening_prompt(self, prompt: Sequence[Turn]) -> tuple[Ids, Ids] | None:
        """The prompt's system message in the role of one, if it has one and the template takes the role."""
        first, *rest = prompt
        if first.role != "system" or self.system is None:
            return None
        return self.start(first.text), self.prompt(rest, after_shots=False)

    def _turns(self, turns: Sequence[Turn]) -> Ids:
        """Turns up to the text of the last one; a system message stands in front of the first question."""
        system, said = ("", turns) if turns[0].role != "system" else (f"{turns[0].text}\n\n", turns[1:])
        ids = list(self.encode(system + said[0].text))
        for turn in said[1:]:
            ids += self.before_liked if turn.role == "assistant" else self.before_question
            ids += self.encode(turn.text)
        return tuple(ids)

    def describing(self) -> ConversationLayout:
        """The same: a question of our own is a question."""
        return self


def layout_named(name: str, tokenizer: Any, encode: Encode) -> Layout:
    """The layout of that name for a tokenizer.

    Raises:
        ConfigError: there is no layout of that name.
        ModelError: the tokenizer's chat template can't express it.
    """
    if name == "labelled":
        return LabelledLayout(ChatFormat.of(tokenizer), encode)
    if name == "conversation":
        return ConversationLayout.of(tokenizer, encode)
    raise ConfigError(f"There is no layout '{name}'; choose from {', '.join(LAYOUTS)}.")


def _alternating(questions: int) -> tuple[str, ...]:
    return (*("user", "assistant") * (questions - 1), "user")


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
