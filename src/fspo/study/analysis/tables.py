"""The findings and the plan of a study as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fspo.evaluation.report.formatting import chance, number
from fspo.evaluation.statistics.intervals import Estimate
from fspo.printing import counted
from fspo.study.analysis.findings import Results, StudyFindings
from fspo.study.analysis.wording import BINOMIAL_NOTE, bias_name

if TYPE_CHECKING:
    from rich.table import Table

    from fspo.study.power import StudyPlan

__all__ = ["attention_said", "diagnostics_table", "effects_table", "people_needed", "plan_tables", "win_rate_table"]

_DASH = "\N{EN DASH}"


def win_rate_table(findings: StudyFindings) -> Table:
    """Every pair of arms, with and without exclusions."""
    table = _table("Win rates", BINOMIAL_NOTE)
    _columns(table, "pair", "win rate", "wins", "losses", "ties", "people", "p", "binomial p", "design effect")
    for results, which in ((findings.results, ""), (findings.everybody, ", everybody")):
        for rate in results.win_rates:
            table.add_row(
                _escaped(f"{rate.first} over {rate.second}{which}"),
                _estimate(rate.estimate),
                f"{rate.wins:,}",
                f"{rate.losses:,}",
                f"{rate.ties:,}",
                f"{rate.estimate.users:,}",
                chance(rate.adjusted),
                chance(rate.binomial_p),
                _DASH if rate.design_effect is None else number(rate.design_effect, 1),
            )
    return table


def effects_table(results: Results) -> Table:
    """The win rate by number of shots, taste and other parts of the votes; then what should not decide."""
    several = len(results.win_rates) > 1
    table = _table("Where it differs", "Percent, with 95% intervals clustered by participant. 50% is no bias.")
    _columns(table, "votes", "win rate or share", "people", "items")
    for effect in results.effects:
        pair = f" ({effect.first} over {effect.second})" if several else ""
        _add(table, f"{effect.kind} {effect.value}{pair}", effect.estimate)
    for taste in results.tastes:
        _add(table, f"labels: chose {taste.trait} {taste.value}", taste.estimate)
    for bias in results.biases:
        _add(table, bias_name(bias), bias.estimate)
    return table


def diagnostics_table(findings: StudyFindings) -> Table:
    """How far people came, and the attention items."""
    table = _table("People", "")
    _columns(table, "step", "people")
    for step, count in findings.steps.items():
        table.add_row(step, f"{count:,}")
    for row in findings.attention:
        where = "labels" if row.stage == "label" else "comparisons"
        table.add_row(f"attention items passed ({where})", f"{row.passed:,} of {row.passed + row.failed:,}")
    return table


def plan_tables(plan: StudyPlan) -> list[Table]:
    """How many people for which difference, and for how many comparisons."""
    given, each = plan.assumptions, f"{_comparisons(plan.comparisons)} of a pair for each participant"
    table = _table(
        f"People to recruit for {plan.study}",
        f"One-sided test at 5%, clustered by participant; a chance of {given.power:.0%} to find the true win rate. "
        f"Assumed: own win rates differ by {given.spread:g} (standard deviation), {given.ties:.0%} ties, "
        f"{given.lost:.0%} of the people lost; {each}."
        + (f" {plan.pairs} pairs of arms, so each is tested at 5% / {plan.pairs}." if plan.pairs > 1 else ""),
    )
    _columns(table, "true win rate", "people to recruit", f"chance with {counted(plan.planned, 'participants')}")
    for rate, count in plan.needed.items():
        table.add_row(f"{float(rate):.0%}", _count(count), f"{plan.planned_power[rate]:.0%}")
    other = _table(f"For a win rate of {given.win_rate:.0%}", "")
    _columns(other, "comparisons for each participant", "people to recruit")
    for comparisons, count in plan.by_comparisons.items():
        other.add_row(f"{comparisons:,}", _count(count))
    return [table, other]


def people_needed(plan: StudyPlan) -> str:
    """Whether the study as it is suffices, in a sentence."""
    given, planned = plan.assumptions, counted(plan.planned, "participants")
    wanted = f"a chance of {given.power:.0%} to find a win rate of {given.win_rate:.0%}"
    if plan.recommended is None:
        return "No number of people that can be recruited finds this win rate; look for a larger one."
    if plan.recommended <= plan.planned:
        return f"The study's file has {planned}, which is enough for {wanted}: {plan.recommended:,} would do."
    return f"Recruit {plan.recommended:,} people for {wanted}; the study's file has only {planned}."


def attention_said(plan: StudyPlan) -> str:
    """Whom the attention items exclude, in a sentence."""
    found = plan.attention
    if not found.careless:
        return "No rule on attention items excludes anybody; people who choose at random pull win rates towards 50%."
    return (
        f"{found.items:,} attention items for each participant exclude {found.careless:.0%} of people who choose at "
        f"random, and {found.attentive:.0%} of attentive people who fail one item in a hundred."
    )


def _table(title: str, caption: str) -> Table:
    from rich.table import Table

    return Table(title=_escaped(title), caption=_escaped(caption) or None, header_style="bold", title_justify="left")


def _columns(table: Table, *names: str) -> None:
    for place, name in enumerate(names):
        table.add_column(_escaped(name), justify="right" if place else "left")


def _add(table: Table, name: str, estimate: Estimate) -> None:
    table.add_row(_escaped(name), _estimate(estimate), f"{estimate.users:,}", f"{estimate.items:,}")


def _estimate(estimate: Estimate) -> str:
    value = number(estimate.value * 100)
    if estimate.low is None or estimate.high is None:
        return f"{value} [dim](no interval)[/dim]"
    return f"{value} [dim]({number(estimate.low * 100)}…{number(estimate.high * 100)})[/dim]"


def _comparisons(count: float) -> str:
    return "1 comparison" if count == 1 else f"{count:g} comparisons"


def _count(count: int | None) -> str:
    return "over 100,000" if count is None else f"{count:,}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
