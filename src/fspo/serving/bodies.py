"""Bodies of requests to the API: what is accepted, what is ignored, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fspo.errors import DataError
from fspo.preferences.types import Role, Turn, as_turns
from fspo.serving.feedback import Origin, Thumb
from fspo.serving.texts import MOST_CHARACTERS, MOST_OF_DESCRIPTION, fault_of

__all__ = [
    "AccountChange",
    "ChatBody",
    "FeedbackBody",
    "Message",
    "PreferenceBody",
    "PreferenceChange",
    "ResponsesBody",
    "prompt_turns",
    "request_turns",
]

_MOST_MESSAGES = 500


def _is_text(value: str) -> str:
    if fault := fault_of(value):
        raise ValueError(fault)
    return value


Text = Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(_is_text)]
Model = Literal["fspo", "base"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _NullIsDefault(_Body):
    """A body whose nulls count as missing: OpenAI's client writes a null for every field without a value."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: given for name, given in value.items() if given is not None}
        return value


class Part(_NullIsDefault):
    """A part of a message: text."""

    type: Literal["text", "input_text", "output_text"]
    text: Text
    annotations: list[Any] | None = Field(default=None, description="Ignored.")
    logprobs: list[Any] | None = Field(default=None, description="Ignored.")


class Message(_NullIsDefault):
    """A message of a conversation, also one that the API has answered with."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=100)]
    name: str | None = Field(default=None, description="Ignored.")
    refusal: None = None
    type: Literal["message"] = "message"
    id: str | None = Field(default=None, description="Ignored.")
    status: str | None = Field(default=None, description="Ignored.")
    annotations: list[Any] | None = Field(default=None, description="Ignored.")

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=_MOST_MESSAGES)]


class FspoOptions(_Body):
    """Options of this server."""

    shots: bool = Field(default=False, description="Return the preferences that the answer was given.")


class StreamOptions(_Body):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(default=None, description="Ignored.")


class PlainText(_Body):
    """The one format of answers."""

    type: Literal["text"]


class TextOptions(_Body):
    """The one format of answers."""

    format: PlainText | None = None
    verbosity: str | None = Field(default=None, description="Ignored.")


def _number(fits: Callable[[float], bool], wanted: str) -> AfterValidator:
    """A check of a number that names the whole range; NaN is in none."""

    def check(value: float) -> float:
        if not fits(value):
            raise ValueError(f"must be a number {wanted}")
        return value

    return AfterValidator(check)


Temperature = Annotated[
    float,
    _number(lambda value: 0 <= value <= 2, "from 0 to 2.0"),
    Field(json_schema_extra={"minimum": 0, "maximum": 2}),
]
TopP = Annotated[
    float,
    _number(lambda value: 0 < value <= 1, "above 0 and at most 1.0"),
    Field(json_schema_extra={"exclusiveMinimum": 0, "maximum": 1}),
]


class _Sampled(_NullIsDefault):
    model: Model = Field(description="`fspo` answers with your preferences, `base` without.", examples=["fspo"])
    temperature: Temperature = 0.7
    top_p: TopP = 1.0
    stream: bool | None = False
    fspo: FspoOptions = FspoOptions()
    user: str | None = Field(default=None, description="Ignored: the key says who you are.")
    safety_identifier: str | None = Field(default=None, description="Ignored.")
    prompt_cache_key: str | None = Field(default=None, description="Ignored.")
    metadata: dict[str, str] | None = Field(default=None, description="Ignored.")
    store: bool | None = Field(default=None, description="Ignored; see `keep_conversations` of /v1/me.")
    service_tier: str | None = Field(default=None, description="Ignored.")
    tool_choice: Literal["none", "auto"] | None = Field(default=None, description="Ignored: there are no tools.")
    parallel_tool_calls: bool | None = Field(default=None, description="Ignored: there are no tools.")
    top_logprobs: Literal[0] = 0


class ChatBody(_Sampled):
    """A request for a chat completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "fspo", "messages": [{"role": "user", "content": "Recommend a film."}]}]
        }
    )

    messages: Messages
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: Literal[1] = 1
    stream_options: StreamOptions = StreamOptions()
    response_format: PlainText | None = None
    logprobs: Literal[False] = False
    presence_penalty: float = Field(default=0, ge=0, le=0)
    frequency_penalty: float = Field(default=0, ge=0, le=0)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        given = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return tuple(text for text in given if text)


class ResponsesBody(_Sampled):
    """A request for a response."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "fspo", "input": "Recommend a film."}]})

    input: Text | Messages
    instructions: Text | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: TextOptions | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] = False
    stream_options: StreamOptions = StreamOptions()

    @property
    def messages(self) -> list[Message]:
        """Instructions and input as messages."""
        said = [Message(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [*([Message(role="system", content=self.instructions)] if self.instructions else []), *said]


class PreferenceBody(_Body):
    """Two responses to a prompt, and which one you prefer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "Recommend a film.", "chosen": "Try Paterson.", "rejected": "Watch them all!!!"},
            ]
        }
    )

    prompt: Text | Messages = Field(description="Your message, or the conversation that ends with it.")
    chosen: Text
    rejected: Text
    source: Annotated[str, Field(max_length=200), AfterValidator(_is_text)] = Field(
        default="", description="Where the preference comes from; free text.", examples=["film page"]
    )
    origin: Origin = Field(default="comparison", description="How you made it, if your application saves answers.")


class _Change(_Body):
    """A change of something; a null changes nothing."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if all(value is None for _, value in self):
            *names, last = type(self).model_fields
            raise ValueError(f"changes nothing; send at least one of {', '.join(names)} and {last}")
        return self


class PreferenceChange(_Change):
    """What to change of a preference."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"chosen": "Try Paterson, it is calm."}]})

    prompt: Text | Messages | None = None
    chosen: Text | None = None
    rejected: Text | None = None
    source: Annotated[str, Field(max_length=200), AfterValidator(_is_text)] | None = None


class FeedbackBody(_NullIsDefault):
    """What you think of an answer: exactly one of `thumb`, `edit` and `instead_of`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"answer": "chatcmpl-0123456789abcdef01234567", "thumb": "up"}]}
    )

    answer: Annotated[str, Field(max_length=64)] = Field(description="Id of the completion or response.")
    thumb: Thumb | None = Field(default=None, description="`none` takes an earlier thumb back.")
    edit: Text | None = Field(default=None, description="Your own version of the answer.")
    instead_of: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Id of an earlier answer to the same request: you asked again, and used `answer`."
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> FeedbackBody:
        if sum(given is not None for given in (self.thumb, self.edit, self.instead_of)) != 1:
            raise ValueError("needs exactly one of thumb, edit and instead_of")
        return self


class AccountChange(_Change):
    """What to change of your account."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Likes calm films."}]})

    description: Annotated[str, Field(max_length=MOST_OF_DESCRIPTION), AfterValidator(_is_text)] | None = Field(
        default=None, description="Shown to the policy with your preferences."
    )
    personalise: bool | None = Field(
        default=None, description="False pauses personalisation: `fspo` answers as `base` does."
    )
    keep_conversations: bool | None = Field(
        default=None, description="Whether the server saves your requests and answers."
    )
    allow_training: bool | None = Field(
        default=None, description="Whether a policy may be trained on your preferences and description."
    )


def prompt_turns(prompt: str | Sequence[Message]) -> tuple[Turn, ...]:
    """The prompt of a preference.

    Raises:
        DataError: it is no conversation that ends with a message of the user.
    """
    return as_turns(prompt if isinstance(prompt, str) else request_turns(prompt))


def request_turns(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Messages as an optional system message, and then messages of user and assistant in turns.

    Successive messages of one role become one message, with a blank line between them; empty ones are left out.

    Raises:
        DataError: a system message comes after others, or the first or the last message is not the user's.
    """
    joined: list[Turn] = []
    for message in messages:
        role, text = _as_role(message.role), message.text
        if not text.strip():
            continue
        if joined and joined[-1].role == role:
            joined[-1] = Turn(role, f"{joined[-1].text}\n\n{text}")
        else:
            joined.append(Turn(role, text))
    said = joined[1:] if joined and joined[0].role == "system" else joined
    if any(turn.role == "system" for turn in said):
        raise DataError("System messages come before all others; move them to the beginning.")
    if not said or said[0].role != "user" or said[-1].role != "user":
        raise DataError("The first message and the last one, after a system message, must be the user's and not empty.")
    return tuple(joined)


def _as_role(role: str) -> Role:
    return "system" if role in ("system", "developer") else "user" if role == "user" else "assistant"
