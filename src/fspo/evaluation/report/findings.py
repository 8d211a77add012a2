"""The results that speak against a method: a table of rules, applied to the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from fspo.evaluation.artifacts import CalibrationRecord
from fspo.evaluation.config import BASE
from fspo.evaluation.metrics.summary import single_context_reward
from fspo.evaluation.report.formatting import OPPONENT, Unit, amount, join_names, number, with_interval
from fspo.evaluation.statistics.comparing import Comparison
from fspo.evaluation.statistics.intervals import Estimate
from fspo.methods.table import METHODS

__all__ = ["RULES", "Finding", "Metrics", "Rule", "Standings", "facts", "findings"]

Metrics = Mapping[str, Mapping[str, Estimate]]
"""method -> measure -> estimate."""

_FEW_CUT = 0.1


@dataclass(frozen=True)
class Rule:
    """A threshold that a figure has to clear: with its whole interval above it, or without the interval above it."""

    family: str
    """The measure's name up to its variant (`win_rate` of `win_rate/guided`)."""
    label: str
    threshold: float = 0.0
    good: Literal["above", "not above"] = "above"
    unit: Unit = " points"

    def outcome(self, estimate: Estimate) -> str:
        """How the figure misses the threshold; empty where it clears it."""
        if self.good == "not above":
            return "above" if estimate.low is not None and estimate.low > self.threshold else ""
        if estimate.low is None or estimate.high is None:
            return "no interval"
        if estimate.high < self.threshold:
            return "below"
        return "not distinguishable" if estimate.low <= self.threshold else ""

    @property
    def said_threshold(self) -> str:
        """The threshold in the rule's unit."""
        return amount(self.threshold, self.unit, 0) if self.unit == "%" else number(self.threshold, 0)


RULES: tuple[Rule, ...] = (
    Rule("reward_accuracy", "reward accuracy", 0.5, unit="%"),
    Rule("win_rate", "win rate", 0.5, unit="%"),
    Rule("win_rate_without_floors", "win rate without floors", 0.5, unit="%"),
    Rule("win_rate_length_controlled", "win rate at equal lengths", 0.5, unit="%"),
    Rule("win_rate_matched", "win rate over the baseline's matched answer", 0.5, unit="%"),
    Rule("win_rate_weighted", "win rate, weighted", 0.5, unit="%"),
    Rule("win_rate_by", "win rate by another judge", 0.5, unit="%"),
    Rule("label_flip_rate", "decisions that change with flipped labels", 0.5, unit="%"),
    Rule("user_swap_drop", "accuracy lost with another user's shots"),
    Rule("gain_over_population", "gain over the model of the whole population"),
    Rule("gain_over_no_context", "gain over itself without shots"),
    Rule("gain_over_oracle", "gain over the untrained model with the user's description"),
    Rule("first_shot_gain", "gain from the first shot"),
    Rule("beyond_training_gain", "gain from more shots than it was trained with"),
    Rule("wrong_labels_drop", "accuracy lost with wrong labels", good="not above"),
    Rule("other_topics_drop", "accuracy lost with shots on other topics", good="not above"),
    Rule("shortfall", "accuracy below the ideal observer's", good="not above"),
    Rule("tax_general", "general instructions followed less often", good="not above"),
    Rule("tax_refusal", "harmful requests refused less often", good="not above"),
    Rule("tax_open", "open answers preferred less often", good="not above"),
    Rule("tax_fluency", "less fluent general answers, a token", good="not above", unit=" nats"),
    Rule("overconfidence", "confidence above accuracy", good="not above"),
)
"""Every figure that has a threshold. An accuracy or rate must beat a coin, a gain must exceed 0, a loss must not."""

_OF_FAMILY: Mapping[str, Rule] = MappingProxyType({rule.family: rule for rule in RULES})
_VARIANTS: Mapping[str, str] = MappingProxyType(
    {
        "injected": "such requests in the shots",
        "bare": "without any shot",
        "training": "against the untrained weights with the same shots",
        "fitted": "fitted margins",
    }
)
"""Variants whose name alone says too little."""


@dataclass(frozen=True)
class Finding:
    """One figure that speaks against a method."""

    method: str
    what: str
    value: str
    threshold: str = ""
    outcome: str = ""
    """How the value misses the threshold: `below`, `above`, `not distinguishable`, `no interval`; empty for a count."""


@dataclass(frozen=True)
class Standings:
    """How methods compare with each other, besides the figures of each."""

    lead: str = ""
    """The method that the page is about."""
    paired: Mapping[str, Comparison] = field(default_factory=dict)
    """Method -> the lead less that method in reward accuracy on the same pairs."""
    ranked: Sequence[Mapping[str, Any]] = ()
    """Methods by their answers, the strongest first: `method`, `rank`, `ranks` and `estimate` of each."""
    each_other: bool = False
    """Whether methods' answers met each other's in `ranked`, and not the base model's alone."""
    calibration: Mapping[str, CalibrationRecord] = field(default_factory=dict)
    """The contents of `calibration.json`."""


def findings(metrics: Metrics, details: Mapping[str, Any], standings: Standings | None = None) -> list[Finding]:
    """All results that speak against a method, by `RULES` and by counts of failures (`details.json`)."""
    standings = standings or Standings()
    baseline = details.get("baseline", BASE)
    opponent = OPPONENT if baseline == BASE else baseline
    found = [*_worse_on_pairs(standings), *_ranked(standings, baseline, opponent)]
    for name, measures in metrics.items():
        if name != baseline:  # the yardstick
            found += _missed(name, measures, details)
            found += _uncalibrated(name, measures, standings.calibration.get(name))
    found += [
        Finding(name, "shots left out because the context was too long", str(dropped))
        for name, dropped in details.get("dropped_shots", {}).items()
        if dropped
    ]
    found += [
        Finding(name, "prompts without an answer (left out)", str(count))
        for name, count in details.get("missing", {}).items()
        if count
    ]
    if details.get("too_long"):
        said = "preferences left out because some method can't read them whole"
        found.append(Finding("all methods", said, str(details["too_long"])))
    for name, counts in details.get("judgements", {}).items():
        found += _counted(name, counts, opponent)
    return found


def _worse_on_pairs(standings: Standings) -> Iterator[Finding]:
    for name, comparison in standings.paired.items():
        if comparison.outcome == "worse":
            what = f"reward accuracy less {name}'s on the same pairs"
            yield Finding(standings.lead, what, with_interval(comparison.difference, " points"), "0", "below")


def _ranked(standings: Standings, baseline: str, opponent: str) -> Iterator[Finding]:
    own = next((row for row in standings.ranked if row["method"] == standings.lead), None)
    if own is not None and own["rank"] > 1:
        before = [row["method"] for row in standings.ranked if row["rank"] < own["rank"]]
        limits = f" [{own['ranks']}]" if own["ranks"] else ""
        value = f"{own['rank']} of {len(standings.ranked)}{limits}"
        yield Finding(standings.lead, "rank by answers", value, "1", f"behind {join_names(before)}")
    rule = Rule("", f"chance to be preferred to {opponent}'s answer, by the ranking", 0.5, unit="%")
    for row in standings.ranked if standings.each_other else ():
        if row["method"] != baseline and (outcome := rule.outcome(row["estimate"])):
            yield Finding(
                row["method"], rule.label, with_interval(row["estimate"], rule.unit), rule.said_threshold, outcome
            )


def _missed(name: str, measures: Mapping[str, Estimate], details: Mapping[str, Any]) -> Iterator[Finding]:
    """The figures of one method that miss their threshold."""
    for measure, estimate in measures.items():
        family, _, variant = measure.partition("/")
        rule = _OF_FAMILY.get(family)
        if rule is None or "@" in variant or _is_repeated(rule, measure, measures):
            continue
        if family == "shortfall" and not _sees_shots(name, measures, details):
            continue  # the observer sees the shots, and this method doesn't
        if outcome := rule.outcome(estimate):
            what = rule.label + _in_brackets(family, variant, single_context_reward(details, name))
            yield Finding(name, what, with_interval(estimate, rule.unit), rule.said_threshold, outcome)


def _is_repeated(rule: Rule, measure: str, measures: Mapping[str, Estimate]) -> bool:
    """Whether a figure says what another one says: a headline beside its variants, or the plain likelihood."""
    if rule.good != "above":
        return False
    family, _, variant = measure.partition("/")
    return variant == "likelihood" or (not variant and any(other.startswith(f"{family}/") for other in measures))


def _in_brackets(family: str, variant: str, reward: str) -> str:
    said = _VARIANTS.get(variant, variant.replace("/", ", "))
    if family == "label_flip_rate" and reward and not variant:
        said = f"{reward} reward"
    return f" ({said})" if said else ""


def _sees_shots(name: str, measures: Mapping[str, Estimate], details: Mapping[str, Any]) -> bool:
    """Whether shots are in the method's context: by the table, or for others by what was measured of them."""
    if name in METHODS:
        return METHODS[name].reads_shots
    return "label_flip_rate" in measures or "antisymmetric" in details.get("rewards", {}).get(name, ())


def _uncalibrated(name: str, measures: Mapping[str, Estimate], record: CalibrationRecord | None) -> Iterator[Finding]:
    for suffix, kind, margins in (("", "", "margins"), ("/fitted", "fitted_", "fitted margins")):
        error, by_chance = measures.get(f"calibration_error{suffix}"), getattr(record, f"{kind}error_by_chance", None)
        if error is not None and by_chance and error.value > by_chance.high:
            threshold = f"{amount(by_chance.high, ' points')}, which chance alone exceeds in one of twenty"
            yield Finding(
                name, f"calibration error of its {margins}", amount(error.value, " points"), threshold, "above"
            )


_COUNTS: Mapping[str, str] = MappingProxyType(
    {
        "inconsistent": "comparisons in which the judge contradicted itself when the order was swapped (each is a tie)",
        "unreadable": "comparisons on which the judge's answer was unreadable (left out)",
        "reasoning": "comparisons on which the judge gave only reasoning (left out)",
        "refused": "comparisons on which the judge refused to answer (left out)",
        "failed": "comparisons on which a request to the judge failed (left out; the next call asks again)",
        "base_below_floor": "comparisons in which {opponent}'s answer fell below a floor (an unearned win)",
        "below_floor": "answers that fell below a floor (they do not win)",
    }
)


def _counted(name: str, counts: Mapping[str, int], opponent: str) -> Iterator[Finding]:
    """What failed in the comparisons of one method's answers."""
    for count, what in _COUNTS.items():
        if counts.get(count):
            yield Finding(name, what.format(opponent=opponent), f"{counts[count]} of {counts.get('items', 0)}")


def facts(metrics: Metrics) -> dict[str, Any]:
    """What the sentences on limits depend on: users, intervals, win rates, answers that ran into the token limit."""
    everything = [estimate for row in metrics.values() for estimate in row.values()]
    cut_off = {
        f"{name} {measure.removeprefix('unfinished/')}": estimate.value
        for name, row in metrics.items()
        for measure, estimate in row.items()
        if measure.startswith("unfinished/")
    }
    return {
        "users": max((estimate.users for estimate in everything), default=0),
        "intervals": any(estimate.low is not None for estimate in everything),
        "judged": any("win_rate" in row for row in metrics.values()),
        "cut_off": cut_off if max(cut_off.values(), default=0.0) > _FEW_CUT else {},
    }
