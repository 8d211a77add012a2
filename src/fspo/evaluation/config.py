"""What is evaluated, how thoroughly, and which variants are the headline."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fspo.evaluation.quality import Floors

__all__ = ["EvaluationConfig", "Reduction", "RewardVariant", "Sampling"]

RewardVariant = Literal["reference", "antisymmetric", "likelihood"]
"""How a margin comes about; see `fspo.evaluation.rewards`."""

Sampling = Literal["plain", "guided"]
"""How an answer is drawn; see `fspo.evaluation.winrates`."""

Reduction = Literal["sum", "mean"]


class EvaluationConfig(BaseModel):
    """Settings of `evaluate`. A user costs about `shots + queries * (2 + len(ladder))` pairs of tokens a method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    """Draws the episodes, the donors of swapped shots and the answers."""
    users: int | None = Field(default=None, ge=1)
    """At most so many held-out users, drawn evenly from their groups; null: all of them."""
    shots: int = Field(default=8, ge=1)
    """Shots of a full context, at which everything but the ladder is measured."""
    ladder: tuple[int, ...] = (0, 1, 2, 4, 8)
    """Shot counts at which accuracy is measured; those above `shots` are left out, `shots` itself is always in."""
    episodes: int = Field(default=1, ge=1)
    """Episodes (draws of shots and queries) of each user."""
    queries: int = Field(default=8, ge=1)
    """Held-out preferences of each episode."""
    ladder_queries: int | None = Field(default=None, ge=1)
    """At shot counts below the full one, only so many queries of each episode; null: all of them."""
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
    max_new_tokens: int = Field(default=48, ge=1)
    temperature: float = Field(default=0.7, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
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
    corruption: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of a description's words that are replaced by other descriptions' words, to see what hangs on it."""
    observer_noise: float = Field(default=0.02, gt=0, lt=0.5)
    """The ideal observer's chance of a label against the user's own utilities."""
    observer_prior: Literal["family", "sampled"] = "family"
    """Whether the observer expects axis and pair users, or weights in any direction (500 draws)."""
    max_length: int | None = Field(default=None, ge=32)
    """Longest context in tokens; older shots are dropped whole. Null: what the model takes."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @field_validator("ladder")
    @classmethod
    def _counts(cls, ladder: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 0 for k in ladder):
            raise ValueError("shot counts can't be negative")
        return tuple(sorted(set(ladder)))

    @field_validator("corruption")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= share <= 1 for share in shares):
            raise ValueError("shares must lie between 0 and 1")
        return shares

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.headline_reward == "antisymmetric" and not self.label_flip:
            raise ValueError(
                "headline_reward: the antisymmetric reward needs the flipped context; set label_flip to true"
            )
        if self.answers and self.headline_sampling not in self.samplings:
            raise ValueError(f"headline_sampling: {self.headline_sampling} is not among the samplings; add it there")
        return self

    @property
    def mirrored_ladder(self) -> bool:
        """Whether the flipped context is scored at every shot count too."""
        return self.antisymmetric_ladder or self.headline_reward == "antisymmetric"

    @property
    def mirrored_swap(self) -> bool:
        """Whether another user's shots are scored with flipped labels too."""
        return self.antisymmetric_swap or self.headline_reward == "antisymmetric"

    @property
    def rungs(self) -> tuple[int, ...]:
        """The shot counts measured, `shots` included."""
        return tuple(sorted({k for k in self.ladder if k < self.shots} | {self.shots}))
