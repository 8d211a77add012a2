"""Judges beside the one that labelled the data, as they are configured."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.errors import ConfigError
from fspo.llm.endpoint_config import EndpointConfig

__all__ = ["HEADLINE", "JudgeConfig", "Matched"]

HEADLINE = "headline"
"""What the judge of `win_rate` is called beside others."""

Matched = Literal["length", "format"]


class JudgeConfig(BaseModel):
    """One more judge of the same answers; exactly one of endpoint, attributes and likes is set."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    """What it is called in the results."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that is shown the user's description and asked in both orders."""
    attributes: tuple[str, ...] = ()
    """Measured attributes: it goes by the users' own weights of these alone."""
    likes: dict[str, float] = Field(default_factory=dict)
    """The same weights of measured attributes for everybody: `{length: 1}` likes whatever is longer."""
    weighted: bool = False
    """Whether an endpoint is asked for the probability of its answer, from log-probs, and not for the answer alone."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of an endpoint's answer, reasoning included: by default 48, and 4 where it is `weighted`."""
    prompt: str | None = None
    """What an endpoint is asked, with {description}, {question}, {first} and {second}, in place of the usual words."""
    margin: float = Field(default=0.0, ge=0)
    """Of a measured judge: utilities that differ by less are a tie; in standard deviations."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(map(bool, (self.endpoint, self.attributes, self.likes))) != 1:
            raise ValueError(f"the judge '{self.name}' needs exactly one of endpoint, attributes and likes")
        if self.name == HEADLINE:
            raise ValueError(f"a judge can't be called '{HEADLINE}', which is the one of the data; call it otherwise")
        if self.endpoint is None and (self.weighted or self.prompt is not None or self.max_tokens is not None):
            raise ValueError(
                f"the judge '{self.name}' has no endpoint to weigh, to read a prompt or to keep to max_tokens; leave "
                "these out"
            )
        self._check_attributes()
        self._check_prompt()
        return self

    def _check_attributes(self) -> None:
        from fspo.judging.attributes import attributes_named

        try:
            attributes_named([*self.attributes, *self.likes])
        except ConfigError as error:
            raise ValueError(f"the judge '{self.name}': {error}") from error

    def _check_prompt(self) -> None:
        from fspo.errors import DataError
        from fspo.synthesis.recipe.domain import PROMPTS
        from fspo.synthesis.recipe.templates import Template

        if self.prompt is None:
            return
        try:
            found = set(Template(self.prompt, PROMPTS["judge"], f"the prompt of the judge '{self.name}'").variables())
        except DataError as error:
            raise ValueError(str(error)) from error
        if missing := sorted({"first", "second"} - found):
            raise ValueError(f"the prompt of the judge '{self.name}' does not show {{{missing[0]}}}; put it in")
