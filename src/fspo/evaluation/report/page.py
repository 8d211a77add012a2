"""One self-contained page that shows what came out of a run, and what did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fspo.errors import DataError
from fspo.evaluation import plots
from fspo.evaluation.across import detectable
from fspo.evaluation.effort import Effort, efforts, unequal
from fspo.evaluation.findings import Metrics, caveats, headline, negatives
from fspo.evaluation.games import games_over_base, read_games
from fspo.evaluation.items import Items
from fspo.evaluation.report import measures, samples, standing
from fspo.evaluation.report.data import data_section
from fspo.evaluation.report.plotted import Plotted
from fspo.evaluation.report.short import in_short
from fspo.evaluation.statistics import Estimate
from fspo.evaluation.summary import MEASURES, as_estimates, said_variants, variants_of
from fspo.evaluation.trained import said_untraced
from fspo.files import read_json, read_jsonl, write_text
from fspo.methods.table import METHODS

__all__ = ["environment", "write_figures", "write_report"]

_CURVES = (
    ("loss", "training loss"),
    ("margin_accuracy", "share of training queries ranked right"),
    ("direction_accuracy", "share of training queries moved the right way by the labels"),
    ("eval_margin_accuracy", "share of validation queries ranked right (by the training's own margin)"),
    ("eval_direction_accuracy", "share of validation queries moved the right way by the labels"),
)
_IN_UNITS = frozenset({"answer_utility", "answer_regret", "regret", "general_fluency", "tax_fluency"})
"""Measures in units of the users' utility or in nats, which are no shares."""

_PLOTTED = ("answers_rank", "accuracy_rank", "curve", "sensitivity", "calibration", "regret", "wins", "tax", "per_user")
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
        StorageError: a file of the run is damaged, or a plot can't be written.
    """
    style = environment().get_template("style.css.j2").render()
    palette = style[style.index(":root {") : style.index("* { box-sizing")]
    written = []
    for plot in _plots(_view(run_dir, benchmark)):
        write_text(out / f"{plot.name}.svg", plots.standalone(plot.svg, palette))
        written.append(out / f"{plot.name}.svg")
        if plot.rows:
            write_text(out / f"{plot.name}.csv", plot.csv)
    return written


def environment() -> Environment:
    """What pages are made with: everything is text unless it says otherwise, and a name that is missing is an error."""
    found = Environment(
        loader=PackageLoader("fspo.evaluation.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": _percent,
        "interval": _interval,
        "number": _number,
        "amount": _amount,
        "chance": _chance,
        "detectable": detectable,
        "points": _points,
        "in_units": lambda measure: measure.partition("/")[0] in _IN_UNITS,
        "cell": _cell,
        "tight": lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%"),
    }
    return found


def _view(run_dir: Path, benchmark: str = "") -> dict[str, Any]:
    # What was measured lies in a folder of its own; of the run itself some of it lies beside that too.
    folder = run_dir / "benchmarks" / benchmark if benchmark else run_dir / "evaluation"
    beside = folder if benchmark else run_dir
    metrics = as_estimates(_first_json(beside / "metrics.json", folder / "metrics.json"))
    observer = as_estimates({"": _first_json(folder / "observer.json", beside / "observer.json")})[""]
    details = _first_json(folder / "details.json", beside / "details.json")
    config = _text(run_dir / "resolved.yaml") or _text(run_dir / "config.yaml")
    settings = _settings(config)
    trained = efforts(run_dir)
    lead = details.get("compared") or ("fspo" if "fspo" in metrics else next(iter(reversed(metrics)), ""))
    return (
        {
            "name": f"{settings.get('name') or run_dir.resolve().name}{f' on {benchmark}' if benchmark else ''}",
            "model": settings.get("model") or details.get("model") or "",
            "details": details,
            "lead": lead,
            "headline": headline(metrics, lead, variants_of(details, lead)),
            "measures": {m: label for m, label in MEASURES.items() if any(m in row for row in metrics.values())},
            "metrics": metrics,
            "observer": observer,
            "variants": _variants(metrics),
            "said_variants": said_variants(details),
            "references": {
                method: _reference(method, variants_of(details, method).get("reward", ""), trained.get(method))
                for method in metrics
            },
            "efforts": trained,
            "training": _training(run_dir),
            "data": {} if benchmark else data_section(run_dir),
            "negatives": _lead_first(negatives(metrics, details), lead),
            "caveats": [*caveats(metrics, details, unequal(trained)), *_seen(details)],
            "config": config,
            "versions": _first_json(run_dir / "versions.json"),
        }
        | _figures(folder, beside, metrics, observer, details, lead)
        | _texts(folder, {} if benchmark else _first_json(run_dir / "data" / "checks.json"), details, lead)
    )


def _figures(
    folder: Path,
    beside: Path,
    metrics: Metrics,
    observer: Mapping[str, Estimate],
    details: Mapping[str, Any],
    lead: str,
) -> dict[str, Any]:
    """The sections with plots."""
    items = Items.read(folder)
    rewards = {name: row[0] for name, row in details.get("rewards", {}).items() if row}
    samplings = {name: f"win_rate/{sampling}" for name, sampling in details.get("samplings", {}).items()}
    games = read_games(folder) or games_over_base({name: items.values(name, m) for name, m in samplings.items()})
    full = "reward_accuracy"
    if full not in observer:  # evaluations of before gave it at the full count alone, on all pairs
        full = f"reward_accuracy@{details.get('shots', _most_shots(observer))}"
    found = {
        "answers_rank": standing.answer_standing(games, metrics),
        "accuracy_rank": standing.accuracy_standing(metrics, observer, full),
        "paired": standing.paired_with_lead(items, lead, rewards),
        "unpaired": as_estimates(_first_json(folder / "comparisons.json", beside / "comparisons.json")),
        "curve": measures.by_shots(metrics, observer),
        "sensitivity": measures.sensitivity(metrics, observer),
        "calibration": measures.calibration(_first_json(folder / "calibration.json"), metrics),
        "regret": measures.regret(metrics, observer),
        "wins": measures.win_rates(metrics, _first_json(folder / "judges.json")),
        "tax": measures.tax(metrics),
        "per_user": measures.per_user(_first_json(folder / "per_user.json"), lead),
        "quality": measures.quality(metrics),
    }
    return found | {"short": in_short(metrics, observer.get(full), found, lead)}


def _texts(folder: Path, checks: Any, details: Mapping[str, Any], lead: str) -> dict[str, Any]:
    """The answers to be read, and those that failed."""
    lines, items = read_jsonl(folder / "samples.jsonl"), Items.read(folder)
    label = f"{lead}, {details.get('samplings', {}).get(lead, 'plain')}"
    reward = next(iter(details.get("rewards", {}).get(lead, [])), "")
    failures = {
        "label": label,
        "reward": reward,
        "losses": samples.worst_losses(lines, items, label),
        "broken": samples.broken_answers(lines, label),
        "pairs": samples.wrong_pairs(items, lead, reward),
    }
    disagreement = checks.get("disagreement") if isinstance(checks, dict) else None
    return {"samples": samples.contrasting_samples(lines, disagreement), "failures": failures}


def _plots(view: Mapping[str, Any]) -> list[Plotted]:
    """Every plot of the page, in its order."""
    sections = (
        "answers_rank",
        "accuracy_rank",
        "curve",
        "sensitivity",
        "calibration",
        "regret",
        "wins",
        "tax",
        "per_user",
    )
    found = [view[name]["plot"] for name in sections if view[name]]
    found += view["training"]
    return found + [plot for plot in (view["data"].get("distributions"), view["data"].get("disagreement")) if plot]


def _reference(method: str, variant: str, trained: Effort | None) -> str:
    """What the method's headline reward is measured against."""
    if not variant:
        return "not recorded in this run"
    if variant == "antisymmetric":
        return "its mirror: the same weights, given the same shots with their labels swapped"
    if variant == "score":
        return "nothing: its own score"
    if variant != "reference" or method not in METHODS:
        return "nothing: plain log-likelihood"
    entry = METHODS[method]
    if entry.reward_reference == "start" and entry.trains:
        seen = "without context too" if entry.context == "none" else "given the same shots"
        start = trained.start if trained else entry.starts_from
        return f"{start or 'base'} weights it started from, {seen}"
    return "the same weights without context"


def _seen(details: Mapping[str, Any]) -> list[str]:
    sentence = said_untraced(details.get("untraced", []))
    return [sentence] if sentence else []


def _lead_first(sentences: Sequence[str], lead: str) -> dict[str, bool]:
    """Sentence -> whether it is on the lead, those that are first."""
    about = {sentence: sentence.startswith((f"{lead}:", f"{lead},")) for sentence in sentences}
    return dict(sorted(about.items(), key=lambda entry: not entry[1]))


def _variants(metrics: Metrics) -> dict[str, list[str]]:
    """Measures with a variant in their name, by family, in the order they occur."""
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in metrics.values() for name in row):
        family, slash, _ = name.partition("/")
        if slash and family not in measures.QUALITY and family not in _IN_UNITS and "@" not in family:
            families.setdefault(family, []).append(name)
    return families


def _training(run_dir: Path) -> list[Plotted]:
    """One plot for each value that methods recorded while training."""
    records = {path.parent.name: read_jsonl(path) for path in sorted(run_dir.glob("methods/*/metrics.jsonl"))}
    found = []
    for key, label in _CURVES:
        curves = {name: _series(rows, key) for name, rows in records.items()}
        curves = {name: points for name, points in curves.items() if len(points) > 1}
        if curves:
            svg = Markup(plots.training_curves(curves, title=label, ylabel=label))
            numbers = [{"method": name, "step": x, "value": y} for name, points in curves.items() for x, y in points]
            found.append(Plotted(f"training-{key.replace('_', '-')}", label, svg, numbers))
    return found


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    latest = {row["step"]: row[key] for row in rows if _is_number(row.get("step")) and _is_number(row.get(key))}
    return sorted(latest.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _most_shots(observer: Mapping[str, Estimate]) -> int:
    counts = (name.partition("@")[2] for name in observer)
    return max((int(k) for k in counts if k.isdigit()), default=0)


def _first_json(*paths: Path) -> Any:
    return next((read_json(path) for path in paths if path.exists()), {})


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _settings(config: str) -> Mapping[str, Any]:
    try:
        value = yaml.safe_load(config)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def _percent(estimate: Estimate | None) -> str:
    return "\N{EN DASH}" if estimate is None else _signed(estimate.value * 100)


def _interval(estimate: Estimate | None, percent: bool = True) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    if not percent:
        return f"{_number(estimate.low)} to {_number(estimate.high)}"
    return f"{_signed(estimate.low * 100)} to {_signed(estimate.high * 100)}"


def _signed(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _points(estimate: Estimate) -> str:
    """A difference in points with its sign."""
    return f"{estimate.value * 100:+.1f}".replace("-", "\N{MINUS SIGN}")


def _chance(p: float | None) -> str:
    """A p value, not more exact than it is."""
    if p is None:
        return "\N{EN DASH}"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _amount(count: int | None) -> str:
    return "\N{EN DASH}" if count is None else f"{count:,}"


def _cell(value: Any) -> str:
    """A number of a plot's table as people read it; the CSV has all digits."""
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return "" if value is None else str(value)
