"""One self-contained page that shows what came out of a run, and what did not."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fspo.errors import DataError
from fspo.evaluation import plots
from fspo.evaluation.effort import Effort, efforts, unequal
from fspo.evaluation.findings import Metrics, caveats, headline, negatives
from fspo.evaluation.report_data import data_section
from fspo.evaluation.statistics import Estimate
from fspo.evaluation.summary import MEASURES, as_estimates, said_variants, variants_of
from fspo.evaluation.trials import tendency
from fspo.files import read_json, read_jsonl, write_text
from fspo.methods.table import METHODS
from fspo.preferences.types import User

__all__ = ["contrasting_samples", "write_figures", "write_report"]

_CURVES = (
    ("loss", "training loss"),
    ("margin_accuracy", "share of training queries ranked right"),
    ("direction_accuracy", "share of training queries moved the right way by the labels"),
    ("eval_margin_accuracy", "share of validation queries ranked right (by the training's own margin)"),
    ("eval_direction_accuracy", "share of validation queries moved the right way by the labels"),
)
_QUALITY = {
    "fluency": "log-prob a token",
    "distinct": "distinct word pairs",
    "compression": "compressed size",
    "overlap": "question words taken up",
    "closeness": "closeness to question",
    "words": "words",
    "below_floor": "below a floor",
    "unfinished": "cut off at the limit",
}
_IN_UNITS = frozenset({"answer_utility", "answer_regret"})
"""Measures in units of the users' utility, which are no shares."""


def write_report(run_dir: Path, out: Path) -> Path:
    """Write the report of the run in `run_dir` to `out`; parts that are missing are named in their place.

    Raises:
        DataError: there is no such folder.
        StorageError: a file of the run is damaged, or the report can't be written.
    """
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is no run folder; run `fspo run` first, or name the folder it wrote.")
    environment = Environment(undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "interval": _interval, "number": _number, "amount": _amount}
    template = environment.from_string(_template())
    write_text(out, template.render(**_view(run_dir)))
    return out


def write_figures(run_dir: Path, out: Path) -> list[Path]:
    """Write the plots of the report that there is something for as SVG files into `out`.

    Raises:
        StorageError: a file of the run is damaged, or a plot can't be written.
    """
    metrics = as_estimates(_first_json(run_dir / "metrics.json", run_dir / "evaluation" / "metrics.json"))
    curve = _curve_over_shots(metrics, _first_json(run_dir / "evaluation" / "observer.json"))
    drawn = {"accuracy-by-shots": curve.get("svg"), "win-rates": _wins(metrics)}
    drawn |= {f"training-{plot['key'].replace('_', '-')}": plot["svg"] for plot in _training(run_dir)}
    page = _template()
    palette = page[page.index(":root {") : page.index("* { box-sizing")]
    written = []
    for name, svg in drawn.items():
        if svg:
            write_text(out / f"{name}.svg", plots.standalone(svg, palette))
            written.append(out / f"{name}.svg")
    return written


def contrasting_samples(samples: Sequence[Mapping[str, Any]], *, pairs: int = 3) -> list[list[Mapping[str, Any]]]:
    """Samples to be read side by side: for the least alike users who answered a common prompt, one such prompt each.

    The rule: pairs of users by the cosine of their traits, least alike first, a user in one pair only; of their common
    prompts the first by the alphabet. Without common prompts, the first of each user.
    """
    by_user: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for sample in samples:
        by_user[sample["user"]].setdefault(sample["prompt"], sample)
    users = {name: User(name, traits=next(iter(rows.values())).get("traits", {})) for name, rows in by_user.items()}

    def rank(pair: tuple[str, str]) -> tuple[bool, float, tuple[str, str]]:
        alike = tendency(users[pair[0]], users[pair[1]])
        return not by_user[pair[0]].keys() & by_user[pair[1]].keys(), alike if alike is not None else 1.0, pair

    chosen: list[list[Mapping[str, Any]]] = []
    taken: set[str] = set()
    for first, second in sorted(itertools.combinations(sorted(users), 2), key=rank):
        if len(chosen) < pairs and taken.isdisjoint((first, second)):
            taken |= {first, second}
            common = sorted(by_user[first].keys() & by_user[second].keys())
            prompts = (common[0], common[0]) if common else (min(by_user[first]), min(by_user[second]))
            chosen.append([by_user[first][prompts[0]], by_user[second][prompts[1]]])
    return chosen or [[sample] for sample in samples[:1]]


def _template() -> str:
    return (files("fspo.evaluation") / "report.html.j2").read_text(encoding="utf-8")


def _view(run_dir: Path) -> dict[str, Any]:
    folder = run_dir / "evaluation"
    metrics = as_estimates(_first_json(run_dir / "metrics.json", folder / "metrics.json"))
    details = _first_json(folder / "details.json")
    config = _text(run_dir / "resolved.yaml") or _text(run_dir / "config.yaml")
    settings = _settings(config)
    trained = efforts(run_dir)
    compared = as_estimates(_first_json(folder / "comparisons.json"))
    lead = "fspo" if "fspo" in metrics else next(iter(reversed(metrics)), "")
    return {
        "name": settings.get("name") or run_dir.resolve().name,
        "model": settings.get("model") or details.get("model") or "",
        "details": details,
        "headline": headline(metrics, lead, variants_of(details, lead)),
        "measures": {m: label for m, label in MEASURES.items() if any(m in row for row in metrics.values())},
        "metrics": metrics,
        "variants": _variants(metrics),
        "comparisons": compared,
        "compared_measures": sorted({m for row in compared.values() for m in row if "/" in m}),
        "curve": _curve_over_shots(metrics, _first_json(folder / "observer.json")),
        "wins": _wins(metrics),
        "quality": _quality(metrics),
        "said_variants": said_variants(details),
        "references": {
            method: _reference(method, variants_of(details, method).get("reward", ""), trained.get(method))
            for method in metrics
        },
        "efforts": trained,
        "training": _training(run_dir),
        "data": data_section(run_dir),
        "samples": contrasting_samples(read_jsonl(folder / "samples.jsonl")),
        "negatives": negatives(metrics, details),
        "caveats": caveats(metrics, details, unequal(trained)),
        "config": config,
        "versions": _first_json(run_dir / "versions.json"),
    }


def _reference(method: str, variant: str, trained: Effort | None) -> str:
    """What the method's headline reward is measured against."""
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


def _variants(metrics: Metrics) -> dict[str, list[str]]:
    """Measures with a variant in their name, by family, in the order they occur."""
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in metrics.values() for name in row):
        family, slash, _ = name.partition("/")
        if slash and family not in _QUALITY and family not in _IN_UNITS and "@" not in family:
            families.setdefault(family, []).append(name)
    return families


def _curve_over_shots(metrics: Metrics, observer: Mapping[str, Any]) -> dict[str, Any]:
    lines = {name: _at_shots(row) for name, row in metrics.items()}
    lines = {name: points for name, points in lines.items() if points}
    seen = _at_shots({name: Estimate.from_json(record) for name, record in observer.items()})
    if not lines:
        return {}
    svg = plots.accuracy_by_shots(lines, seen, title="Reward accuracy by number of shots")
    table = {name: dict(points) for name, points in lines.items()} | ({"ideal observer": dict(seen)} if seen else {})
    return {"svg": Markup(svg), "table": table, "ks": sorted({k for row in table.values() for k in row})}


def _at_shots(row: Mapping[str, Estimate]) -> list[tuple[float, Estimate]]:
    prefix = "reward_accuracy@"
    found = ((name.removeprefix(prefix), estimate) for name, estimate in row.items() if name.startswith(prefix))
    return sorted((float(k), estimate) for k, estimate in found if "/" not in k)


def _wins(metrics: Metrics) -> Markup | None:
    rows = [
        (f"{method}, {name.removeprefix('win_rate/')}", method, estimate)
        for method, row in metrics.items()
        for name, estimate in row.items()
        if name.startswith("win_rate/")
    ]
    return Markup(plots.interval_plot(rows, title="Win rate over the base model")) if rows else None


def _quality(metrics: Metrics) -> dict[str, Any]:
    rows = {
        f"{method}, {sampling}": {q: row.get(f"{q}/{sampling}") for q in _QUALITY}
        for method, row in metrics.items()
        for sampling in ("plain", "guided")
        if f"words/{sampling}" in row
    }
    return {"columns": _QUALITY, "rows": rows} if rows else {}


def _training(run_dir: Path) -> list[dict[str, Any]]:
    """One plot for each value that methods recorded while training."""
    records = {path.parent.name: read_jsonl(path) for path in sorted(run_dir.glob("methods/*/metrics.jsonl"))}
    found = []
    for key, label in _CURVES:
        curves = {name: _series(rows, key) for name, rows in records.items()}
        curves = {name: points for name, points in curves.items() if len(points) > 1}
        if curves:
            found.append(
                {"key": key, "title": label, "svg": Markup(plots.training_curves(curves, title=label, ylabel=label))}
            )
    return found


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    latest = {row["step"]: row[key] for row in rows if _is_number(row.get("step")) and _is_number(row.get(key))}
    return sorted(latest.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


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
    return "\N{EN DASH}" if estimate is None else f"{estimate.value * 100:.1f}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{estimate.low * 100:.1f} \N{EN DASH} {estimate.high * 100:.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}"


def _amount(count: int | None) -> str:
    return "\N{EN DASH}" if count is None else f"{count:,}"
