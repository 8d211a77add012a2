"""Who stands where: the ranking of all methods by their answers, and by reward accuracy with paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from scipy.special import expit

from fspo.errors import DataError
from fspo.evaluation.config import BASE
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.plots import charts
from fspo.evaluation.plots.drawing import OBSERVER, PLAIN, Palette
from fspo.evaluation.report.findings import Metrics
from fspo.evaluation.report.formatting import OPPONENT
from fspo.evaluation.report.plot_entry import PlotEntry, estimate_rows
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics.comparing import Comparison, compare_all
from fspo.evaluation.statistics.intervals import Estimate
from fspo.evaluation.statistics.ranking import Game, Ranking, bradley_terry

__all__ = ["accuracy_leaderboard", "answer_leaderboard", "paired_with_lead"]

_UNKNOWN = (None, None)
_EQUAL = 1e-6
_NOTE = "chances as fractions of 1; items are the judgements of the method's own answers"


def answer_leaderboard(
    games: Sequence[Game], metrics: Metrics, palette: Palette = PLAIN, *, baseline: str = BASE, opponent: str = OPPONENT
) -> dict[str, Any]:
    """All methods and the baseline by users' preferences between answers, best first; empty without judgements.

    Where methods met each other, the chance to be preferred to the baseline's answer by Bradley-Terry strengths;
    where each met the baseline alone, which orders them the same, the win rates themselves. The baseline's is a
    half by definition. `opponent` is what the title calls the baseline.
    """
    met = {frozenset((game.first, game.second)) for game in games}
    wins = {name: row["win_rate"] for name, row in metrics.items() if "win_rate" in row}
    each_other = any(baseline not in pair for pair in met)
    ranking = _ranked(games, baseline)
    if ranking is not None and each_other:
        found = {s.method: _over_base(s.strength, s.low, s.high, games, s.method) for s in ranking.standings}
    elif wins:
        users, items = (max(getattr(won, name) for won in wins.values()) for name in ("users", "items"))
        found = wins | {baseline: Estimate(0.5, 0.5, 0.5, users, items)}
        found = dict(sorted(found.items(), key=lambda entry: -entry[1].value))
    else:
        return {}
    ranks = {s.method: (s.best_rank, s.worst_rank) for s in ranking.standings} if ranking is not None else {}
    places = {
        name: 1 + sum(other.value > estimate.value + _EQUAL for other in found.values())
        for name, estimate in found.items()
    }
    rows = [
        {"method": name, "rank": places[name], "ranks": _range(*ranks.get(name, _UNKNOWN)), "estimate": estimate}
        for name, estimate in found.items()
    ]
    title = f"Chance to be preferred to {opponent}'s answer"
    standing = [(name, name, estimate) for name, estimate in found.items()]
    numbers = [
        {"method": name, "rank": places[name]}
        | dict(zip(("best_rank", "worst_rank"), ranks.get(name, _UNKNOWN), strict=True))
        | estimate.to_json()
        for name, estimate in found.items()
    ]
    return {
        "plot": PlotEntry(
            "ranking-answers", title, partial(charts.interval_plot, standing, palette=palette), numbers, _NOTE
        ),
        "rows": rows,
        "each_other": ranking is not None and each_other,
        "several": len(found.keys() - {baseline}) > 1,
        "games": len(games),
        "shortage": ranking.shortage if ranking is not None else "",
        "unbounded": ranking is not None and each_other and ranking.unbounded,
    }


def accuracy_leaderboard(metrics: Metrics, observer: Estimate | None, palette: Palette = PLAIN) -> dict[str, Any]:
    """All methods by headline reward accuracy, the best first, beside the ideal observer's at the full count."""
    found = {name: row["reward_accuracy"] for name, row in metrics.items() if "reward_accuracy" in row}
    if not found:
        return {}
    found = dict(sorted(found.items(), key=lambda entry: -entry[1].value))
    rows = [(name, name, estimate) for name, estimate in found.items()]
    if observer is not None:
        rows.insert(0, (OBSERVER, OBSERVER, observer))
    numbers = estimate_rows(({"method": label}, estimate) for label, _, estimate in rows)
    draw = partial(charts.interval_plot, rows, palette=palette)
    return {"plot": PlotEntry("ranking-accuracy", "Reward accuracy", draw, numbers), "order": list(found)}


def paired_with_lead(items: Items, lead: str, headline: Mapping[str, str]) -> dict[str, Comparison]:
    """Method -> how much better the lead's headline reward is on the same items; p values corrected by Holm's method.

    `headline` names each method's reward. Empty where items were not kept, or methods don't share them.
    """
    rows: dict[str, Mapping[Item, float]] = {
        name: values for name, reward in headline.items() if (values := items.values(name, f"reward_accuracy/{reward}"))
    }
    try:
        return compare_all(lead, rows)
    except DataError:
        return {}


def _ranked(games: Sequence[Game], baseline: str) -> Ranking | None:
    """The ranking, the baseline's strength 0; None where there are no games, or the baseline is in none."""
    try:
        return bradley_terry(games, anchor=baseline)
    except DataError:
        return None


def _over_base(strength: float, low: float | None, high: float | None, games: Sequence[Game], method: str) -> Estimate:
    """A strength over the base model's, in log-odds, as a chance; of the method's own games and users."""
    least, most = (None if end is None else float(expit(end)) for end in (low, high))
    own = [game.user for game in games if method in (game.first, game.second)]
    return Estimate(float(expit(strength)), least, most, len(set(own)), len(own))


def _range(best: int | None, worst: int | None) -> str:
    if best is None or worst is None:
        return ""
    return str(best) if best == worst else f"{best} to {worst}"
