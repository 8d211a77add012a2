"""What is evaluated, how thoroughly, and which variants are the headline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fspo.errors import ConfigError
from fspo.llm.endpoint_config import EndpointConfig
from fspo.methods.played_users import MESSAGE_TOKENS
from fspo.methods.reader_table import READERS
from fspo.methods.table import METHODS
from fspo.modeling.layouts import DEFAULT_LAYOUT, EARLIER_LAYOUT, LayoutName
from fspo.modeling.reduction import Reduction
from fspo.paths import PlaceName
from fspo.pydantic_errors import Section

__all__ = [
    "BASE",
    "HEADLINE",
    "REFERENCE",
    "ConversationConfig",
    "EvaluationConfig",
    "Floors",
    "JudgeConfig",
    "Matched",
    "RewardModelConfig",
    "RewardVariant",
    "RobustnessConfig",
    "Sampling",
    "TaxConfig",
    "percent",
]

RewardVariant = Literal["reference", "antisymmetric", "likelihood", "score"]
"""How a margin comes about; see `scoring.logprob_scores`. An external reward model gives its own `score`."""

Sampling = Literal["plain", "guided"]
"""How an answer is drawn; see `fspo.evaluation.judges.win_rates`."""

BASE = "base"
"""The untrained model that knows no user, which methods' answers are compared with."""

REFERENCE = "-reference"
"""Follows a method's name in the folder of the scores of the model that the method's reward is measured against."""

HEADLINE = "headline"
"""What the judge of `win_rate` is called beside others."""

Matched = Literal["length", "format"]

_IN_ORDER = AfterValidator(lambda values: tuple(sorted(set(values))))


def _of_this_machine(dtype: object) -> object:
    if dtype != "auto":
        return dtype
    from fspo.modeling.loading import fast_dtype  # here, since it imports torch

    return fast_dtype()


_Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], _IN_ORDER]


class Floors(Section):
    """Minimum values of an answer. Below one of them it loses with every judge, or ties with another one below."""

    log_prob: float = -5.5
    """Mean log-prob per token under the base model given the question alone, in nats. Under SmolLM2-135M, short reviews
    have -2 to -5, even with emoji or bullet points, and shuffled words -6.5 to -8."""
    distinct: float = Field(default=0.5, ge=0, le=1)
    """Share of different word pairs in the answer."""
    closeness: float = Field(default=0.0, ge=0, le=1)
    """Tf-idf cosine with the question; 0 by default, since a good short answer may share no word with it."""
    words: int = Field(default=2, ge=0)
    """Words in the answer."""


class RobustnessConfig(Section):
    """More conditions for the full context, on a part of the users; each costs one more trunk per user."""

    users: int | None = Field(default=6, ge=0)
    """Maximum number of the evaluated users, with their first episode; 0: no robustness measures, null: all users."""
    queries: int | None = Field(default=3, ge=1)
    """Maximum number of queries of each episode; null: all."""
    wrong_labels: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], _IN_ORDER] = (0.1, 0.25)
    """Shares of the shots whose labels are swapped, at least one shot each."""
    other_topics: bool = True
    """Use shots from other topics than the queries, if the data name topics."""
    orders: int = Field(default=2, ge=0)
    """Number of other orders of the same shots."""
    single_shots: bool = False
    """Swap each shot's label alone, to see whether the method reads one shot or all. Costs one more trunk per user for
    each shot."""


class JudgeConfig(Section):
    """One more judge of the same answers; exactly one of endpoint, attributes and likes is set."""

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    """Its name in the results."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that sees the user's description and compares in both orders."""
    attributes: tuple[str, ...] = ()
    """Measured attributes: the judge uses the users' own weights for these alone."""
    likes: dict[str, float] = Field(default_factory=dict)
    """Weights of measured attributes that are the same for every user: `{length: 1}` prefers the longer answer."""
    weighted: bool = False
    """Use the probability of an endpoint's answer (from log-probs) instead of the answer alone."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of an endpoint's answer, including its reasoning; by default 48, or 4 if `weighted`."""
    prompt: str | None = None
    """A prompt for an endpoint that replaces the default, with {description}, {question}, {first} and {second}."""
    margin: float = Field(default=0.0, ge=0)
    """For a judge of attributes: utilities that differ by less than this are a tie, in standard deviations."""

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


class RewardModelConfig(Section):
    """An external reward model, evaluated beside the methods; exactly one of model, endpoint and scorer is set."""

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    """Its name in the results."""
    model: PlaceName | None = None
    """A sequence-classification model of transformers with one output: a local folder or a hub id."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that sees the shots and rates the response."""
    scorer: str | None = None
    """Your own code as `module:name`, which Python must be able to import: a function of (shots, prompt, response), or
    a `RewardModel`."""
    shots: bool = True
    """Whether it sees the user's shots; without them it is a baseline that knows no user."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of an endpoint's rating, including its reasoning; by default 12."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.model, self.endpoint, self.scorer)) != 1:
            raise ValueError(f"the reward model '{self.name}' needs exactly one of model, endpoint and scorer")
        if self.endpoint is None and self.max_tokens is not None:
            raise ValueError(f"the reward model '{self.name}' has no endpoint to keep to max_tokens; leave that out")
        if self.name in METHODS or self.name in READERS or self.name.endswith(REFERENCE):
            raise ValueError(f"a reward model can't be called '{self.name}', which is taken; call it otherwise")
        return self


class TaxConfig(Section):
    """A user costs `general + open + 2 * refusals` answers of each method; all weights score the items again."""

    users: int | None = Field(default=6, ge=1)
    """Maximum number of the evaluated users, with the shots of their first episode; null: all users."""
    general: int = Field(default=10, ge=0)
    """General instructions for each user. Users take turns: six of them cover all sixty."""
    refusals: int = Field(default=5, ge=0)
    """Harmful requests for each user, also in turns. Each is asked twice, the second time with itself in the shots."""
    open: int = Field(default=5, ge=0)
    """Open instructions for each user, also in turns; only if there are judges of the answers."""
    judges: tuple[JudgeConfig, ...] = ()
    """Endpoints that judge which answer to an open instruction is better for anybody, the method's or the base model's;
    `tax_open` uses the first."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Maximum length of an answer, in tokens. Answers are the most probable ones, without sampling."""

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


class ConversationConfig(Section):
    """Conversations with simulated users, whose taste becomes known turn by turn; `turns` answers for each user."""

    turns: int = Field(default=10, ge=2)
    """Questions that each user asks."""
    users: int | None = Field(default=12, ge=1)
    """Maximum number of the evaluated users; null: all users with so many questions."""
    responses: int = Field(default=8, ge=1)
    """Scripted users: maximum number of responses in the data that an answer is compared with."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint whose model plays the users by their descriptions and rates the answers; null:
    scripted users."""
    message_tokens: int = Field(default=MESSAGE_TOKENS, ge=1)
    """endpoint: maximum tokens of a user's message or a rating, reasoning included."""


_COLD = (0, 1)
"""Shot counts of a user nothing, or next to nothing, is known of; always measured."""

_ADDED = frozenset(
    {"conversations", "judges", "match", "match_band", "tax", "answer_ladder", "reward_models", "best_of"}
)
"""Settings that add to what was measured and change nothing of it."""

_AFTERWARDS = frozenset({"floors", "long_rows", "observer_noise", "observer_prior"})
"""Settings that are applied each time to what was measured, or before it."""


class EvaluationConfig(Section):
    """Settings of `evaluate`. Each method reads about `shots + queries * (2 + len(ladder))` pairs per user."""

    seed: int = 0
    """Seed of the episodes, the donors of swapped shots and the answers; by default the run's seed."""
    users: int | None = Field(default=None, ge=1)
    """Maximum number of held-out users, taken evenly from their groups; null: all."""
    shots: int = Field(default=8, ge=1)
    """Number of shots in the full context. Everything but the ladder is measured there."""
    ladder: _Counts = (0, 1, 2, 4, 8)
    """Numbers of shots at which accuracy is measured. `shots` is always included, and larger numbers are left out."""
    episodes: int = Field(default=1, ge=1)
    """Episodes of each user; each has its own shots and queries."""
    queries: int = Field(default=8, ge=1)
    """Held-out preferences in each episode."""
    skip_short_users: bool = False
    """Leave out held-out users with too few preferences instead of stopping."""
    ladder_queries: int | None = Field(default=None, ge=1)
    """Use only this many queries of each episode below the full number of shots; null: all. The curve is measured on
    these."""
    label_flip: bool = True
    """Score the queries again with swapped labels of the shots; the antisymmetric reward needs this too."""
    user_swap: bool = True
    """Score the queries again with another user's shots."""
    antisymmetric_swap: bool = True
    """Also measure the user-swap drop of the antisymmetric reward, which takes one more trunk. Always on if this reward
    is the headline."""
    antisymmetric_ladder: bool = False
    """Measure the antisymmetric reward at every number of shots, not only the full one. Always on if this reward is the
    headline."""
    reduction: Reduction = "sum"
    """Log-prob of a response: `sum` over its tokens (as in the paper), their `mean`, or `discounted`, the sum in which
    the t-th token counts 1 / sqrt(t)."""
    headline_reward: Literal["reference", "antisymmetric"] = "reference"
    """The reward that `reward_accuracy`, `reward_accuracy@k` and `user_swap_drop` use."""
    headline_sampling: Sampling = "plain"
    """The sampling that `win_rate` uses."""
    answers: int = Field(default=4, ge=0)
    """Held-out prompts to answer for each user; 0: no win rates."""
    samplings: tuple[Sampling, ...] = ("plain", "guided")
    """How answers are sampled: `plain`, or `guided` away from the mirrored user."""
    answer_ladder: _Counts = ()
    """Smaller numbers of shots at which answers are sampled too, by the headline sampling, for the win rate by number
    of shots. Each costs as much as the answers themselves."""
    best_of: int = Field(default=0, ge=0)
    """Readers and external reward models choose their answer from this many answers of the base model, by their reward
    given the user's shots. All of them choose from the same ones. 0: they give no answers."""
    max_new_tokens: int = Field(default=48, ge=1)
    """Maximum length of an answer, in tokens."""
    temperature: float = Field(default=0.7, gt=0)
    """Temperature of the answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the smallest set of most probable tokens with this total probability."""
    guidance: float = Field(default=2.0, ge=0)
    """Strength of mirror guidance: (1 + g) log p(.|S) - g log p(.|S')."""
    plausibility: float = Field(default=0.1, gt=0, le=1)
    """Minimum probability of a guided token under S, relative to the most probable one."""
    answer_batch: int = Field(default=16, ge=1)
    """Answers sampled at once. It affects the samples, so change it only together with the seed."""
    floors: Floors = Floors()
    """An answer below any of these loses; if the base model's answer is below one too, they tie."""
    description_tokens: int = Field(default=40, ge=1)
    """Maximum length of a description or a summary that a method writes itself, in tokens."""
    corruption: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.25, 0.5, 1.0)
    """Shares of a description's words to replace with words of other descriptions, to see how much depends on it."""
    robustness: RobustnessConfig = RobustnessConfig()
    """Wrong labels, other topics and other orders of the shots."""
    reward_models: tuple[RewardModelConfig, ...] = ()
    """External reward models, measured on the same items and shown in the same table."""
    judges: tuple[JudgeConfig, ...] = ()
    """More judges of the same answers. The judge that labelled the data stays the headline."""
    match: tuple[Matched, ...] = ()
    """Judge the answers again after making both sides alike: `format` is stripped, `length` must be within a band."""
    match_band: float = Field(default=1.25, ge=1)
    """With `match: [length]`: the longer answer may have this many times the characters of the shorter one."""
    tax: TaxConfig | None = None
    """What personalisation costs on general instructions and refusals; null: not measured, {}: measured with the
    defaults."""
    conversations: ConversationConfig | None = None
    """How answers come to fit a user in a conversation, turn by turn; null: not measured, {}: measured with the
    defaults."""
    observer_noise: float = Field(default=0.02, gt=0, lt=0.5)
    """The ideal observer's probability that a label contradicts the user's utilities."""
    observer_prior: Literal["auto", "family", "trained", "sampled"] = "auto"
    """Which users the observer expects. `family`: axis and pair users; `trained`: users like those of the training
    part; `sampled`: weights in any direction (500 draws); `auto`: `family` if it contains all users, otherwise
    `trained`."""
    layout: LayoutName = DEFAULT_LAYOUT
    """How shots are shown; it is the run's `layout`."""
    max_length: int | None = Field(default=None, ge=32)
    """Maximum context in tokens; the oldest shots are dropped first. Null: what the model can read."""
    long_rows: Literal["leave-out", "refuse"] = "leave-out"
    """What to do with preferences that a method can't read within `max_length` even without shots, or whose prompt
    leaves no room for an answer: leave them out for all methods and report them, or refuse to evaluate."""
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], BeforeValidator(_of_this_machine)] = "float32"
    """Precision of the evaluated models. `auto` becomes bfloat16 if the device has instructions for it, otherwise
    float32, when the configuration is read."""

    def endpoints(self) -> list[EndpointConfig]:
        """The endpoints of judges, reward models and played users; new kinds last, since the order names files."""
        judges = (*self.judges, *(self.tax.judges if self.tax else ()))
        found = [*(judge.endpoint for judge in judges), *(model.endpoint for model in self.reward_models)]
        found += [] if self.conversations is None else [self.conversations.endpoint]
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

    @classmethod
    def usual(cls) -> dict[str, Any]:
        """What the settings were of an evaluation that does not have them on record, in the form of `identity`."""
        return {**cls().identity(), "layout": EARLIER_LAYOUT}

    def with_rungs(self, rungs: Iterable[int]) -> EvaluationConfig:
        """The same with those of these shot counts in the ladder too that are shown, and always with 0 and 1."""
        shown = (k for k in (*_COLD, *rungs) if k <= self.shots)
        return self.model_copy(update={"ladder": tuple(sorted({*self.ladder, *shown}))})

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
