"""The protocol of a language model that is asked for text: a local model, an endpoint or a script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

from fspo.errors import ConfigError
from fspo.identity import digest
from fspo.modeling.model_names import folder_name

__all__ = [
    "MOST_LOGPROBS",
    "Asking",
    "Completion",
    "CompletionRequest",
    "Concurrent",
    "FinishReason",
    "LanguageModel",
    "Message",
    "NamedModel",
    "Role",
    "Streaming",
    "batch_of",
    "identity_of",
    "models_digests",
    "replies_of",
    "title_of",
    "without_system",
]

Role = Literal["system", "user", "assistant"]

FinishReason = Literal["stop", "length", "reasoning", "refused", "failed"]
"""Why there is no more text: the turn ended, `max_tokens` were used up, they were used up by reasoning before there was
any text, the server refused the request or withheld the answer, or the request failed each time."""

MOST_LOGPROBS = 20
"""Alternatives that OpenAI's interface gives for a token, at most."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class CompletionRequest:
    """One answer wanted.

    Attributes:
        messages: the chat so far, ending with the user's turn.
        prefix: how the answer begins; the model goes on from there, and `Completion.text` holds only what it added.
        max_tokens: the most tokens the model may add.
        temperature: 0 takes the most probable token.
        top_p: the share of probability that is sampled from.
        seed: which draw this is: the same request gives the same answer in the same batch.
        logprobs: how many of the likeliest first tokens are wanted with their log-probs; not every model gives any.

    Raises:
        ConfigError: a setting is out of its range, or there is no message.
    """

    messages: tuple[Message, ...]
    prefix: str = ""
    max_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    logprobs: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not self.messages or self.messages[-1].role != "user":
            raise ConfigError("A request to a language model must end with a user's message.")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, not {self.max_tokens}.")
        if not self.temperature >= 0:
            raise ConfigError(f"temperature must be zero or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p}.")
        if not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise ConfigError(f"logprobs must be between 0 and {MOST_LOGPROBS}, not {self.logprobs}.")

    def record(self) -> dict[str, Any]:
        """All that decides the answer, ready for JSON; what earlier answers are found by."""
        record = {**vars(self), "messages": [dict(vars(message)) for message in self.messages]}
        if not self.logprobs:
            del record["logprobs"]  # answers from before there was such a wish stay valid
        return record


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation for models without a system role: its texts go before the first user's, after blank lines.

    The last message of a request is a user's, so that there always is one.
    """
    system = [message.content for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if first is not None:
        turns[first] = replace(turns[first], content="\n\n".join([*system, turns[first].content]))
    return tuple(turns)


_MISSING = {
    "reasoning": "only reasoning",
    "refused": "refused by the endpoint",
    "failed": "failed at the endpoint",
}


@dataclass(frozen=True)
class Completion:
    """What the model added.

    Attributes:
        text: without the request's prefix.
        tokens: how many tokens that is.
        finish_reason: why there is no more text; `missing` says what is wrong where there is none.
        anew: whether the model was asked to go on from the prefix and did not, so that the text stands alone; only an
            endpoint, which can't be made to, does so.
        first: the likeliest first tokens, each with its log-prob, where they were wanted and the model gives them.
        kept: whether it was given before and kept (`fspo.llm.cache`), and the model not asked; no part of the answer.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    anew: bool = False
    first: tuple[tuple[str, float], ...] = ()
    kept: bool = field(default=False, compare=False, repr=False)

    @property
    def missing(self) -> str:
        """Why there is no answer, in words to count it under; empty where there is one, even without text."""
        return _MISSING.get(self.finish_reason, "")

    def after(self, prefix: str) -> str:
        """The whole answer to a request with this prefix."""
        return self.text if self.anew else prefix + self.text


class LanguageModel(Protocol):
    """A model to ask.

    It may have an `identity` beside its name: what JSON can hold, with another value where answers may differ.
    Without one, earlier answers are found by the name.
    """

    @property
    def name(self) -> str:
        """Which model this is; part of what decides whether earlier answers may be used again."""

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One completion for each request, in order."""


@dataclass(frozen=True)
class NamedModel:
    """Stands for a model by its name and its identity, where none is asked."""

    name: str
    identity: Any = None

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Refuse."""
        raise NotImplementedError


@runtime_checkable
class Streaming(LanguageModel, Protocol):
    """A model that stays busy across the pieces of a long list."""

    def stream(self, requests: Iterable[CompletionRequest], ahead: int) -> Iterator[Completion]:
        """One completion for each request, in order; at most `ahead` are asked before their turn."""


class Asking(Protocol):
    """Requests under way, piece after piece."""

    def begin(self, requests: Sequence[CompletionRequest]) -> None:
        """Send a piece, and don't wait for it."""

    def take(self) -> list[Completion]:
        """Wait for the completions of the first piece that was begun and not yet taken."""

    def close(self) -> None:
        """Send nothing more, and wait for what is under way."""


@runtime_checkable
class Concurrent(LanguageModel, Protocol):
    """A model that answers while others are asked too."""

    def asking(self) -> Asking:
        """A new line of pieces; it must be closed."""


def replies_of(*models: LanguageModel) -> dict[str, int]:
    """What was odd about replies -> how many, of all these models and their members that know (`replies`)."""
    members = (member.model for model in models for member in getattr(model, "members", ()))
    counts = (
        Counter[str](getattr(one, "replies", {})) for one in {id(one): one for one in (*models, *members)}.values()
    )
    return dict(sum(counts, Counter[str]()).most_common())


def batch_of(model: LanguageModel) -> int | None:
    """How many requests a model is best asked at once, where it knows (`batch`), as one on this machine does."""
    batch: int | None = getattr(model, "batch", None)
    return batch


def identity_of(model: LanguageModel) -> Any:
    """What distinguishes a model's answers from others, ready for JSON: its `identity`, or else its name."""
    return getattr(model, "identity", None) or model.name


def models_digests(*models: LanguageModel, as_written: bool = False) -> dict[str, str]:
    """Which models made something, for files that are shared: digests that hold no address and no folder.

    `models` is by the settings alone; `weights`, by the weights of local models too, is missing where one of those is
    not on this machine. `as_written`: names as given, as earlier versions recorded them.
    """
    identities = [identity_of(model) if as_written else _plain(identity_of(model)) for model in models]
    named = {"models": digest(_without_weights(identities), 64)}
    return named | ({"weights": digest(identities, 64)} if _weighed(identities) else {})


def _plain(identity: Any) -> Any:
    """An identity with the names of local models, which alone have weights, in one form; see `folder_name`."""
    if isinstance(identity, Mapping):
        local = "weights" in identity and isinstance(identity.get("model"), str)
        own = {"model": folder_name(identity["model"])} if local else {}
        return {key: _plain(value) for key, value in identity.items()} | own
    return [_plain(value) for value in identity] if isinstance(identity, list) else identity


def _without_weights(identity: Any) -> Any:
    if isinstance(identity, Mapping):
        return {key: _without_weights(value) for key, value in identity.items() if key != "weights"}
    return [_without_weights(value) for value in identity] if isinstance(identity, list) else identity


def _weighed(identity: Any) -> bool:
    if isinstance(identity, Mapping):
        return identity.get("weights", "") is not None and all(map(_weighed, identity.values()))
    return all(map(_weighed, identity)) if isinstance(identity, list) else True


def title_of(model: LanguageModel) -> str:
    """The name of a model for others to read: without addresses and folders, where it has one (`title`)."""
    return str(getattr(model, "title", model.name))
