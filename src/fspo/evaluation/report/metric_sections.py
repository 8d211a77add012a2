"""The sections of one kind of measure each: by shots, sensitivity, calibration, regret, win rates, tax, users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from fspo.evaluation.artifacts import CalibrationRecord, JudgesRecord, PerUser
from fspo.evaluation.plots import charts
from fspo.evaluation.plots.drawing import OBSERVER, Palette
from fspo.evaluation.report.findings import Metrics
from fspo.evaluation.report.formatting import OPPONENT
from fspo.evaluation.report.plot_entry import PlotEntry, estimate_rows
from fspo.evaluation.statistics.intervals import Estimate

__all__ = [
    "alignment_section",
    "by_shots_section",
    "calibration_section",
    "per_user_section",
    "regret_section",
    "sensitivity_section",
    "tax_section",
    "win_rates_section",
]

Row = Mapping[str, Estimate]

_SENSITIVITY = {
    "label_flip_rate": ("labels flipped: changed", None),
    "user_swap_drop": ("another user's shots: loss", 0.0),
    "wrong_labels_drop": ("wrong labels", 0.0),
    "other_topics_drop": ("other topics: loss", 0.0),
    "order_change_rate": ("other order: changed", None),
}
"""Measure or family -> what its panel is called, and where its dotted line stands."""
_REGRET = ("regret_share", "regret", "answer_utility", "answer_regret")
_WINS = "win_rate"
_TAX = "tax_"
_TAX_LEVELS = ("general_pass", "refusal_rate", "general_fluency", "general_win_rate", "general_win_rate_by")
_WINS_NOTE = "every way to count wins, by its name in metrics.json; shares as fractions of 1"
_TAX_NOTE = "levels too, by their names in metrics.json; shares as fractions of 1, fluency in nats a token"
_REGRET_NOTE = "regret_share as a fraction of 1, the others in standard deviations of the domain's responses"


def by_shots_section(metrics: Metrics, observer: Row, palette: Palette) -> dict[str, Any]:
    """Headline reward accuracy by number of shots; empty where it was not measured."""
    lines = {name: points for name, row in metrics.items() if (points := _at_shots(row))}
    seen = _at_shots(observer)
    if not lines:
        return {}
    title = "Reward accuracy by number of shots"
    table = {name: dict(points) for name, points in lines.items()} | ({OBSERVER: dict(seen)} if seen else {})
    numbers = estimate_rows(
        ({"method": name, "shots": int(k)}, e) for name, row in table.items() for k, e in row.items()
    )
    draw = partial(charts.accuracy_by_shots, lines, seen, palette=palette)
    return {
        "plot": PlotEntry("accuracy-by-shots", title, draw, numbers),
        "observer": bool(seen),
        "table": table,
        "ks": sorted({k for row in table.values() for k in row}),
        "untold": [name for name, row in table.items() if 0 not in row] if any(0 in r for r in table.values()) else [],
        "pairs": sorted({estimate.items for row in table.values() for estimate in row.values()}),
    }


def alignment_section(metrics: Metrics, palette: Palette) -> dict[str, Any]:
    """Alignment levels by turn of a conversation, and their slopes; empty where no conversations were held."""
    lines = {name: points for name, row in metrics.items() if (points := _at(row, "alignment@"))}
    if not lines:
        return {}
    title = "Alignment level by turn of a conversation"
    numbers = estimate_rows(
        ({"method": name, "turn": int(k)}, estimate) for name, points in lines.items() for k, estimate in points
    )
    draw = partial(charts.levels_by_turn, lines, palette=palette)
    return {
        "plot": PlotEntry("alignment-by-turn", title, draw, numbers, "levels from 1 to 5"),
        "methods": list(lines),
        "columns": {m: _label(m) for m in _all(metrics) if m.startswith("alignment_")},
        "turns": max(int(points[-1][0]) for points in lines.values()),
    }


def sensitivity_section(metrics: Metrics, observer: Row, palette: Palette) -> dict[str, Any]:
    """What changes with the labels, the user, and worse shots; a panel for each, empty without any."""
    shown: dict[str, charts.Panel] = {}
    for family, (label, chance) in _SENSITIVITY.items():
        for measure in _named(metrics, family):
            rows = _having(metrics, measure)
            rows |= {OBSERVER: observer[measure]} if measure in observer else {}
            variant = measure.partition("/")[2]
            shown[measure] = charts.Panel(f"{variant} {label}: loss" if variant else label, rows, chance)
    if not shown:
        return {}
    title = "What changes a decision"
    draw = partial(charts.panels, list(shown.values()), palette=palette)
    numbers = _numbers(dict(metrics) | {OBSERVER: observer}, shown)
    return {
        "plot": PlotEntry("sensitivity", title, draw, numbers),
        "families": {measure.partition("/")[0] for measure in shown},
        "observer": any(OBSERVER in panel.rows for panel in shown.values()),
        "shot_effects": _shot_effects(metrics),
    }


def _shot_effects(metrics: Metrics) -> dict[str, Any]:
    """What each shot's label does to a margin: the places, and the estimates of each method; empty without any."""
    found = {measure.partition("/")[2] for measure in _named(metrics, "shot_effect")}
    places = sorted(found, key=lambda place: (place == "all", len(place), place))
    rows = {name: [row.get(f"shot_effect/{place}") for place in places] for name, row in metrics.items()}
    return {"places": places, "rows": {name: row for name, row in rows.items() if any(row)}} if places else {}


def calibration_section(records: Mapping[str, CalibrationRecord], palette: Palette) -> dict[str, Any]:
    """Accuracy over confidence of both kinds of margin; empty where it was not measured."""
    bins = {name: (row.bins, row.fitted_bins) for name, row in records.items() if row.bins}
    if not bins:
        return {}
    title = "How often a margin is right, by how sure it is"
    numbers = [
        {"method": name, "scale": scale} | row.model_dump(include={"confidence", "accuracy", "users", "items"})
        for name, both in bins.items()
        for scale, rows in zip(("unchanged", "fitted"), both, strict=True)
        for row in rows
    ]
    draw = partial(charts.reliability, bins, palette=palette)
    return {"plot": PlotEntry("calibration", title, draw, numbers), "records": records}


def regret_section(metrics: Metrics, observer: Row, palette: Palette) -> dict[str, Any]:
    """What users lose where their true reward is known; empty where it isn't."""
    shares = _having(metrics, "regret_share")
    if not shares:
        return {}
    shares = dict(sorted(shares.items(), key=lambda entry: entry[1].value))
    rows = [(name, name, estimate) for name, estimate in shares.items()]
    if "regret_share" in observer:
        rows.insert(0, (OBSERVER, OBSERVER, observer["regret_share"]))
    title = "Share of what is at stake that is lost"
    names = [measure for family in _REGRET for measure in _named(metrics, family)]
    numbers = _numbers(dict(metrics) | {OBSERVER: observer}, names)
    draw = partial(charts.interval_plot, rows, palette=palette)
    return {
        "plot": PlotEntry("regret", title, draw, numbers, _REGRET_NOTE),
        "columns": {m: _label(m) for m in names},
    }


def win_rates_section(
    metrics: Metrics, records: JudgesRecord, palette: Palette, opponent: str = OPPONENT
) -> dict[str, Any]:
    """Every kind of win rate, with each sampling and by each judge, and how far judges agree; empty without any."""
    names = [m for m in _all(metrics) if m.startswith(_WINS) and "/" in m]
    plain = [
        (f"{name}, {_drawn(m.partition('/')[2])}", name, row[m])
        for name, row in metrics.items()
        for m in row
        if m.startswith(f"{_WINS}/")
    ]
    if not plain:
        return {"records": records} if records.judges else {}
    title = f"Win rate over {opponent}"
    numbers = _numbers(metrics, names)
    others = [m for m in names if not m.startswith(f"{_WINS}/")]
    return {
        "plot": PlotEntry(
            "win-rates", title, partial(charts.interval_plot, plain, palette=palette), numbers, _WINS_NOTE
        ),
        "columns": {m: _label(m) for m in others},
        "guided": any(m.startswith(f"{_WINS}/guided") for m in names),
        "records": records,
    }


def _drawn(variant: str) -> str:
    """A sampling, and how many shots were shown where these were not all."""
    sampling, _, shots = variant.partition("@")
    return f"{sampling}, {shots} shot{'' if shots == '1' else 's'}" if shots else sampling


def tax_section(metrics: Metrics, palette: Palette) -> dict[str, Any]:
    """What personalisation costs elsewhere, a panel for each kind; empty where it was not measured."""
    names = [m for m in _all(metrics) if m.startswith(_TAX)]
    if not names:
        return {}
    levels = [m for m in _all(metrics) if m.partition("/")[0] in _TAX_LEVELS]
    shown = [charts.Panel(_label(m.removeprefix(_TAX)), _having(metrics, m), 0.0, "fluency" not in m) for m in names]
    title = "What is lost against the base model"
    numbers = _numbers(metrics, [*names, *levels])
    return {
        "plot": PlotEntry("tax", title, partial(charts.panels, shown, palette=palette), numbers, _TAX_NOTE),
        "columns": {m: _label(m) for m in (*names, *levels)},
    }


def per_user_section(records: PerUser, lead: str, palette: Palette) -> dict[str, Any]:
    """Every user's reward accuracy by every method, and the lead's users from the worst on; empty where unknown."""
    shares = {
        name: {user: mean.value for user, mean in row["reward_accuracy"].items()}
        for name, row in records.items()
        if row.get("reward_accuracy")
    }
    if not shares:
        return {}
    title = "Reward accuracy of each user"
    numbers = [
        {"method": name, "user": user, "value": value, "items": records[name]["reward_accuracy"][user].items}
        for name, users in shares.items()
        for user, value in users.items()
    ]
    worst = sorted(shares.get(lead, {}).items(), key=lambda entry: (entry[1], entry[0]))
    draw = partial(charts.user_dots, shares, palette=palette, xlabel="reward accuracy")
    return {
        "plot": PlotEntry("per-user", title, draw, numbers),
        "worst": [(user, value) for user, value in worst[:5] if value < 1],
        "pairs": max((mean.items for mean in records.get(lead, {}).get("reward_accuracy", {}).values()), default=0),
        "at_chance": sum(value <= 0.5 for _, value in worst),
        "users": len(worst),
    }


def _at_shots(row: Row) -> list[tuple[float, Estimate]]:
    return _at(row, "reward_accuracy@")


def _at(row: Row, prefix: str) -> list[tuple[float, Estimate]]:
    """What a measure is at each number behind its name, in their order."""
    found = ((name.removeprefix(prefix), estimate) for name, estimate in row.items() if name.startswith(prefix))
    return sorted((float(k), estimate) for k, estimate in found if "/" not in k)


def _named(metrics: Metrics, family: str) -> list[str]:
    """The measures of a family that any method has: itself, or its variants where it has no other."""
    found = [m for m in _all(metrics) if m == family or m.startswith(f"{family}/")]
    return [family] if family in found else found


def _having(metrics: Metrics, measure: str) -> dict[str, Estimate]:
    return {name: row[measure] for name, row in metrics.items() if measure in row}


def _numbers(metrics: Metrics, measures: Iterable[str]) -> list[dict[str, Any]]:
    return estimate_rows(
        ({"measure": measure, "method": name}, row[measure])
        for measure in measures
        for name, row in metrics.items()
        if measure in row
    )


def _all(metrics: Metrics) -> Iterable[str]:
    return dict.fromkeys(name for row in metrics.values() for name in row)


def _label(measure: str) -> str:
    return measure.replace("_", " ").replace("/", ", ")
