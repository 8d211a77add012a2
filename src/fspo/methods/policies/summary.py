"""Summary: the model writes down what the shots say of the user, and reads only that before it answers.

From the shots S the model writes t = argmax p(t | S, question), token by token, and the user's policy is p(y | t, x).
The text t stands where a description of the user would: in the layout `conversation` it is the system message. POPI
(arXiv 2510.17881) and mem0 (arXiv 2504.19413) work in this way; POPI trains the writer, which is not done here, and
mem0 keeps facts that it adds to and replaces, where this writes one text from all shots.

An answer costs the tokens of the summary in the place of those of the shots, and of the user only the text is stored.
What the text leaves out is lost, although the shots show it; and a writer that reads no labels writes the same of a
user and of the mirrored user. The summary is at most `evaluation.description_tokens` long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from fspo.methods.adaptation import AdaptationInput, AdaptationSettings, AdaptationWork, TextAdaptation
from fspo.methods.method import Method
from fspo.modeling.layouts import LayoutName

if TYPE_CHECKING:
    from fspo.modeling.descriptions import Description
    from fspo.modeling.rendering import EpisodeRenderer
    from fspo.preferences.types import Preference

__all__ = ["ROWS", "Summary", "SummarySettings"]

_PLACE = "{summary}"


class SummarySettings(AdaptationSettings):
    """Settings of the summary."""

    question: str = Field(default="Say in short sentences what I like and what I dislike in an answer.", min_length=1)
    """Asks the model for the summary, after the shots."""
    shots: LayoutName = "labelled"
    """How the model is shown the shots that it summarises: `labelled` shows it both responses of each, `conversation`
    the liked ones alone."""
    message: str = Field(default=_PLACE, max_length=64)
    """What stands in the context, with `{summary}` in the place of the summary."""

    @field_validator("message")
    @classmethod
    def _has_place(cls, value: str) -> str:
        if value.count(_PLACE) != 1:
            raise ValueError(f"the summary has to stand somewhere; write {_PLACE} once")
        return value


class Summary(TextAdaptation):
    """The model's own summary of the user in its context."""

    Settings = SummarySettings

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork:
        """The shots and the question are read once."""
        settings = given.settings
        asked = _reader(settings, given.renderer).render_describing(given.shots, question=settings.question)
        return AdaptationWork(len(asked.trunk_ids) + len(asked.prompt_ids))

    def write(self, users: Sequence[Sequence[Preference]], *, tokens: int = 40) -> list[Description]:
        """The summaries, each of at most so many tokens and the words around it."""
        from fspo.modeling.descriptions import write_descriptions

        settings = self.settings
        renderer = _reader(settings, self.renderer)
        rows = write_descriptions(self.model, renderer, users, question=settings.question, max_new_tokens=tokens)
        return [replace(row, text=settings.message.replace(_PLACE, row.text) if row.text else "") for row in rows]


def _reader(settings: SummarySettings, own: EpisodeRenderer) -> EpisodeRenderer:
    """Renders what the writer of the summary reads."""
    from fspo.modeling.rendering import EpisodeRenderer

    return EpisodeRenderer(own.tokenizer, max_length=own.max_length, layout=settings.shots)


ROWS = (
    Method(
        "summary",
        "Summary of the user",
        "shots",
        (),
        None,
        "start",
        "The model as it is, given a summary of the user that it has written from the shots.",
        adaptation=Summary,
    ),
)
