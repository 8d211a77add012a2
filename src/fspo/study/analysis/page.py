"""The findings of a study as one self-contained page, in the style of the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fspo.evaluation.plots import charts
from fspo.evaluation.plots.drawing import Palette
from fspo.evaluation.report.formatting import environment
from fspo.evaluation.report.plot_entry import PlotEntry, estimate_rows
from fspo.files import write_text
from fspo.study.analysis.findings import Results, StudyFindings
from fspo.study.analysis.wording import (
    BINOMIAL_NOTE,
    NO_VOTES_NOTE,
    REASON_TEXTS,
    bias_name,
    excluded_text,
    headlines,
)

__all__ = ["write_page"]


def write_page(findings: StudyFindings, out: Path, *, title: str = "", registered: str = "") -> Path:
    """Write the page to `out`; `registered` is the sentence of `registration_note`.

    Raises:
        StorageError: it can't be written.
    """
    results = findings.results
    palette = Palette.of(rate.first for rate in findings.everybody.win_rates)
    view = {
        "findings": findings,
        "title": title or findings.study,
        "registered": registered,
        "headlines": headlines(results),
        "excluded": excluded_text(findings),
        "reasons": {REASON_TEXTS[reason]: count for reason, count in findings.reasons.items()},
        "biases": [(bias_name(bias), bias.estimate) for bias in results.biases],
        "rates": _rates_plot(findings, palette),
        "people": _people_plot(results, palette),
        "effects": [_effects_plot(results, pair, palette) for pair in _pairs_with_effects(results)],
        "tastes": _tastes_plot(results),
        "note": BINOMIAL_NOTE,
        "no_votes_note": NO_VOTES_NOTE,
    }
    pages = environment("fspo.study.analysis")
    write_text(out, pages.get_template("study.html.j2").render(**view))
    return out


def _rates_plot(findings: StudyFindings, palette: Palette) -> PlotEntry | None:
    rows = [
        (f"{rate.first} over {rate.second}{which}", rate.first, rate.estimate)
        for results, which in ((findings.results, ""), (findings.everybody, ", everybody"))
        for rate in results.win_rates
    ]
    return _plot("win-rates", "Win rates, ties as half", rows, palette)


def _people_plot(results: Results, palette: Palette) -> PlotEntry | None:
    own = results.by_participant
    if not own:
        return None
    label = "a person's own win rate"
    rows: list[Mapping[str, Any]] = [
        {"pair": pair, "participant": person, "win_rate": rate}
        for pair, rates in own.items()
        for person, rate in rates.items()
    ]
    draw = partial(charts.user_dots, own, xlabel=label, palette=palette)
    return PlotEntry("people", "Each person", draw, rows, "shares as fractions of 1, ties as half")


def _pairs_with_effects(results: Results) -> Sequence[tuple[str, str]]:
    return list(dict.fromkeys((effect.first, effect.second) for effect in results.effects))


def _effects_plot(results: Results, pair: tuple[str, str], palette: Palette) -> PlotEntry | None:
    rows = [
        (f"{effect.kind}: {effect.value}", pair[0], effect.estimate)
        for effect in results.effects
        if (effect.first, effect.second) == pair
    ]
    first, second = pair
    return _plot(f"effects-{first}-{second}", f"{first} over {second} in parts of the votes", rows, palette)


def _tastes_plot(results: Results) -> PlotEntry | None:
    rows = [(f"{taste.trait}: {taste.value}", taste.trait, taste.estimate) for taste in results.tastes]
    return _plot("tastes", "How often texts of a kind were chosen in the labels", rows, Palette.of(r[1] for r in rows))


def _plot(name: str, title: str, rows: Sequence[tuple[str, str, Any]], palette: Palette) -> PlotEntry | None:
    if not rows:
        return None
    numbers = estimate_rows(({"votes": label}, estimate) for label, _, estimate in rows)
    return PlotEntry(name, title, partial(charts.interval_plot, rows, palette=palette), numbers)
