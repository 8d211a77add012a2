"""What is synthesized, and how much of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fspo.errors import ConfigError
from fspo.judging.attributes import attributes_named

__all__ = ["RestyledConfig", "held_out_of"]


class RestyledConfig(BaseModel):
    """Settings of `synthesize`. It samples `titles * questions * samples` texts of at most `max_tokens` tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["restyled"] = "restyled"
    """Says that this section is of the recipe for small models."""
    seed: int = 0
    """Draws titles, personas, samples, styles, users' descriptions and pairs."""
    domain: str = "reviews"
    """This recipe has rules for reviews alone."""
    attributes: tuple[str, ...] = ("sentiment", "length", "bullets", "emoji", "exclamation", "first_person")
    """What users differ in; see `fspo.judging.attributes`."""
    titles: int = Field(default=40, ge=3)
    """How many works are asked about; whole works are held out."""
    questions: int = Field(default=1, ge=1)
    """Questions about each work."""
    samples: int = Field(default=10, ge=2)
    """Texts sampled for each question; half of them steered to praise, half to criticism."""
    responses: int = Field(default=10, ge=2)
    """Restyled responses to each question, made from what was usable of its samples."""
    max_tokens: int = Field(default=44, ge=8)
    temperature: float = Field(default=0.85, gt=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    batch: int = Field(default=96, ge=1)
    """Texts sampled at once, and lost at most when killed; part of what decides the draw."""
    min_words: int = Field(default=4, ge=1)
    short_words: int = Field(default=12, ge=2)
    """A short response has at most so many words (a personal opener not counted)."""
    long_words: int = Field(default=18, ge=3)
    """A long response has at least so many words."""
    max_words: int = Field(default=40, ge=4)
    clear_sentiment: float = Field(default=0.2, ge=0, lt=1)
    """A response counts as praise or criticism from this sentiment on; what lies between is not used."""
    near_duplicate: float = Field(default=0.6, gt=0, le=1)
    """Word-triple overlap (Jaccard) from which two texts are near-duplicates."""
    pairs: int = Field(default=3, ge=1)
    """Labelled pairs of each user for each question, at most."""
    margin: float = Field(default=0.7, ge=0)
    """Utilities that differ by less are a tie, which is dropped; in standard deviations of an attribute."""
    same_text_pairs: bool = True
    """Whether two responses made from one sampled text may be a pair (they differ in style only)."""
    held_out: float = Field(default=0.25, gt=0, lt=1)
    """Share of the works whose questions are held out for the test."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the works, and of the interpolated users, that are for validation."""
    trained_pairs: int = Field(default=0, ge=0)
    """How many interpolated users are trained on all the same; 0 as in the paper."""

    @field_validator("domain")
    @classmethod
    def _reviews(cls, domain: str) -> str:
        if domain != "reviews":
            raise ValueError("only 'reviews' can be restyled; write recipe: paper for other domains")
        return domain

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            attributes_named(names)
        except ConfigError as error:  # pydantic says where, if it is told so
            raise ValueError(error) from error
        if len(names) < 2:
            raise ValueError("list at least two attributes, or there is nothing between the axes to hold out")
        return names

    @model_validator(mode="after")
    def _ordered(self) -> RestyledConfig:
        if not self.min_words <= self.short_words < self.long_words < self.max_words:
            raise ValueError("min_words <= short_words < long_words < max_words must hold")
        if self.held_out + self.validation >= 1:
            raise ValueError("held_out and validation together must leave works to train on")
        if sum(held_out_of(self.held_out, self.validation, self.titles)) >= self.titles:
            raise ValueError(
                f"held_out and validation leave none of {self.titles} titles to train on; lower them, or raise titles"
            )
        return self


def held_out_of(held_out: float, validation: float, works: int) -> tuple[int, int]:
    """How many works are for the test and for validation: at least one each, where there is any validation."""
    return max(1, round(held_out * works)), max(1, round(validation * works)) if validation else 0
