"""What is synthesized, and how much of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fspo.errors import ConfigError
from fspo.judging.attributes import attributes_named
from fspo.judging.pairwise import ANSWER_TOKENS
from fspo.judging.topics import TOPIC
from fspo.llm.types import CompletionRequest, Message
from fspo.paths import PlaceName
from fspo.pydantic_errors import Section
from fspo.synthesis.domain_files import production_of, settings_of

__all__ = [
    "RENAMED",
    "Disagreement",
    "ExecutorConfig",
    "Refinement",
    "Restyling",
    "SynthesisConfig",
    "asks_models",
    "usual_settings",
]

_DEMO = "reviews-restyled"

RENAMED = {
    "recipe": "synthesis.domain: reviews-restyled where it was restyled; the domain says how responses are made",
    "titles": "synthesis.works; synthesis.questions now counts the questions on all of them",
    "samples": "synthesis.restyling.samples",
    "short_words": "synthesis.restyling.short_words",
    "long_words": "synthesis.restyling.long_words",
    "max_words": "synthesis.restyling.max_words",
    "clear_sentiment": "synthesis.restyling.clear_sentiment",
    "same_text_pairs": "synthesis.restyling.same_text_pairs",
    "trained_pairs": "synthesis.also_trained",
}
"""Key of `synthesis` in earlier versions -> what to write now."""


class Refinement(Section):
    """How descriptions are extended until they decide the pairs that were undecided (FSPO, section 5)."""

    rounds: int = Field(default=3, ge=1)
    """Maximum sentences added to one description. It ends earlier if no pair is undecided."""
    pairs: int = Field(default=6, ge=1)
    """Pairs that the judge sees in each round."""


class Disagreement(Section):
    """How often two users may disagree on pairs that both decide; a user outside is drawn again."""

    least: float = Field(default=0.02, ge=0, lt=1)
    """Two users who disagree less than this are too similar: the later one is drawn again."""
    most: float = Field(default=0.9, gt=0, le=1)
    """A user who disagrees more than this with the others, on average, is drawn again."""
    attempts: int = Field(default=2, ge=0)
    """Maximum number of new draws. A user who still does not fit stays and is counted."""

    @model_validator(mode="after")
    def _ordered(self) -> Disagreement:
        if self.least >= self.most:
            raise ValueError("least must be below most")
        return self


class Restyling(Section):
    """How sampled texts become responses by fixed rules, in domains whose responses are restyled."""

    samples: int = Field(default=10, ge=2)
    """Texts to sample for each question; half of them are steered to praise, half to criticism."""
    short_words: int = Field(default=12, ge=2)
    """Maximum words of a short response, without a personal opening."""
    long_words: int = Field(default=18, ge=3)
    """Minimum words of a long response."""
    max_words: int = Field(default=40, ge=4)
    """Maximum words of a sampled text; whole sentences are cut off at the end."""
    clear_sentiment: float = Field(default=0.2, ge=0, lt=1)
    """Minimum sentiment (positive or negative) of a response that counts as praise or criticism. Responses in between
    are not used."""
    same_text_pairs: bool = True
    """Whether two responses made from one sampled text may form a pair; they differ in style only."""

    @model_validator(mode="after")
    def _ordered(self) -> Restyling:
        if not self.short_words < self.long_words < self.max_words:
            raise ValueError("short_words < long_words < max_words must hold")
        return self


class SynthesisConfig(Section):
    """The section `synthesis` of a run. A domain's own `settings` come before the defaults below."""

    seed: int = 0
    """Seed of questions, users, steering, styles and pairs; by default the run's seed."""
    domain: PlaceName = Field(default=_DEMO, min_length=1)
    """Name of a built-in domain, or the folder of your own. The domain says where responses come from."""
    questions: int = Field(default=100, ge=3)
    """Number of questions: the domain's own first, then new ones written after them."""
    works: int | None = Field(default=None, ge=3)
    """How many of the domain's works to ask about; by default as many as the questions reach."""
    augment: bool = True
    """Let a language model write new questions if the domain has too few."""
    augment_rounds: int = Field(default=4, ge=1)
    """Maximum rounds of requests for new questions."""
    users: int | None = Field(default=None, ge=2)
    """Number of users: spread evenly over the domain's combinations (by default all of them), or this many random
    directions."""
    attributes: tuple[str, ...] | None = None
    """The attributes that users differ in, if the domain's users are directions; by default those that it lists."""
    also_trained: int = Field(default=0, ge=0)
    """How many of the users that the domain holds out are used for training instead; 0 as in the paper."""
    portraits: bool = False
    """Let a language model write each description from the user's traits."""
    responses: int = Field(default=8, ge=2)
    """Responses to each question."""
    steering: Literal["none", "persona", "views"] = "persona"
    """How responses are varied: `none`; `persona`, written as or for personas of the domain; `views`, from viewpoints
    that a model lists first."""
    views: int = Field(default=4, ge=2)
    """Viewpoints to list for each question."""
    restyling: Restyling = Restyling()
    """How rules change sampled texts, in a domain with restyled responses."""
    max_tokens: int = Field(default=160, ge=8)
    """Maximum length of a sampled text, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of responses, questions and views. A member of an ensemble can have its own."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Sample from the smallest set of most probable tokens with this total probability."""
    min_words: int = Field(default=4, ge=1)
    """Responses with fewer words are not used."""
    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Two questions, or two responses to one question, are near-duplicates from this overlap (Jaccard) of word
    sequences on."""
    judge: Literal["llm", "measured", "declared"] = "llm"
    """Who labels the pairs. `llm`: a language model that reads the user's description. `measured`: measured attributes.
    `declared`: the declared traits of written responses. The last two are weighted by the user's traits. The default
    depends on where responses come from."""
    judge_max_tokens: int = Field(default=ANSWER_TOKENS, ge=1)
    """Maximum tokens of the language model's answer when it judges; a model that reasons first needs some thousands."""
    margin: float = Field(default=0.5, ge=0)
    """For a judge that uses traits: utilities that differ by less than this are a tie. The unit is the standard
    deviation of a measured attribute, or half the distance between the ends of a declared trait."""
    label_noise: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the training users' labels to flip."""
    pairs: int = Field(default=40, ge=1)
    """Pairs to judge for each user; undecided ones are saved separately."""
    pairs_per_question: int | None = Field(default=None, ge=1)
    """Replaces `pairs`: pairs of each question in the user's part. A judge that uses traits replaces pairs that it
    leaves undecided by others."""
    shared_pairs: int = Field(default=16, ge=0)
    """How many of a user's `pairs` all users share, to measure disagreement."""
    refinement: Refinement | None = Refinement()
    """How descriptions are extended; null leaves them unchanged. Only if a language model judges."""
    disagreement: Disagreement | None = Disagreement()
    """How much users must disagree; null never draws a user again."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the questions for the test, and of the users, if the domain does not name the held-out ones."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """The same for validation. If the domain names the held-out users: the share of these for validation."""
    meaning: bool = True
    """Measure the similarity of responses with a sentence embedder too; it is downloaded once."""
    batch: int = Field(default=1024, ge=1)
    """Maximum requests held at a time. A model on this machine works on 48 of them at once, on a GPU on 96."""
    shard: int = Field(default=64, ge=1)
    """Labelled users in one file. After an interruption fspo makes an unfinished file again from saved answers."""

    @model_validator(mode="before")
    @classmethod
    def _with_those_of_the_domain(cls, values: Any) -> Any:
        """Use the domain's settings where no other is given; `load_domain` reports what is wrong with a domain."""
        name = values.get("domain", _DEMO) if isinstance(values, dict) else None
        return {**settings_of(name), **values} if isinstance(name, str) else values

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if names is not None and len(names) < 2:
            raise ValueError("list at least two, or there is nothing between users")
        # What is declared of written responses is known with the domain.
        if names is not None and production_of(info.data.get("domain", _DEMO)) != "written":
            try:
                attributes_named(name for name in names if not name.startswith(TOPIC))
            except ConfigError as error:  # pydantic says where
                raise ValueError(error) from error
        return names

    @model_validator(mode="after")
    def _whole(self) -> SynthesisConfig:
        if self.held_out + self.validation >= 1:
            raise ValueError("held_out and validation together must leave questions to train on")
        if self.pairs_per_question is None and self.shared_pairs > self.pairs:
            raise ValueError("shared_pairs are some of each user's pairs, so there can't be more of them than pairs")
        if self.min_words > self.restyling.short_words:
            raise ValueError("min_words must be at most restyling.short_words")
        return self

    def request(self, *messages: Message, max_tokens: int, seed: int, prefix: str = "") -> CompletionRequest:
        """One answer wanted, drawn as these settings say."""
        return CompletionRequest(messages, prefix, max_tokens, self.temperature, self.top_p, seed)

    @property
    def by_traits(self) -> bool:
        """Whether labels follow the users' traits, and no language model judges."""
        return self.judge != "llm"


def asks_models(config: SynthesisConfig) -> bool:
    """Whether a language model is needed: not for written responses that are labelled by their traits."""
    return production_of(config.domain) != "written" or not config.by_traits or config.portraits


def usual_settings(config: SynthesisConfig) -> dict[str, Any]:
    """The settings of the same domain with nothing else chosen, ready for JSON."""
    return SynthesisConfig.model_validate({"domain": config.domain}).model_dump(mode="json")


class ExecutorConfig(Section):
    """Where the labelling of synthesis runs. The data are the same."""

    kind: Literal["local", "ray"] = "local"
    """`local`: this process; `ray`: the workers of a Ray cluster."""
    address: str | None = Field(default=None, min_length=1)
    """Address of a Ray cluster, or `auto` for the one of this machine; by default RAY_ADDRESS, or a cluster for this
    run alone."""
    workers: int | None = Field(default=None, ge=1)
    """Worker processes; by default one for each processor of the cluster."""
