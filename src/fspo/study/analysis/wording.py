"""The findings in sentences and names, shared by the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fspo.evaluation.report.formatting import with_interval
from fspo.printing import counted
from fspo.study.analysis.effects import Bias
from fspo.study.analysis.exclusions import Reason
from fspo.study.analysis.findings import Results, StudyFindings
from fspo.study.analysis.win_rates import WinRate
from fspo.study.config import StudyConfig
from fspo.study.registration import changed_settings

__all__ = [
    "BIASES",
    "BINOMIAL_NOTE",
    "NO_RESULT",
    "NO_VOTES_NOTE",
    "REASON_TEXTS",
    "bias_name",
    "excluded_text",
    "headline",
    "headlines",
    "p_text",
    "registration_note",
]

REASON_TEXTS: Mapping[Reason, str] = {
    "withdrawn": "withdrew",
    "quota": "their quota was full",
    "unfinished": "did not vote on everything",
    "attention": "failed attention items",
    "one side": "almost always chose one side",
    "too fast": "voted faster than people read",
}
BIASES = {"first": "the text shown first", "longer": "the longer text"}
BINOMIAL_NOTE = (
    "Win rates count ties as half; their intervals, and p, depend on how much people differ (clustered by participant, "
    "one-sided against 50%, corrected by Holm for several pairs). The binomial p is the paper's test: it leaves ties "
    "out and counts all votes as independent, so it is too small where one person's votes are alike. The design effect "
    "says how many times as large the variance is as that of independent votes."
)
NO_VOTES_NOTE = "An answer that could not be written, or an item without a choice, is no vote for either arm."


NO_RESULT = "The main analysis is empty: no comparison has a vote that counts."


def headline(rate: WinRate) -> str:
    """The result of one pair in a sentence."""
    shares = f"People preferred '{rate.first}' to '{rate.second}' in {with_interval(rate.estimate)} of the comparisons"
    users = rate.estimate.users
    counts = f"{'1 person' if users == 1 else f'{users:,} people'}, {counted(rate.estimate.items, 'votes')}"
    if rate.adjusted is None:
        return f"{shares} ({counts}). {rate.estimate.note.capitalize()}."
    if rate.adjusted < 0.05:
        finding = "This is more than chance"
    elif rate.estimate.high is not None and rate.estimate.high < 0.5:
        # p is the chance of a higher win rate, so it says nothing here.
        return f"{shares} ({counts}). This is less than chance: the whole interval is below 50%."
    else:
        finding = "This is not distinguishable from chance"
    return f"{shares} ({counts}). {finding} (p {p_text(rate.adjusted)}, one-sided, clustered by participant)."


def headlines(results: Results) -> list[str]:
    """The results of all pairs in sentences, or one that says that there are none."""
    return [headline(rate) for rate in results.win_rates] or [NO_RESULT]


def bias_name(bias: Bias) -> str:
    """What decided, and where."""
    where = "labels" if bias.stage == "label" else "comparisons"
    return f"{where}: chose {BIASES[bias.kind]}"


def p_text(p: float) -> str:
    """A p value with its sign, not more exact than it is."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def excluded_text(findings: StudyFindings) -> str:
    """How many people are left out of the main analysis, and why."""
    if not findings.excluded:
        return f"Nobody of {findings.participants:,} is excluded."
    why = ", ".join(f"{REASON_TEXTS[reason]}: {count:,}" for reason, count in findings.reasons.items())
    return f"{len(findings.excluded):,} of {findings.participants:,} people are excluded ({why})."


def registration_note(config: StudyConfig, registration: Mapping[str, Any] | None) -> str:
    """Whether the study's file is as it was registered; empty where no registration is known."""
    if registration is None:
        return ""
    changed = changed_settings(registration["design"], config.design())
    if changed:
        return f"The study's file differs from its registration in: {', '.join(changed)}. Say so when you publish."
    return f"The design and the rules are as registered; fingerprint {registration['fingerprint']}."
