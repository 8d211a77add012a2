"""What the figures say first, and what they can't say: sentences for the report, by rule."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fspo.evaluation.statistics import MINIMUM_USERS, Estimate
from fspo.evaluation.wording import percent, said_percent

__all__ = ["Metrics", "caveats", "headline"]

Metrics = Mapping[str, Mapping[str, Estimate]]
"""method -> measure -> estimate."""

_FEWEST_USERS = 20
_FEW_CUT = 0.1


def headline(metrics: Metrics, method: str, variants: Mapping[str, str] = MappingProxyType({})) -> str:
    """One sentence of what came out for `method`; empty where nothing was measured.

    `variants` name the reward and the sampling that its headline figures are of.
    """
    measures = metrics.get(method, {})
    parts = []
    if accuracy := measures.get("reward_accuracy"):
        by = f" by the {variants['reward']} reward" if "reward" in variants else ""
        parts.append(f"ranks the preferred of two responses first in {said_percent(accuracy)} of held-out pairs{by}")
    if win := measures.get("win_rate"):
        by = f" with {variants['sampling']} sampling" if "sampling" in variants else ""
        parts.append(f"has a win rate of {said_percent(win)} over the base model's answer{by}")
    return f"{method} {' and '.join(parts)}." if parts else ""


def caveats(
    metrics: Metrics, details: Mapping[str, Any], unequal_training: str = "", shared_prompts: int | None = None
) -> list[str]:
    """What the figures do not show.

    Args:
        metrics: of all methods.
        details: the contents of `details.json`.
        unequal_training: a sentence on that, if there is one to say.
        shared_prompts: how many prompts several users were asked; None where that isn't known.
    """
    found = [sentence for sentence in (_of_few(metrics),) if sentence]
    if details.get("judge_kind") == "attributes":
        found.append(
            "The users are weightings of attributes measured in the text, and the judge is the same measurement: these "
            "figures say that the model reads such weightings out of labels, not that people would like its answers."
        )
    found.append(
        "One domain, one model and one seed: nothing here says how far the figures move with another of either."
    )
    if any("win_rate" in row for row in metrics.values()):
        found += [
            "Reward accuracy predicts the quality of answers poorly; where only one of them rose, believe only that "
            "one.",
            "The floors catch gibberish and repetition, not falsehood: nothing checks whether an answer is true.",
        ]
    if shared_prompts is None:
        found.append(
            "Users may share held-out questions and the responses to them, which intervals clustered by user do not "
            "cover: with other questions the figures may move further."
        )
    elif shared_prompts:
        were = f"{shared_prompts} held-out questions were" if shared_prompts > 1 else "1 held-out question was"
        found.append(
            f"{were} asked of several users: what is hard about such a question or its responses they share, and "
            "intervals clustered by user do not cover that. With other questions the figures may move further."
        )
    if _with_interval(metrics):
        found.append("The intervals are for each figure alone; among many figures, one in twenty misses by chance.")
    if cut := _cut_off(metrics):
        found.append(cut)
    if unequal_training:
        found.append(unequal_training)
    if "reward_accuracy" in metrics.get("base", {}):
        found.append(
            "The base model without context has no reference to be compared with; its reward is the plain "
            "log-likelihood, which leans towards short responses."
        )
    return found


def _of_few(metrics: Metrics) -> str:
    """A sentence on how few users there are, and what that takes away."""
    everything = [estimate for row in metrics.values() for estimate in row.values()]
    users = max((estimate.users for estimate in everything), default=0)
    if 0 < users < MINIMUM_USERS:
        of = "1 user" if users == 1 else f"{users} users"
        few = "hardly any" if _with_interval(metrics) else "no"
        return f"With only {of}, {few} figure has an interval, and nothing here says what others would have."
    if 0 < users < _FEWEST_USERS and _with_interval(metrics):
        return f"The intervals rest on {users} users; differences smaller than the intervals may be chance."
    return ""


def _with_interval(metrics: Metrics) -> bool:
    return any(estimate.low is not None for row in metrics.values() for estimate in row.values())


def _cut_off(metrics: Metrics) -> str:
    """A sentence on answers that ran into the limit of tokens, where more than a few did."""
    shares = {
        f"{name} {measure.removeprefix('unfinished/')}": estimate.value
        for name, row in metrics.items()
        for measure, estimate in row.items()
        if measure.startswith("unfinished/")
    }
    if max(shares.values(), default=0.0) <= _FEW_CUT:
        return ""
    said = ", ".join(f"{name} {percent(share, 0)}" for name, share in shares.items())
    return (
        f"Answers longer than the limit of tokens are judged as they stand, cut off: {said}. Part of a win rate may be "
        "that the other answer was cut."
    )
