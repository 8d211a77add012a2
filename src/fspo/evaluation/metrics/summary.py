"""The table a run ends with in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fspo.evaluation.metrics.table import missing_interval_note
from fspo.evaluation.statistics.intervals import Estimate

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MEASURES", "best_values", "single_context_reward", "summary_table", "variants_note", "variants_of"]

MEASURES: Mapping[str, str] = {
    "reward_accuracy": "reward accuracy",
    "label_flip_rate": "label flip",
    "user_swap_drop": "user swap drop",
    "win_rate": "win rate",
}
"""The headline measures and what they are called."""


def variants_of(details: Mapping[str, Any], method: str) -> dict[str, str]:
    """Which reward and which sampling a method's headline figures are of, from the contents of `details.json`."""
    reward, sampling = details.get("rewards", {}).get(method), details.get("samplings", {}).get(method)
    return ({"reward": reward[0]} if reward else {}) | ({"sampling": sampling} if sampling else {})


def single_context_reward(details: Mapping[str, Any], method: str) -> str:
    """The reward that a single context gives, which a method's label-flip rate is of; empty where it is not recorded.

    See `fspo.evaluation.metrics.rewards.Rewards.plain`.
    """
    known = details.get("rewards", {}).get(method, ())
    return next((reward for reward in ("score", "reference", "likelihood") if reward in known), "")


def variants_note(details: Mapping[str, Any]) -> str:
    """The variants of the headline figures in words: `Reward: reference (ipo), antisymmetric (few-shot, fspo)` etc."""
    found: dict[str, dict[str, list[str]]] = {}
    for method in details.get("rewards", {}):
        for kind, variant in variants_of(details, method).items():
            found.setdefault(kind, {}).setdefault(variant, []).append(method)
    sentences = []
    for kind, variants in found.items():
        said = ", ".join(f"{variant} ({', '.join(methods)})" for variant, methods in variants.items())
        sentences.append(f"{kind.capitalize()}: {said}.")
    return " ".join(sentences)


def summary_table(
    metrics: Mapping[str, Mapping[str, Estimate]],
    *,
    title: str = "",
    details: Mapping[str, Any] | None = None,
) -> Table:
    """The headline measures of every method, with 95% intervals; `details` name the variants."""
    from rich.markup import escape
    from rich.table import Table

    measures = [measure for measure in MEASURES if any(measure in row for row in metrics.values())]
    table = Table(
        title=escape(title) or None,
        caption=escape(f"{_caption(metrics, details or {})} {variants_note(details or {})}".rstrip()),
        header_style="bold",
        title_justify="left",
    )
    table.add_column("method")
    for measure in measures:
        table.add_column(MEASURES[measure], justify="right")
    best = best_values(metrics)
    for method, row in metrics.items():
        table.add_row(escape(method), *(_cell(row.get(measure), best.get(measure)) for measure in measures))
    return table


def best_values(metrics: Mapping[str, Mapping[str, Estimate]]) -> dict[str, float]:
    """Headline measure -> its highest value, if that stands out: it is above 0, and not every method has it."""
    found = {}
    for measure in MEASURES:
        values = {row[measure].value for row in metrics.values() if measure in row}
        if len(values) > 1 and max(values) > 0:
            found[measure] = max(values)
    return found


def _cell(estimate: Estimate | None, best: float | None) -> str:
    if estimate is None:
        return "[dim]-[/dim]"
    value = f"{estimate.value * 100:.1f}"
    value = f"[bold]{value}[/bold]" if estimate.value == best else value
    if estimate.low is None or estimate.high is None:
        return f"{value} [dim](no interval)[/dim]"
    # No space within the interval: a narrow terminal breaks the line before it.
    return f"{value} [dim]({estimate.low * 100:.1f}…{estimate.high * 100:.1f})[/dim]"


def _caption(metrics: Mapping[str, Mapping[str, Estimate]], details: Mapping[str, Any]) -> str:
    estimates = [estimate for row in metrics.values() for measure, estimate in row.items() if measure in MEASURES]
    if not estimates:
        return "Nothing was measured."
    users, items = max(e.users for e in estimates), max(e.items for e in estimates)
    if not details.get("given"):
        said = f"Percent, with 95% intervals clustered by user; {users} held-out users, {items} held-out pairs."
    elif details.get("anybody"):
        said = f"Percent of wins over {details['baseline']}, with 95% intervals; {items} prompts."
    else:
        over = details["baseline"]
        said = f"Percent of wins over {over}, with 95% intervals clustered by user; {users} users, {items} answers."
    shown = ((MEASURES[m], e) for row in metrics.values() for m, e in row.items() if m in MEASURES)
    return f"{said} {missing_interval_note(shown)}".rstrip()
