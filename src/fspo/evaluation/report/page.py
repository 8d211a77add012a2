"""One self-contained page that shows what came out of a run, and what did not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.evaluation.config import BASE
from fspo.evaluation.metrics.answer_metrics import QUALITY_MEASURES
from fspo.evaluation.metrics.summary import MEASURES, best_values, single_context_reward, variants_note, variants_of
from fspo.evaluation.plots.drawing import Palette, standalone
from fspo.evaluation.provenance import untraced_note
from fspo.evaluation.report import metric_sections as sections
from fspo.evaluation.report import samples
from fspo.evaluation.report.data_section import data_section
from fspo.evaluation.report.findings import RULES, Metrics, Standings, facts, findings
from fspo.evaluation.report.formatting import IN_UNITS, OPPONENT, environment
from fspo.evaluation.report.leaderboard import accuracy_leaderboard, answer_leaderboard, paired_with_lead
from fspo.evaluation.report.plot_entry import PlotEntry
from fspo.evaluation.report.run_data import RunData, settings_of
from fspo.evaluation.report.training_section import (
    trained_for,
    training_costs,
    training_plots,
    unequal_training_note,
)
from fspo.files import write_text
from fspo.methods.table import METHODS

__all__ = ["write_figures", "write_report"]

_PLOTTED = (
    "answers_rank",
    "accuracy_rank",
    "curve",
    "sensitivity",
    "calibration",
    "regret",
    "wins",
    "alignment",
    "tax",
    "per_user",
)
"""The sections that have a plot, in the order of the page."""


def write_report(run_dir: Path, out: Path, *, benchmark: str = "") -> Path:
    """Write the report of the run in `run_dir` to `out`; parts that are missing are named in their place.

    With `benchmark` it is on what was measured on that one; the run's own data are not shown then.

    Raises:
        DataError: there is no such folder.
        StorageError: a file of the run is damaged, or the report can't be written.
    """
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is no run folder; run `fspo run` first, or name the folder it wrote.")
    write_text(out, environment().get_template("report.html.j2").render(**_view(run_dir, benchmark)))
    return out


def write_figures(run_dir: Path, out: Path, *, benchmark: str = "") -> list[Path]:
    """Write the plots of the report that there is something for as SVG files into `out`, their numbers beside as CSV.

    Raises:
        ConfigError: `out` is a file, or somebody else's file there has the name of a plot; nothing is written then.
        StorageError: a file of the run is damaged, or a plot can't be written.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder for the figures.")
    style = environment().get_template("style.css.j2").render()
    palette = style[style.index(":root {") : style.index("* { box-sizing")]
    written: list[Path] = []
    drawn = _plots(_view(run_dir, benchmark))
    for plot in drawn:
        _check_replaceable(out / f"{plot.name}.svg", out / f"{plot.name}.csv")
    for plot in drawn:
        write_text(out / f"{plot.name}.svg", standalone(plot.svg, palette))
        written.append(out / f"{plot.name}.svg")
        if plot.rows:
            write_text(out / f"{plot.name}.csv", plot.csv)
    return written


def _check_replaceable(svg: Path, csv: Path) -> None:
    """Check that nothing is there, or a plot of an earlier report; its numbers are known by the plot beside them."""
    if svg.exists():
        if not svg.is_file() or b"--paper" not in svg.read_bytes():
            raise ConfigError(f"{svg} is not a plot of a report, so it is not replaced; name another folder.")
    elif csv.exists():
        raise ConfigError(f"{csv} belongs to no plot of a report, so it is not replaced; name another folder.")


def _view(run_dir: Path, benchmark: str = "") -> dict[str, Any]:
    """What the template is filled with."""
    read = RunData.of(run_dir, benchmark)
    palette = Palette.of(read.metrics)
    metrics = read.metrics
    lead = read.details.get("compared") or ("fspo" if "fspo" in metrics else next(reversed(list(metrics)), ""))
    figures = _figures(read, lead, palette)
    return (
        _run(run_dir, read, benchmark)
        | _results(read, lead)
        | _training(run_dir, read, lead, palette)
        | _findings(read, lead, figures)
        | figures
        | _texts(read, lead)
    )


def _run(run_dir: Path, read: RunData, benchmark: str) -> dict[str, Any]:
    """What the run is: its name, model, settings and data."""
    config = _text(run_dir / "resolved.yaml") or _text(run_dir / "config.yaml")
    settings = settings_of(config)
    return {
        "name": f"{settings.get('name') or run_dir.resolve().name}{f' on {benchmark}' if benchmark else ''}",
        "model": settings.get("model") or read.details.get("model") or "few-shot preference optimization",
        "layout": settings.get("layout"),
        "data": data_section(read.checks),
        "config": config,
        "versions": read.versions,
    }


def _results(read: RunData, lead: str) -> dict[str, Any]:
    """The metrics of all methods, and the baseline they are compared with."""
    metrics, details = read.metrics, read.details
    return {
        "details": details,
        "lead": lead,
        "baseline": read.baseline,
        "opponent": _opponent(read),
        "given": read.given,
        "variants": variants_of(details, lead),
        "flipped_reward": single_context_reward(details, lead),
        "measures": MEASURES,
        "best": best_values(metrics),
        "metrics": metrics,
        "observer": read.observer,
        "by_variant": _variants(metrics),
        "variants_note": variants_note(details),
        "methods": METHODS,
        "shared_prompts": read.items.shared_prompts if read.items.records else None,
    }


def _training(run_dir: Path, read: RunData, lead: str, palette: Palette) -> dict[str, Any]:
    """How the methods were trained, and what is not known of that."""
    trained = training_costs(run_dir)
    return {
        "training_costs": trained,
        "trained_for": "" if read.given else trained_for(trained, lead),
        "training": training_plots(run_dir, palette),
        "unequal_training": unequal_training_note(trained),
        "untraced": untraced_note(read.details.get("untraced", [])),
    }


def _findings(read: RunData, lead: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What speaks against the methods, and the facts; `figures` are the sections with plots."""
    rank = figures["answers_rank"]
    standings = Standings(
        lead, figures["paired"], rank.get("rows", ()), rank.get("each_other", False), read.calibration
    )
    against = findings(read.metrics, read.details, standings)
    return {
        "against": [row for row in against if _is_of(row.method, lead)],
        "against_others": [row for row in against if not _is_of(row.method, lead)],
        "rules": RULES,
        "facts": facts(read.metrics),
    }


def _figures(read: RunData, lead: str, palette: Palette) -> dict[str, Any]:
    """The sections with plots."""
    metrics, observer, details = read.metrics, read.observer, read.details
    rewards = {name: row[0] for name, row in details.get("rewards", {}).items() if row}
    return {
        "answers_rank": answer_leaderboard(
            read.games, metrics, palette, baseline=read.baseline, opponent=_opponent(read)
        ),
        "accuracy_rank": accuracy_leaderboard(metrics, observer.get("reward_accuracy"), palette),
        "paired": paired_with_lead(read.items, lead, rewards),
        "unpaired": read.comparisons,
        "curve": sections.by_shots_section(metrics, observer, palette),
        "sensitivity": sections.sensitivity_section(metrics, observer, palette),
        "calibration": sections.calibration_section(read.calibration, palette),
        "regret": sections.regret_section(metrics, observer, palette),
        "wins": sections.win_rates_section(metrics, read.judges, palette, _opponent(read)),
        "alignment": sections.alignment_section(metrics, palette),
        "tax": sections.tax_section(metrics, palette),
        "per_user": sections.per_user_section(read.per_user, lead, palette),
    }


def _texts(read: RunData, lead: str) -> dict[str, Any]:
    """The answers to be read, and those that failed."""
    lines, items = read.samples, read.items
    sampling = read.details.get("samplings", {}).get(lead, "")
    label = f"{lead}, {sampling or 'plain'}"
    reward = next(iter(read.details.get("rewards", {}).get(lead, [])), "")
    failures = {
        "label": label,
        "answered": bool(sampling) and bool(lines),
        "reward": reward,
        "losses": samples.worst_losses(lines, items, label, read.baseline),
        "broken": samples.broken_answers(lines, label, read.baseline),
        "pairs": samples.wrong_pairs(items, lead, reward),
        "kept": bool(items.values(lead, f"reward_accuracy/{reward}")),
    }
    pairs = samples.contrasting_samples(lines, read.checks.get("disagreement"))
    return {
        "samples": pairs,
        "shared": [len(pair) > 1 and pair[0].prompt == pair[1].prompt for pair in pairs],
        "shown": samples.shown_answer(
            lines, lead, sampling or read.details.get("headline_sampling", "plain"), read.baseline
        ),
        "judged_answers": any(line.outcomes for line in lines),
        "failures": failures,
    }


def _plots(view: Mapping[str, Any]) -> list[PlotEntry]:
    """Every plot of the page, in its order."""
    found = [view[name]["plot"] for name in _PLOTTED if view[name] and "plot" in view[name]]
    found += view["training"]
    return found + [plot for plot in (view["data"].get("distributions"), view["data"].get("disagreement")) if plot]


def _opponent(read: RunData) -> str:
    """What the page calls the one whose answers the others' are judged against."""
    return OPPONENT if read.baseline == BASE else read.baseline


def _is_of(label: str, lead: str) -> bool:
    """Whether a finding is of the lead, or of its answers by one sampling (`fspo, guided`)."""
    return label == lead or label.startswith(f"{lead}, ")


def _variants(metrics: Metrics) -> dict[str, list[str]]:
    """Measures with a variant in their name, by family, in the order they occur; those at fewer shots are left out."""
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in metrics.values() for name in row):
        family, slash, _ = name.partition("/")
        if slash and family not in QUALITY_MEASURES and family not in IN_UNITS and "@" not in family:
            families.setdefault(family, []).append(name)
    return families


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
