"""The settings of one training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.modeling.layouts import DEFAULT_LAYOUT, EARLIER_LAYOUT, LayoutName
from fspo.modeling.reduction import Reduction

__all__ = ["AGAINST_REFERENCE", "HARMLESS", "SMOOTHED", "LoraSettings", "Objective", "TrainingConfig"]

HARMLESS = frozenset(
    {
        "evaluate_every",
        "evaluate_episodes",
        "gradient_checkpointing",
        "long_rows",
        "precompute_reference",
        "report_to",
        "row_tokens",
        "save_every",
        "save_minutes",
    }
)
"""Settings that may change from one call to the next, since they don't change what is learned."""

Objective = Literal["pref-ft", "ipo", "dpo", "robust-dpo", "hinge", "simpo", "mirrored-contrast"]

AGAINST_REFERENCE = frozenset({"ipo", "dpo", "robust-dpo", "hinge"})
"""Objectives whose reward is beta times the margin over the reference."""
SMOOTHED = frozenset({"dpo", "robust-dpo", "simpo"})
"""Objectives that can assume labels to be wrong."""


Needs = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""Setting -> what it needs to have an effect, in words and as a check of the settings."""

_CONTRAST = "objective mirrored-contrast"

_NEEDS: Needs = MappingProxyType(
    {
        "gamma": ("objective simpo", lambda config: config.objective == "simpo"),
        "target": (
            f"{_CONTRAST} with contrast squared or direction",
            lambda config: config.objective == "mirrored-contrast" and config.contrast != "logistic",
        ),
        "observer_scale": ("target observer", lambda config: config.follows_observer),
        "contrast": (_CONTRAST, lambda config: config.objective == "mirrored-contrast"),
        "scale": (
            f"{_CONTRAST} with contrast logistic",
            lambda config: config.objective == "mirrored-contrast" and config.contrast == "logistic",
        ),
        "bias_weight": (_CONTRAST, lambda config: config.objective == "mirrored-contrast"),
        "pref_ft_weight": ("an objective other than pref-ft", lambda config: config.objective != "pref-ft"),
        "rungs_per_query": ("ladder", lambda config: config.ladder is not None),
        "precompute_reference": (
            f"objective {', '.join(sorted(AGAINST_REFERENCE))}, or mirrored-contrast with bias_weight",
            lambda config: config.needs_reference,
        ),
        "description_weight": ("describe gold or own", lambda config: config.describe != "none"),
        "description_beta": ("describe own", lambda config: config.describe == "own"),
        "description_tokens": ("describe gold or own", lambda config: config.describe != "none"),
        "drafts": ("describe own", lambda config: config.describe == "own"),
        "closeness": ("describe own", lambda config: config.describe == "own"),
    }
)
"""All others always have an effect, or are refused: `beta` and `reference` also decide the reward of a policy."""


class LoraSettings(BaseModel):
    """Low-rank adapters: which weights get one, and how large it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(default=16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(default=32.0, gt=0, description="The adapters' output is scaled by alpha / r.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the adapters.")
    target_modules: list[str] | Literal["all-linear"] = Field(
        default="all-linear",
        description="Names of the layers that get an adapter, such as q_proj, or `all-linear`: all linear "
        "layers except the output layer.",
    )
    last_layers: int | None = Field(
        default=None,
        ge=1,
        description="Put adapters on this many of the last layers only. The backward pass then stops below them.",
    )


class TrainingConfig(BaseModel):
    """How a policy is trained; the defaults suit a small model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs: ClassVar[Needs] = _NEEDS
    """The settings that have an effect only with others; the settings of a method may add theirs."""

    objective: Objective = Field(
        default="ipo", description="What is minimised; docs/training-api.md lists the objectives."
    )
    beta: float = Field(default=0.01, gt=0, description="Scale of the reward; a good value depends on `reduction`.")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="dpo, robust-dpo, simpo: share of the labels that are assumed to be wrong.",
    )
    gamma: float = Field(
        default=0.5, ge=0, description="simpo: the difference in reward that the chosen response should have."
    )
    length_weight: float = Field(
        default=0.0,
        ge=0,
        description="ipo, dpo, robust-dpo, hinge: reward per token that is put down to length alone (R-DPO).",
    )
    target: Annotated[float, Field(gt=0)] | Literal["observer"] = Field(
        default=2.0,
        description="mirrored-contrast, squared: the effect of the labels to aim at, in nats. `observer`: the "
        "log-odds that an ideal observer gives the label after the same shots; the users' traits "
        "must be known. Set a number above the effect before training, which is the `effect` of step 1 in "
        "`metrics.jsonl`: the loss shrinks a larger effect.",
    )
    observer_scale: float = Field(
        default=1.5, gt=0, description="target observer: nats of effect for one nat of the observer's log-odds."
    )
    responses: int = Field(
        default=2,
        ge=2,
        description="target observer: responses to score for each query. Above 2, other responses to the same "
        "prompt join the labelled two, and every pair of them is trained on.",
    )
    contrast: Literal["squared", "logistic", "direction"] = Field(
        default="squared",
        description="mirrored-contrast: how the effect is increased, by a squared or a logistic loss. `direction`: the "
        "effects of all pairs of a query follow the observer's log-odds, and their size is free; for target observer.",
    )
    scale: float = Field(
        default=1.0,
        gt=0,
        description="mirrored-contrast, logistic: factor on the effect, per nat; a larger one asks for less.",
    )
    bias_weight: float = Field(
        default=0.0,
        ge=0,
        description="mirrored-contrast: weight of the squared bias of the contents; with contrast: direction, of its "
        "length beside that of the effect. Above 0 it needs a reference.",
    )
    pref_ft_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of an added loss: the negative log-likelihood per token of the chosen response.",
    )
    reduction: Reduction = Field(
        default="sum",
        description="Log-probability of a response: `sum` over its tokens (as in the papers), `mean` (as in TRL's "
        "IPO), or `discounted`, the sum in which the t-th token counts 1 / sqrt(t).",
    )
    reference: Literal["shots", "none"] = Field(
        default="shots",
        description="What the reference model sees: `shots`, as the policy does (the paper), or `none`, the "
        "bare prompt (cheaper).",
    )

    mirror: bool = Field(
        default=False, description="Train on each episode together with its mirror; mirrored-contrast always does."
    )
    shots: int = Field(default=4, ge=0, description="N, the number of labelled preferences in the context.")
    queries: int = Field(
        default=4, ge=1, description="K, the number of other preferences of the same user to train on."
    )
    ladder: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None,
        description="Numbers of shots after which queries come. By default all queries come after all shots.",
    )
    rungs_per_query: Literal["all", "one"] = Field(
        default="all", description="With a ladder: put a query after every number of shots, or after one at random."
    )
    episodes: int | None = Field(
        default=None,
        ge=1,
        description="Train on this many fixed episodes, shuffled, again and again. By default every step "
        "draws new ones.",
    )
    precompute_reference: bool = Field(
        default=False,
        description="Score the fixed episodes with the reference once, before the first step. The steps then "
        "need no reference pass and, if all weights are trained, no frozen copy of the model.",
    )
    skip_short_users: bool = Field(
        default=False, description="Leave out users with too few preferences instead of stopping."
    )

    describe: Literal["none", "gold", "own"] = Field(
        default="none",
        description="The description beside the shots. `none`: there is none. `gold`: the user's own, which "
        "the model also learns to write. `own`: one of the model's drafts; it learns to prefer "
        "the draft that is closer in meaning to the user's own.",
    )
    description_weight: float = Field(
        default=1.0,
        ge=0,
        description="describe: weight of the loss on descriptions, relative to the loss on responses.",
    )
    description_beta: float = Field(default=0.1, gt=0, description="describe own: beta of the IPO loss on two drafts.")
    description_tokens: int = Field(
        default=40,
        ge=1,
        description="describe gold or own: maximum length of a description that the model writes, in tokens.",
    )
    drafts: int = Field(default=4, ge=2, description="describe own: drafts of each user's description in a step.")
    closeness: Literal["sentences", "words"] = Field(
        default="sentences",
        description="describe own: measure closeness by a sentence embedder, or by the share of common words.",
    )

    users_per_step: int = Field(default=4, ge=1, description="Episodes in one optimizer step, each of one user.")
    steps: int = Field(default=100, ge=1, description="Optimizer steps.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="Schedule of the learning rate after the warm-up."
    )
    warmup: int = Field(
        default=5,
        ge=0,
        description="Steps in which the learning rate rises from 0; in a training with no more `steps` than that, all "
        "but the last.",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay of AdamW.")
    max_grad_norm: float = Field(default=1.0, ge=0, description="Clip gradients to this norm; 0 does not clip.")
    lora: LoraSettings | None = Field(
        default_factory=LoraSettings, description="Low-rank adapters; null trains all weights."
    )

    layout: LayoutName = Field(
        default=DEFAULT_LAYOUT,
        description="How shots are shown: `labelled`, in one message with labels, or `conversation`, as turns "
        "with the liked answers.",
    )
    max_length: int | None = Field(
        default=None,
        ge=1,
        description="Maximum tokens of context and response together; by default what the model can read.",
    )
    long_rows: Literal["leave-out", "refuse"] = Field(
        default="leave-out",
        description="What to do with preferences that are longer than max_length even without shots: leave "
        "them out and report them, or refuse to train.",
    )
    row_tokens: int = Field(
        default=4096,
        ge=1,
        description="Maximum tokens in one forward pass; a step with more takes several passes. Lower it to "
        "save memory.",
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="Precision of the forward pass; weights and optimizer stay in float32. `auto`: bfloat16 "
        "if the device has instructions for it, otherwise float32.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: less memory, more time."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of episodes, new adapters and dropout.")
    save_every: int = Field(
        default=25, ge=1, description="Steps between checkpoints. An interrupted training resumes from the newest one."
    )
    save_minutes: float = Field(
        default=5.0,
        ge=0,
        description="Also save a checkpoint after this many minutes; 0: only after `save_every` steps.",
    )
    evaluate_every: int = Field(
        default=0,
        ge=0,
        description="Steps between evaluations on the validation part, if there is one; 0: no evaluation.",
    )
    evaluate_episodes: int = Field(default=16, ge=1, description="Episodes of each such evaluation, always the same.")
    keep_best: bool = Field(
        default=False,
        description="Keep the weights with the best eval_margin_accuracy (if equal, eval_margin) instead of "
        "the last ones.",
    )
    patience: int = Field(
        default=0, ge=0, description="Stop after this many evaluations without a better one; 0: never."
    )
    report_to: str | list[str] = Field(
        default=[],
        description="Trackers of transformers that also get the metrics: tensorboard, wandb, trackio or "
        "another, as a name or a list.",
    )

    @property
    def mirrors(self) -> bool:
        """Whether each episode is trained on together with its mirror."""
        return self.mirror or self.objective == "mirrored-contrast"

    @property
    def compares_pairs(self) -> bool:
        """Whether the objective measures the margins of pairs against a reference model."""
        return self.objective in AGAINST_REFERENCE or (self.objective == "mirrored-contrast" and self.bias_weight > 0)

    @property
    def follows_observer(self) -> bool:
        """Whether the effects aimed at are an ideal observer's."""
        return self.objective == "mirrored-contrast" and self.target == "observer"

    @property
    def constant_target(self) -> float | None:
        """The effect that all pairs are pulled to, in nats; None where their effects are free or an observer's."""
        pulled = self.objective == "mirrored-contrast" and self.contrast == "squared"
        return self.target if pulled and self.target != "observer" else None

    @property
    def needs_reference(self) -> bool:
        """Whether anything is measured against a reference model: pairs, or drafts of a description."""
        return self.compares_pairs or self.describe == "own"

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.steps

    @property
    def trackers(self) -> list[str]:
        """The names in `report_to`."""
        names = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        return [name for name in names if name != "none"]

    @property
    def selects(self) -> bool:
        """Whether evaluations during training choose the weights of the policy: `keep_best` or `patience`."""
        return self.keep_best or self.patience > 0

    def without_effect(self, names: Iterable[str]) -> dict[str, str]:
        """Those of the named settings that other settings leave without effect: setting -> what it needs.

        A setting with its default value is never among them.
        """
        fields = type(self).model_fields
        idle = [name for name in names if name in self.idle and getattr(self, name) != fields[name].default]
        return {name: self.needs[name][0] for name in idle}

    @property
    def idle(self) -> frozenset[str]:
        """The settings that change nothing with these others, whatever their values."""
        return frozenset(name for name, (_, has_effect) in self.needs.items() if not has_effect(self))

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is learned, ready for JSON."""
        # Each pass draws its own dropout, so that with it the passes decide too.
        decisive = {"row_tokens"} if self.lora is not None and self.lora.dropout else set()
        if self.selects:
            decisive |= {"evaluate_every", "evaluate_episodes"}
        unused = set() if self.follows_observer else {"observer_scale", "responses"}
        return self.model_dump(mode="json", exclude=set(HARMLESS - decisive) | unused)

    @classmethod
    def usual(cls) -> dict[str, Any]:
        """What the settings were of a training that does not have them on record, in the form of `identity`."""
        defaults = cls.model_construct()  # of some methods they are valid only with those of the method
        return {**defaults.identity(), "layout": EARLIER_LAYOUT}

    @model_validator(mode="before")
    @classmethod
    def _as_defined(cls, values: Any) -> Any:
        """SimPO is defined on means per token."""
        if isinstance(values, dict) and values.get("objective") == "simpo":
            return {"reduction": "mean", **values}
        return values

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.objective == "simpo" and self.reduction != "mean":
            raise ValueError("reduction: simpo is defined on means per token; set mean, or leave it out")
        if self.label_smoothing and self.objective not in SMOOTHED:
            raise ValueError(
                f"label_smoothing: {self.objective} has none; choose {', '.join(sorted(SMOOTHED))}, or set 0"
            )
        if self.target == "observer" and (self.objective != "mirrored-contrast" or self.contrast == "logistic"):
            raise ValueError("target: only a squared mirrored-contrast or its direction can aim at the observer")
        if self.contrast == "direction" and not (self.follows_observer and self.responses > 2):
            raise ValueError("contrast: direction needs target: observer and responses above 2")
        if self.responses > 2 and not self.follows_observer:
            raise ValueError("responses: only the observer knows how others compare; set target: observer, or leave 2")
        if self.responses > 2 and self.precompute_reference:
            raise ValueError("responses: the reference is asked beforehand about labelled pairs alone; leave one out")
        if self.length_weight and self.objective not in AGAINST_REFERENCE:
            raise ValueError(
                f"length_weight: {self.objective} has none; choose {', '.join(sorted(AGAINST_REFERENCE))}, or set 0"
            )
        return self

    @model_validator(mode="after")
    def _known_beforehand(self) -> Self:
        if self.precompute_reference and self.episodes is None:
            raise ValueError(
                "precompute_reference: every step draws new episodes; set episodes to fix how many there are"
            )
        if self.precompute_reference and self.describe == "own":
            raise ValueError("precompute_reference: every step drafts new descriptions; turn it off, or set describe")
        return self

    @model_validator(mode="after")
    def _evaluated(self) -> Self:
        if self.selects and not 0 < self.evaluate_every <= self.steps:
            raise ValueError(
                f"{'keep_best' if self.keep_best else 'patience'}: nothing is evaluated within {self.steps} steps; set "
                "evaluate_every to that many or fewer"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ladder is not None and not self.ladder:
            raise ValueError("ladder: an empty list attaches no query anywhere; name shot counts, or leave it out")
        if self.ladder is not None and max(self.ladder) > self.shots:
            raise ValueError(f"ladder: its highest rung is {max(self.ladder)}, but there are only {self.shots} shots")
        if self.mirrors and self.shots == 0:
            raise ValueError(
                "mirror: without shots there are no labels to swap; set shots, or choose another objective"
            )
        if self.describe != "none" and (self.shots == 0 or self.ladder is not None):
            raise ValueError(
                "describe: a description follows from all shots of an episode; set shots, and leave the ladder out"
            )
        if self.describe == "gold" and self.mirrors:
            raise ValueError(
                "describe: the user's own description contradicts the mirrored labels; set own, or train without mirror"
            )
        if self.describe == "own" and self.objective == "pref-ft":
            raise ValueError("describe: pref-ft has no preference between drafts; set gold, or another objective")
        if self.mirrors and self.ladder is not None and 0 in self.ladder:
            raise ValueError(
                "ladder: after 0 shots an episode and its mirror are the same prompt with opposite labels; "
                "start the ladder at 1, or train without the mirror"
            )
        return self
