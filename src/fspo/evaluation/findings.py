"""What the figures say against the method, and what they can't say: sentences for the report, by rule."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fspo.evaluation.statistics import Estimate

__all__ = ["Metrics", "caveats", "headline", "negatives"]

Metrics = Mapping[str, Mapping[str, Estimate]]
"""method -> measure -> estimate."""

_CHANCE: Mapping[str, float] = MappingProxyType(
    {"reward_accuracy": 0.5, "win_rate": 0.5, "win_rate_length_controlled": 0.5, "user_swap_drop": 0.0}
)
_GAINS: Mapping[str, str] = MappingProxyType(
    {
        "gain_over_population": "the model of the whole population",
        "gain_over_no_context": "itself without shots",
        "first_shot_gain": "itself without shots, from one shot",
    }
)
"""Measure -> whom a method that personalises is to be better than."""
_LOSSES: Mapping[str, str] = MappingProxyType(
    {
        "tax_general": "of general instructions followed, against the base model",
        "tax_refusal": "of harmful requests refused, against the base model",
        "tax_refusal/injected": "of harmful requests refused, against the base model, with such requests in the shots",
        "tax_open": "of preference on open instructions, before a judge who knows no user, against the base model",
        "other_topics_drop": "of reward accuracy where the shots are on other topics than the query",
        "shortfall": "of reward accuracy to an ideal observer of the same shots",
    }
)
_FEWEST_USERS = 20
_FEW_CUT = 0.1
_KNOWN_FLIP_RATE = 0.14
"""What a trained in-context reward model was found to reach; it had learned contents, not labels."""


def headline(metrics: Metrics, method: str, variants: Mapping[str, str] = MappingProxyType({})) -> str:
    """One sentence of what came out for `method`; empty where nothing was measured.

    `variants` name the reward and the sampling that its headline figures are of.
    """
    measures = metrics.get(method, {})
    parts = []
    if accuracy := measures.get("reward_accuracy"):
        by = f" by the {variants['reward']} reward" if "reward" in variants else ""
        parts.append(f"ranks the preferred of two responses first in {_said(accuracy)} of held-out pairs{by}")
    if win := measures.get("win_rate"):
        by = f" with {variants['sampling']} sampling" if "sampling" in variants else ""
        parts.append(f"has a win rate of {_said(win)} over the base model's answer{by}")
    return f"{method} {' and '.join(parts)}." if parts else ""


def negatives(metrics: Metrics, details: Mapping[str, Any]) -> list[str]:
    """Everything that came out against a method: chance within the interval, labels or users of no consequence."""
    found = [sentence for name, measures in metrics.items() for sentence in _against(name, measures)]
    for name, dropped in details.get("dropped_shots", {}).items():
        if dropped:
            found.append(f"{name}: {dropped} shots had to be left out because the context was too long.")
    for name, counts in details.get("judgements", {}).items():
        if counts.get("inconsistent"):
            found.append(
                f"{name}: the judge contradicted itself when the order was swapped on {counts['inconsistent']} of "
                f"{counts['items']} comparisons; each counts as a tie."
            )
        if rejects := counts.get("unreadable", 0) + counts.get("refused", 0):
            found.append(
                f"{name}: the judge named neither answer on {rejects} of {counts['items']} comparisons, which are left "
                f"out ({counts.get('refused', 0)} of them were refused)."
            )
        if counts.get("base_below_floor"):
            found.append(
                f"{name}: the base model's answer fell below a floor on {counts['base_below_floor']} of "
                f"{counts['items']} comparisons; each that the method's own answer did not fall below was won for "
                "nothing."
            )
        if counts.get("below_floor"):
            found.append(
                f"{name}: {counts['below_floor']} of {counts['items']} answers fell below a floor and did not win."
            )
    return found


def caveats(metrics: Metrics, details: Mapping[str, Any], unequal_training: str = "") -> list[str]:
    """What the figures do not show; `unequal_training` is a sentence on that, if there is one to say."""
    users = max((estimate.users for measures in metrics.values() for estimate in measures.values()), default=0)
    found = []
    if 0 < users < _FEWEST_USERS:
        found.append(f"The intervals rest on {users} users; differences smaller than the intervals may be chance.")
    if details.get("judge_kind") == "attributes":
        found.append(
            "The users are weightings of attributes measured in the text, and the judge is the same measurement: these "
            "figures say that the model reads such weightings out of labels, not that people would like its answers."
        )
    found += [
        "One domain, one model and one seed: nothing here says how far the figures move with another of either.",
        "Reward accuracy predicts the quality of answers poorly; where only one of them rose, believe only that one.",
        "The floors catch gibberish and repetition, not falsehood: nothing checks whether an answer is true.",
        "All users share the held-out questions and the responses to them, which intervals clustered by user do not "
        "cover: with other questions the figures may move further.",
        "The intervals are for each figure alone; among many figures, one in twenty misses by chance.",
    ]
    if cut := _cut_off(metrics):
        found.append(cut)
    if unequal_training:
        found.append(unequal_training)
    if "base" in metrics:
        found.append(
            "The base model without context has no reference to be compared with; its reward is the plain "
            "log-likelihood, which leans towards short responses."
        )
    return found


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
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return (
        f"Answers longer than the limit of tokens are judged as they stand, cut off: {said}. Part of a win rate may be "
        "that the other answer was cut."
    )


def _against(name: str, measures: Mapping[str, Estimate]) -> list[str]:
    found = []
    for measure, estimate in measures.items() if name != "base" else ():
        family, _, variant = measure.partition("/")
        if (
            family not in _CHANCE
            or variant == "likelihood"
            or "@" in variant
            or (not variant and _has_variants(family, measures))
        ):
            continue
        label = family.replace("_", " ") + (f" ({variant})" if variant else "")
        chance = _CHANCE[family]
        if estimate.low is None or estimate.high is None:
            found.append(f"{name}: the {label} of {_said(estimate)} has no interval, from {estimate.users} users.")
        elif estimate.high < chance:
            found.append(f"{name}: the {label} of {_said(estimate)} lies below {chance:.0%}.")
        elif estimate.low <= chance:
            found.append(f"{name}: the {label} of {_said(estimate)} can't be told from {chance:.0%}.")
    for measure, whom in _GAINS.items():
        gain = measures.get(measure)
        if gain is not None and (gain.low is None or gain.low <= 0):
            why = f", without an interval from {gain.users} users" if gain.low is None else ""
            found.append(f"{name}: no gain in reward accuracy over {whom} can be told ({_said(gain)}{why}).")
    for measure, what in _LOSSES.items():
        loss = measures.get(measure)
        if loss is not None and loss.low is not None and loss.low > 0:
            found.append(f"{name}: loses {_said(loss)} {what}.")
    flips = measures.get("label_flip_rate")
    if flips is not None and flips.value < 0.5:
        known = " (a reward model that ignored labels was at 14 %)" if flips.value <= _KNOWN_FLIP_RATE else ""
        found.append(
            f"{name}: flipping every label in the context changes only {_said(flips)} of its decisions{known}."
        )
    return found


def _has_variants(family: str, measures: Mapping[str, Estimate]) -> bool:
    return any(measure.startswith(f"{family}/") for measure in measures)


def _said(estimate: Estimate) -> str:
    text = f"{estimate.value * 100:.1f} %"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low * 100:.1f}, {estimate.high * 100:.1f}]"
