"""What the API answers with: the bodies of its responses, as its description shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fspo.serving.feedback import Origin, Thumb
from fspo.serving.ownership import Page
from fspo.serving.stored_preferences import StoredPreference

__all__ = [
    "AccountView",
    "ChangedAccount",
    "ChangedPreference",
    "Condition",
    "ConversationList",
    "ConversationView",
    "Deleted",
    "FeedbackView",
    "HealthView",
    "PreferenceList",
    "PreferenceView",
    "QuestionView",
    "WithdrawalView",
    "preference_view",
]

_T = TypeVar("_T")


class PreferenceView(BaseModel):
    """A preference of yours."""

    id: str
    object: Literal["preference"] = "preference"
    created: int
    updated: int
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str
    origin: Origin
    source: str


class ConversationView(BaseModel):
    """A saved request of yours, and its answer."""

    id: str
    object: Literal["conversation"] = "conversation"
    created: int
    model: str
    messages: list[dict[str, str]]
    answer: str
    shots: list[str] = Field(description="Ids of the preferences that the model saw.")
    thumb: Thumb


_V = TypeVar("_V", PreferenceView, ConversationView)


class _ListView(BaseModel, Generic[_V]):
    object: Literal["list"] = "list"
    data: list[_V]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: Page[_T], view: Callable[[_T], _V]) -> Self:
        """A page of the store."""
        data = [view(entry) for entry in page.entries]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=ends[0], last_id=ends[1], has_more=page.more)


class PreferenceList(_ListView[PreferenceView]):
    """Some of your preferences."""


class ConversationList(_ListView[ConversationView]):
    """Some of your saved conversations."""


class QuestionView(BaseModel):
    """Two responses to a prompt. Answer by POST /v1/preferences, with the better one as `chosen`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "question_0123456789abcdef01234567",
                    "object": "question",
                    "prompt": "Why is the sky blue?",
                    "first": "Air scatters blue light more than red light.",
                    "second": "The air knocks the blue part all over the place.",
                    "gain": 0.62,
                }
            ]
        }
    )

    id: str
    object: Literal["question"] = "question"
    prompt: str
    first: str
    second: str
    gain: float = Field(
        description="How much information your answer is expected to give about what you like, in bits: 0 to 1."
    )


_ERASED = "False while another program still reads what was deleted; the server erases it from its files afterwards."


class ChangedPreference(PreferenceView):
    """A preference of yours after a change."""

    erased: bool = Field(description=_ERASED)


class FeedbackView(BaseModel):
    """What your feedback on an answer has changed."""

    object: Literal["feedback"] = "feedback"
    answer: str
    preferences: list[PreferenceView] = Field(
        description="What follows from it. A thumb gives a preference once another answer to the same request has the "
        "opposite thumb."
    )
    removed: int = Field(description="Preferences of an earlier thumb that were deleted.")
    erased: bool = Field(description=_ERASED)


class Deleted(BaseModel):
    """What was deleted."""

    id: str | None = None
    object: str
    deleted: Literal[True] = True
    count: int
    erased: bool = Field(description=_ERASED)


class AccountView(BaseModel):
    """What the server knows of you beside your preferences."""

    id: str
    object: Literal["user"] = "user"
    name: str
    description: str
    description_read: bool = Field(description="Whether the model reads it; a policy trained on shots alone does not.")
    personalise: bool
    keep_conversations: bool
    allow_training: bool
    rate: str = Field(description="Your own limit of answers; empty: the limit of the server.")
    created: int
    preferences: int


class ChangedAccount(AccountView):
    """What the server knows of you after a change."""

    erased: bool = Field(description=_ERASED)


class WithdrawalView(BaseModel):
    """What became of your data."""

    object: Literal["user.deleted"] = "user.deleted"
    deleted: Literal[True] = True
    removed: dict[str, int]
    erased: bool
    policies_to_train_again: list[str]


Condition = Literal["ok", "unavailable"]


class HealthView(BaseModel):
    """Whether the server can answer."""

    status: Condition = Field(description="`ok` if the store and the engine are.")
    store: Condition
    engine: Condition
    model: str
    under_way: int = Field(description="Answers under way, of all users.")
    waiting: int = Field(description="Those that the model has not begun; 0 if another server runs the model.")


def preference_view(stored: StoredPreference) -> PreferenceView:
    """A preference as its user sees it."""
    one = stored.preference
    return PreferenceView(
        id=stored.id,
        created=stored.created,
        updated=stored.updated,
        prompt=[{"role": turn.role, "content": turn.text} for turn in one.messages],
        chosen=one.chosen,
        rejected=one.rejected,
        origin=stored.origin,
        source=str(one.source.get("source", "")),
    )
