"""What is evaluated, how thoroughly, and which variants are the headline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fspo.errors import ConfigError
from fspo.llm.endpoint_config import EndpointConfig
from fspo.methods.table import METHODS
from fspo.modeling.layouts import LayoutName
from fspo.paths import PlaceName

__all__ = [
    "BASE",
    "HEADLINE",
    "EvaluationConfig",
    "Floors",
    "JudgeConfig",
    "Matched",
    "Reduction",
    "RewardModelConfig",
    "RewardVariant",
    "RobustnessConfig",
    "Sampling",
    "Settings",
    "TaxConfig",
    "percent",
]

RewardVariant = Literal["reference", "antisymmetric", "likelihood", "score"]
"""How a margin comes about; see `scoring.logprob_scores`. An external reward model gives its own `score`."""

Sampling = Literal["plain", "guided"]
"""How an answer is drawn; see `fspo.evaluation.judges.win_rates`."""

Reduction = Literal["sum", "mean"]

BASE = "base"
"""The untrained model that knows no user, which methods' answers are compared with."""

HEADLINE = "headline"
"""What the judge of `win_rate` is called beside others."""

Matched = Literal["length", "format"]

_IN_ORDER = AfterValidator(lambda values: tuple(sorted(set(values))))
_Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], _IN_ORDER]


class Settings(BaseModel):
    """A section of settings: unknown keys are errors, and errors do not repeat what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())


class Floors(Settings):
    """Minimum values of an answer. Below one of them it loses with every judge, or ties with another one below."""

    log_prob: float = -5.5
    """Mean log-prob a token under the base model given the question alone, in nats. Under SmolLM2-135M
    short reviews lie between -2 and -5, with emoji or bullet points too; shuffled words between -6.5 and -8."""
    distinct: float = Field(default=0.5, ge=0, le=1)
    """Share of the answer's word pairs that are different from each other."""
    closeness: float = Field(default=0.0, ge=0, le=1)
    """Tf-idf cosine with the question; 0 asks for nothing, since a good short answer may share no word with it."""
    words: int = Field(default=2, ge=0)
    """Words in the answer; an empty one is no answer."""


class RobustnessConfig(Settings):
    """Further conditions for the full context, on a part of the users; each costs one more trunk per user."""

    users: int | None = Field(default=6, ge=0)
    """At most this many of the evaluated users, the first episode of each; 0: no robustness measures, null: all."""
    queries: int | None = Field(default=3, ge=1)
    """At most this many queries of each episode; null: all of them."""
    wrong_labels: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], _IN_ORDER] = (0.1, 0.25)
    """Shares of the shots whose label is swapped, at least one shot each."""
    other_topics: bool = True
    """Shots from other topics than the queries, where the data name topics."""
    orders: int = Field(default=2, ge=0)
    """Other orders of the same shots."""
    single_shots: bool = False
    """Each shot's label swapped alone, to see whether one shot is read or all: one more trunk a user for each shot."""


class JudgeConfig(Settings):
    """One more judge of the same answers; exactly one of endpoint, attributes and likes is set."""

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    """What it is called in the results."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that sees the user's description and compares in both orders."""
    attributes: tuple[str, ...] = ()
    """Measured attributes: the judge uses the users' own weights of these alone."""
    likes: dict[str, float] = Field(default_factory=dict)
    """The same weights of measured attributes for every user: `{length: 1}` prefers the longer answer."""
    weighted: bool = False
    """Whether to use the probability of an endpoint's answer, from log-probs, and not the answer alone."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of an endpoint's answer, reasoning included: by default 48, and 4 where it is `weighted`."""
    prompt: str | None = None
    """A prompt for an endpoint that replaces the default, with {description}, {question}, {first} and {second}."""
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
        from fspo.synthesis.domain import PROMPTS
        from fspo.synthesis.templates import Template

        if self.prompt is None:
            return
        try:
            found = set(Template(self.prompt, PROMPTS["judge"], f"the prompt of the judge '{self.name}'").variables())
        except DataError as error:
            raise ValueError(str(error)) from error
        if missing := sorted({"first", "second"} - found):
            raise ValueError(f"the prompt of the judge '{self.name}' does not show {{{missing[0]}}}; put it in")


class RewardModelConfig(Settings):
    """An external reward model, evaluated beside the methods; exactly one of model, endpoint and scorer is set."""

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    """What it is called in the table."""
    model: PlaceName | None = None
    """A sequence-classification model of transformers with one output: a local folder or a hub id."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that sees the shots and rates the response."""
    scorer: str | None = None
    """Your own code as `module:name`: a function of (shots, prompt, response) or a `RewardModel`."""
    shots: bool = True
    """Whether it sees the user's shots; without them it is a baseline that knows no user."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of an endpoint's rating, reasoning included: by default 12."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.model, self.endpoint, self.scorer)) != 1:
            raise ValueError(f"the reward model '{self.name}' needs exactly one of model, endpoint and scorer")
        if self.endpoint is None and self.max_tokens is not None:
            raise ValueError(f"the reward model '{self.name}' has no endpoint to keep to max_tokens; leave that out")
        if self.name in METHODS or self.name.endswith("-reference"):
            raise ValueError(f"a reward model can't be called '{self.name}', which is taken; call it otherwise")
        return self


class TaxConfig(Settings):
    """A user costs `general + open + 2 * refusals` answers a method, and every set of weights the items once more."""

    users: int | None = Field(default=6, ge=1)
    """At most this many of the evaluated users, with the shots of their first episode; null: all of them."""
    general: int = Field(default=10, ge=0)
    """General instructions for each user; users take turns, so that six of them have all sixty between them."""
    refusals: int = Field(default=5, ge=0)
    """Harmful requests for each user, in turn likewise; each is asked twice, the second time with itself in the
    shots."""
    open: int = Field(default=5, ge=0)
    """Open instructions for each user, in turn likewise; asked only where there are judges of the answers."""
    judges: tuple[JudgeConfig, ...] = ()
    """Endpoints that are asked whether the method or the base model answers an open instruction better, for anybody;
    the first is the one of `tax_open`."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens of an answer, which is the most probable one (no sampling)."""

    @model_validator(mode="after")
    def _judges_of_anybody(self) -> Self:
        for entry in self.judges:
            if entry.endpoint is None:
                raise ValueError(f"the judge '{entry.name}' of the tax has no endpoint; attributes are users' tastes")
            if entry.prompt is not None and "{description}" in entry.prompt:
                raise ValueError(
                    f"the judge '{entry.name}' of the tax knows no user; leave {{description}} out of its prompt"
                )
        _check_names("judges of the tax", self.judges)
        return self


_ADDED = frozenset({"judges", "match", "match_band", "tax", "answer_ladder", "reward_models"})
"""Settings that add to what was measured and change nothing of it."""

_AFTERWARDS = frozenset({"floors", "long_rows", "observer_noise", "observer_prior"})
"""Settings that are applied each time to what was measured, or before it."""


class EvaluationConfig(Settings):
    """Settings of `evaluate`. A user costs about `shots + queries * (2 + len(ladder))` pairs of tokens a method."""

    seed: int = 0
    """Draws the episodes, the donors of swapped shots and the answers; by default the run's seed."""
    users: int | None = Field(default=None, ge=1)
    """At most so many held-out users, drawn evenly from their groups; null: all of them."""
    shots: int = Field(default=8, ge=1)
    """Shots of a full context, at which everything but the ladder is measured."""
    ladder: _Counts = (0, 1, 2, 4, 8)
    """Shot counts at which accuracy is measured; those above `shots` are left out, `shots` itself is always in."""
    episodes: int = Field(default=1, ge=1)
    """Episodes (draws of shots and queries) of each user."""
    queries: int = Field(default=8, ge=1)
    """Held-out preferences of each episode."""
    ladder_queries: int | None = Field(default=None, ge=1)
    """At shot counts below the full one, only so many queries of each episode; null: all. The curve is on these."""
    label_flip: bool = True
    """Score the queries once more with the labels of the shots swapped; the antisymmetric reward needs it too."""
    user_swap: bool = True
    """Score the queries once more given another user's shots."""
    antisymmetric_swap: bool = True
    """Measure the user-swap drop of the antisymmetric reward too, which takes one more trunk; on where it is the
    headline."""
    antisymmetric_ladder: bool = False
    """Measure the antisymmetric reward at every shot count, not only the full one; on where it is the headline."""
    reduction: Reduction = "sum"
    """Whether a response's log-prob is the sum over its tokens (the paper's) or their mean."""
    headline_reward: Literal["reference", "antisymmetric"] = "reference"
    """Which reward `reward_accuracy`, `reward_accuracy@k` and `user_swap_drop` are of."""
    headline_sampling: Sampling = "plain"
    """Which sampling `win_rate` is of."""
    answers: int = Field(default=4, ge=0)
    """Held-out prompts answered for each user; 0 leaves the win rates out."""
    samplings: tuple[Sampling, ...] = ("plain", "guided")
    """How the answers are drawn."""
    answer_ladder: _Counts = ()
    """Shot counts below the full one at which answers are drawn too, by the headline sampling, for the win rate by the
    number of shots; each costs as much as the answers themselves."""
    max_new_tokens: int = Field(default=48, ge=1)
    """Most tokens of an answer."""
    temperature: float = Field(default=0.7, gt=0)
    """Temperature of the answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sampling takes tokens from the smallest set of the most probable ones that has this probability."""
    guidance: float = Field(default=2.0, ge=0)
    """Strength of mirror guidance: (1 + g) log p(.|S) - g log p(.|S')."""
    plausibility: float = Field(default=0.1, gt=0, le=1)
    """Guided tokens are at least so probable under S, relative to the most probable one."""
    answer_batch: int = Field(default=16, ge=1)
    """Answers drawn at once; part of what decides the draw, so change it only together with the seed."""
    floors: Floors = Floors()
    """An answer below any of these loses; if the base model's is too, they tie."""
    description_tokens: int = Field(default=40, ge=1)
    """Most tokens of a description that a method writes itself."""
    corruption: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.25, 0.5, 1.0)
    """Shares of a description's words that are replaced by other descriptions' words, to see what hangs on it."""
    robustness: RobustnessConfig = RobustnessConfig()
    """Wrong labels, other topics, other orders of the shots."""
    reward_models: tuple[RewardModelConfig, ...] = ()
    """Reward models from elsewhere that are measured on the same items and stand in the same table."""
    judges: tuple[JudgeConfig, ...] = ()
    """Further judges of the same answers, beside the one that labelled the data, which stays the headline."""
    match: tuple[Matched, ...] = ()
    """Judge the answers once more where these are alike on both sides: `format` stripped, `length` within a band."""
    match_band: float = Field(default=1.25, ge=1)
    """Under `match: [length]`, the longer answer has at most so many times the characters of the shorter."""
    tax: TaxConfig | None = None
    """What personalisation costs on general instructions and refusals; null: not measured, {}: with the defaults."""
    observer_noise: float = Field(default=0.02, gt=0, lt=0.5)
    """The ideal observer's chance of a label against the user's own utilities."""
    observer_prior: Literal["auto", "family", "trained", "sampled"] = "auto"
    """Whom the observer expects: axis and pair users (`family`), users like those of the training part (`trained`),
    weights in any direction (`sampled`, 500 draws); `auto`: the family where it holds all users, else the trained."""
    layout: LayoutName = "labelled"
    """How shots are shown; by default the run's `layout`, in which its policies are trained."""
    max_length: int | None = Field(default=None, ge=32)
    """Longest context in tokens; older shots are dropped whole. Null: what the model takes."""
    long_rows: Literal["leave-out", "refuse"] = "leave-out"
    """What is done with preferences that some method can't read within `max_length` without any shot, or whose prompt
    leaves an answer no room: they are left out for all methods, which is said, or the evaluation is refused."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic and weights of the models that are evaluated."""

    def endpoints(self) -> list[EndpointConfig]:
        """The endpoints of all judges and reward models, in the order of the settings."""
        judges = (*self.judges, *(self.tax.judges if self.tax else ()))
        found = [*(judge.endpoint for judge in judges), *(model.endpoint for model in self.reward_models)]
        return [endpoint for endpoint in found if endpoint is not None]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.headline_reward == "antisymmetric" and not self.label_flip:
            raise ValueError(
                "headline_reward: the antisymmetric reward needs the flipped context; set label_flip to true"
            )
        if self.answers and self.headline_sampling not in self.samplings:
            raise ValueError(f"headline_sampling: {self.headline_sampling} is not among the samplings; add it there")
        _check_names("reward_models", self.reward_models)
        _check_names("judges", self.judges)
        return self

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is measured, ready for JSON."""
        return self.model_dump(mode="json", exclude=set(_ADDED | _AFTERWARDS))

    def with_rungs(self, rungs: Iterable[int]) -> EvaluationConfig:
        """The same with these shot counts in the ladder too."""
        return self.model_copy(update={"ladder": tuple(sorted({*self.ladder, *rungs}))})

    def for_reading(self) -> EvaluationConfig:
        """The same where nobody judges the answers: one prompt of each user, by the samplings that the report shows."""
        shown = dict.fromkeys(("plain", self.headline_sampling))
        return self.model_copy(
            update={"answers": min(self.answers, 1), "samplings": tuple(shown), "answer_ladder": (), "match": ()}
        )

    @property
    def mirrored_ladder(self) -> bool:
        """Whether the flipped context is scored at every shot count too."""
        return self.antisymmetric_ladder or self.headline_reward == "antisymmetric"

    @property
    def mirrored_swap(self) -> bool:
        """Whether another user's shots are scored with flipped labels too."""
        return self.antisymmetric_swap or self.headline_reward == "antisymmetric"

    @property
    def wrong_labels(self) -> dict[float, int]:
        """Share -> how many shots of a full context that is; of shares that come to the same the nearest one stays."""
        counted: dict[int, float] = {}
        for share in self.robustness.wrong_labels:
            count = max(1, round(share * self.shots))
            if count not in counted or abs(share * self.shots - count) < abs(counted[count] * self.shots - count):
                counted[count] = share
        return {share: count for count, share in counted.items()}

    @property
    def rungs(self) -> tuple[int, ...]:
        """The shot counts measured, `shots` included."""
        return tuple(sorted({k for k in self.ladder if k < self.shots} | {self.shots}))


def _check_names(where: str, entries: Iterable[JudgeConfig | RewardModelConfig]) -> None:
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: a name is given twice; every entry needs one of its own")


def percent(share: float) -> str:
    """A share as it stands in the names of measures and conditions: 0.1 is `10`, 0.125 is `12.5`."""
    return f"{share * 100:g}"
