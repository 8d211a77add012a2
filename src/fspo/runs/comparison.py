"""Many methods compared on several domains: the results of a run and of its benchmarks, ranked, with what they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fspo.evaluation.artifacts import Details, Estimates
from fspo.evaluation.report.formatting import Unit, amount, with_interval
from fspo.evaluation.statistics.intervals import Estimate
from fspo.files import read_json, write_json, write_text
from fspo.records import read_record
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder
from fspo.runs.pipeline import details_of, need_results

__all__ = ["DomainStandings", "Standing", "standings_of", "write_standings"]

OBSERVER = "ideal observer"
"""What the ceiling is called beside the methods."""

_MEASURES = ("reward_accuracy", "label_flip_rate", "user_swap_drop", "win_rate", "shortfall")
_UNITS: Mapping[str, Unit] = {"label_flip_rate": "%", "user_swap_drop": " points", "win_rate": "%"}
"""The unit of each measure beside the accuracy; a drop is a difference."""
_AGAIN = "delete it and run `fspo compare` again."


@dataclass(frozen=True)
class Standing:
    """One method on one domain."""

    method: str
    rank: int | None
    """1 for the highest reward accuracy; None for the ideal observer, which is no method."""
    measures: Mapping[str, Estimate]
    behind: Estimate | None
    """Reward accuracy of the method that the others are compared with less that of this one, on the same items."""
    costs: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        """Reward accuracy at the full number of shots."""
        return self.measures["reward_accuracy"].value

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        behind = None if self.behind is None else self.behind.to_json()
        measures = {name: estimate.to_json() for name, estimate in self.measures.items()}
        return {"rank": self.rank, **measures, "behind": behind, "costs": dict(self.costs)}


@dataclass(frozen=True)
class DomainStandings:
    """All methods on one domain, the best first."""

    domain: str
    lead: str
    """The method that the others are compared with."""
    users: int
    pairs: int
    standings: tuple[Standing, ...]

    @property
    def shots(self) -> list[int]:
        """The numbers of shots of the curve."""
        names = {name for row in self.standings for name in row.measures if name.startswith("reward_accuracy@")}
        return sorted(int(name.partition("@")[2]) for name in names)


def standings_of(folder: RunFolder) -> list[DomainStandings]:
    """The methods on the run's own domain, and on each benchmark that the run names.

    Raises:
        DataError: one of them has not been evaluated.
        StorageError: a file is damaged.
    """
    config = folder.config
    own = config.data.name if config.data is not None else Path(config.synthesis.domain).name
    named = {name: f"{name} (benchmark)" if name == own else name for name in config.benchmarks}
    return [_of(folder, own), *(_of(folder, title, benchmark=name) for name, title in named.items())]


def _of(folder: RunFolder, domain: str, benchmark: str = "") -> DomainStandings:
    metrics = need_results(folder, benchmark)
    details = Details.model_validate(details_of(folder, benchmark))
    place = folder.measured(benchmark)
    compared = read_record(place / "comparisons.json", Estimates, _AGAIN) or {}
    lead = details.compared or ""
    rows = sorted(metrics.items(), key=lambda row: -row[1]["reward_accuracy"].value)
    values = [row["reward_accuracy"].value for _, row in rows]
    found = [
        Standing(name, 1 + values.index(row["reward_accuracy"].value), _shown(row), _behind(compared, name), costs)
        for name, row in rows
        for costs in [details.costs.get(name, {})]
    ]
    observer = read_json(place / "observer.json") if (place / "observer.json").is_file() else {}
    if observer:
        ceiling = {name: Estimate(**value) for name, value in observer.items()}
        found.insert(0, Standing(OBSERVER, None, _shown(ceiling), None, {}))
    return DomainStandings(domain, lead, details.users, details.pairs, tuple(found))


def _shown(row: Mapping[str, Estimate]) -> dict[str, Estimate]:
    curve = [name for name in row if name.startswith("reward_accuracy@") and "/" not in name]
    return {name: row[name] for name in (*_MEASURES, *curve) if name in row}


def _behind(compared: Mapping[str, Mapping[str, Estimate]], name: str) -> Estimate | None:
    """By the headline reward of both; where theirs differ, by the first one that they share."""
    row = compared.get(name, {})
    shared = (value for measure, value in row.items() if measure.startswith("reward_accuracy/"))
    return row.get("reward_accuracy") or next(shared, None)


def write_standings(folder: RunFolder, found: list[DomainStandings]) -> Path:
    """Write `comparison/metrics.json` and `comparison/README.md`; returns the folder.

    Raises:
        StorageError: the folder can't be written.
    """
    out = folder.path / "comparison"
    overall = _overall(found)
    domains = {one.domain: {row.method: row.to_json() for row in one.standings} for one in found}
    write_json(out / "metrics.json", {"ranking": overall, "domains": domains})
    write_text(out / "README.md", _page(folder, found, overall))
    return out


def _overall(found: list[DomainStandings]) -> dict[str, float]:
    """Method -> mean reward accuracy over the domains, the best first; of methods that all domains have."""
    by_domain = [{row.method: row.accuracy for row in one.standings if row.rank is not None} for one in found]
    shared = [name for name in by_domain[0] if all(name in other for other in by_domain)]
    means = {name: fmean(domain[name] for domain in by_domain) for name in shared}
    return dict(sorted(means.items(), key=lambda row: -row[1]))


def _page(folder: RunFolder, found: list[DomainStandings], overall: Mapping[str, float]) -> str:
    lines = [f"# Methods compared ({folder.config.name})\n"]
    lines.append(f"Model: {Path(folder.config.model).name}. Held-out users on held-out questions. Reward accuracy in ")
    lines.append("percent with 95% intervals clustered by user; the methods are ranked by it.\n")
    if len(found) > 1:
        lines.append("## Over all domains\n")
        lines += [f"{place}. `{name}` {amount(value)}" for place, (name, value) in enumerate(overall.items(), 1)]
        lines.append("")
    for one in found:
        lines += _section(one, folder.config)
    return "\n".join(lines).rstrip() + "\n"


def _section(one: DomainStandings, config: RunConfig) -> list[str]:
    curve = [f"@{k}" for k in one.shots]
    heads = ["rank", "method", "reward accuracy", *curve, f"{one.lead} minus it", "label flip", "user swap", "win rate"]
    heads += ["training", "numbers", "bytes a user", "adapting to a user"]
    lines = [f"## {one.domain}\n", f"{one.users} users, {one.pairs} pairs.\n", _row(heads), _row(["---"] * len(heads))]
    for row in one.standings:
        own = row.measures
        points = [amount(own[f"reward_accuracy{k}"].value) if f"reward_accuracy{k}" in own else "" for k in curve]
        cells = [str(row.rank or ""), f"`{row.method}`", with_interval(own["reward_accuracy"]), *points]
        cells.append("" if row.behind is None else with_interval(row.behind, " points"))
        for name, unit in _UNITS.items():
            cells.append(amount(own[name].value, unit) if name in own else "")
        lines.append(_row([*cells, *_costs(row.costs)]))
    without = {row.method for row in one.standings if "win_rate" not in row.measures}
    if not without.isdisjoint(config.readers) and not config.evaluation.best_of:
        lines.append("\nReaders write no answers, so they have no win rate; set evaluation.best_of to let them choose.")
    return [*lines, ""]


def _costs(costs: Mapping[str, float]) -> list[str]:
    names = ("train_seconds", "parameters", "bytes_per_user", "user_seconds")
    seconds, numbers, user, adapting = (costs.get(name) for name in names)
    return [
        "" if seconds is None else f"{seconds:,.0f} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s",
        "" if numbers is None else f"{numbers:,.0f}",
        "" if user is None else f"{user:,.0f}",
        "" if adapting is None else f"{adapting:.2g} s",
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
