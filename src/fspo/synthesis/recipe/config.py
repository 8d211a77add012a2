"""Which stages of the paper's recipe are done, and how much of each."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.judging.pairwise import ANSWER_TOKENS
from fspo.paths import PlaceName

__all__ = ["Disagreement", "RecipeConfig", "Refinement"]


class Refinement(BaseModel):
    """How descriptions are extended until they decide the pairs that they left open (FSPO, section 5)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=3, ge=1)
    """Most sentences added to one description; a round without an open pair is the last one."""
    pairs: int = Field(default=6, ge=1)
    """Pairs put before the judge in each round."""


class Disagreement(BaseModel):
    """Bounds of how often two users disagree on the pairs that both decide; a user outside is made anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: float = Field(default=0.02, ge=0, lt=1)
    """Two users who disagree less are too much alike: the later one is made anew."""
    most: float = Field(default=0.9, gt=0, le=1)
    """A user who disagrees more than this with the others on average shares too little with them."""
    attempts: int = Field(default=2, ge=0)
    """How often users are made anew, at most; who is outside then stays, and is counted."""

    @model_validator(mode="after")
    def _ordered(self) -> Disagreement:
        if self.least >= self.most:
            raise ValueError("least must be below most")
        return self


class RecipeConfig(BaseModel):
    """Settings of the paper's recipe; every stage that can be left out can be switched off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["paper"]
    """Says that this section is of the paper's recipe."""
    seed: int = 0
    """Draws questions, users, steering and pairs."""
    domain: PlaceName = Field(min_length=1)
    """`reviews`, `elix-easy`, `elix-hard`, `roleplay`, or the folder of one's own."""
    questions: int = Field(default=100, ge=3)
    """Questions wanted; seeds first, then new ones written from them."""
    augment: bool = True
    """Whether a language model writes new questions where the seeds are too few."""
    augment_rounds: int = Field(default=4, ge=1)
    """Times that new questions are asked for, at most, until there are enough."""
    users: int | None = Field(default=None, ge=2)
    """Users wanted, evenly from all the domain's combinations; all of them by default."""
    portraits: bool = False
    """Whether a language model writes each description from the user's traits."""
    responses: int = Field(default=8, ge=2)
    """Responses asked for to each question."""
    steering: Literal["none", "persona", "views"] = "persona"
    """Answers by nobody in particular, as or for personas of the domain, or from viewpoints listed beforehand."""
    views: int = Field(default=4, ge=2)
    """Viewpoints listed for each question."""
    max_tokens: int = Field(default=160, ge=8)
    """Most tokens of a response."""
    temperature: float = Field(default=1.0, gt=0)
    """Of responses, questions and views, where a member of an ensemble has none of its own."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    min_words: int = Field(default=4, ge=1)
    """Responses with fewer words are not used."""
    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Overlap of word runs (Jaccard) from which two questions, or two responses to one, are near-duplicates."""
    judge: Literal["llm", "measured"] = "llm"
    """Who labels: a language model that reads the user's description, or measured attributes weighted by traits."""
    judge_max_tokens: int = Field(default=ANSWER_TOKENS, ge=1)
    """Most tokens of the language model's answer when it judges; one that reasons first needs some thousands."""
    margin: float = Field(default=0.5, ge=0)
    """Of the measured judge: utilities that differ by less are a tie; in standard deviations."""
    pairs: int = Field(default=40, ge=1)
    """Pairs put before each user; those left undecided are kept apart."""
    shared_pairs: int = Field(default=16, ge=0)
    """How many of them are the same for all users, for the matrix of disagreement."""
    refinement: Refinement | None = Refinement()
    """null leaves descriptions as they are; the measured judge reads none, so that nothing is refined for it."""
    disagreement: Disagreement | None = Disagreement()
    """null makes nobody anew."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the questions, and of the users where the domain does not name them, that are for the test."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """The same for validation."""
    meaning: bool = True
    """Whether the similarity of responses is measured by a sentence embedder too, fetched once as a package."""
    batch: int = Field(default=1024, ge=1)
    """Requests held at a time, at most; a model on this machine works on 48 of them at once, on a GPU on 96."""
    shard: int = Field(default=64, ge=1)
    """Users whose labels are written to one file, and are made again if killed in the middle (from kept answers)."""

    @model_validator(mode="after")
    def _whole(self) -> RecipeConfig:
        if self.held_out + self.validation >= 1:
            raise ValueError("held_out and validation together must leave questions to train on")
        if self.shared_pairs > self.pairs:
            raise ValueError("shared_pairs are some of each user's pairs, so there can't be more of them than pairs")
        return self
