"""How often the intervals cover the truth, in simulated studies whose truth is known.

    python -m benchmarks.interval_coverage --out docs/results/interval_coverage      # about three minutes

In each study some users answer some items each (between half and one and a half times the stated number). A user's own
rate is drawn from a beta distribution around the true one, so that answers within a user are correlated by the stated
amount (intraclass correlation): 0.1 is mild, 0.3 strong. An interval that is meant to cover the truth in 95% of
studies should do so in 93 to 97% of those here; `naive` is the same interval where every item counts as a user
of its own.

`t_coverage` and `score_coverage` are of two simpler intervals that know the users: mean and t quantile times standard
error, and Wilson's interval at the effective sample size with `users - 1` degrees of freedom.

`coverage` and `naive_coverage` are over all studies of `shares`. Beside them stand `differences` (two methods on the
same items, with how often the test finds a difference where there is none), `ranking` (Bradley-Terry strengths),
`length_controlled`, and `corners`: shares where the intervals are known to do worse, none of which are in `coverage`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fspo.evaluation.judges.length_control import Judged, length_controlled
from fspo.evaluation.statistics.comparing import compare
from fspo.evaluation.statistics.intervals import Estimate, Spread, clustered_mean, estimate_of, grouped
from fspo.evaluation.statistics.ranking import Game, bradley_terry
from fspo.files import write_json, write_text
from fspo.progress import PlainProgress, Progress, Silent

__all__ = ["Setting", "main", "simulate"]

_BAND = (0.93, 0.97)
_METHODS = ("first", "second", "third", "fourth")
_STRENGTHS = np.array([-0.6, -0.3, 0.2, 0.7])
_TASTE = 0.5
"""How much users differ in what they make of a method, as a standard deviation in log-odds."""
_LARGE = 20_000
"""Users of the study that says what the truth is, where no formula does."""
Generator = np.random.Generator


@dataclass(frozen=True)
class Setting:
    """One kind of study."""

    users: int
    items: int
    rate: float = 0.5
    correlation: float = 0.1


_SHARES = [Setting(u, 10, r, c) for u, r, c in product((10, 30, 100), (0.5, 0.9), (0.1, 0.3))]
_CORNERS = [
    Setting(3, 10, 0.5, 0.3),
    Setting(5, 10, 0.5, 0.3),
    Setting(5, 10, 0.9, 0.3),
    Setting(10, 30, 0.9, 0.3),
    Setting(30, 30, 0.97, 0.3),
    Setting(30, 1, 0.9, 0.1),
]
_SIZES = [Setting(10, 8), Setting(30, 8), Setting(100, 8)]
_RANKED = [Setting(users, 2 * len(_METHODS) * (len(_METHODS) - 1) // 2) for users in (10, 30, 100)]


def simulate(studies: int, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """All figures, from `studies` studies of each setting."""
    progress = progress or Silent()
    shares = _section("shares", _SHARES, _share, studies, seed, progress)
    return {
        "benchmark": "interval_coverage",
        "studies": studies * len(shares),
        "coverage": _mean(shares, "coverage"),
        "naive_coverage": _mean(shares, "naive_coverage"),
        "studies_per_setting": studies,
        "seed": seed,
        "shares": shares,
        "differences": _section("differences", _SIZES, _difference, studies, seed, progress),
        "ranking": _section("ranking", _RANKED, _ranking(seed), studies, seed, progress),
        "length_controlled": _section("length control", _SIZES, _length_control(seed), studies, seed, progress),
        "corners": _section("corners", _CORNERS, _share, studies, seed, progress),
    }


Study = Callable[[Setting, Generator], Mapping[str, float]]
"""One simulated study: what it found, by name."""


def _section(
    name: str, settings: Sequence[Setting], study: Study, studies: int, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    rows = []
    with progress.task(name, len(settings) * studies) as task:
        for place, setting in enumerate(settings):
            found = []
            for number in range(studies):
                found.append(study(setting, np.random.default_rng([seed, place, number])))
                task.advance()
            rows.append(asdict(setting) | {key: sum(one[key] for one in found) / studies for key in found[0]})
    return rows


def _share(setting: Setting, generator: Generator) -> dict[str, float]:
    values, users = _answers(setting, generator)
    estimate, naive = clustered_mean(values, users), clustered_mean(values, [str(i) for i in range(len(values))])
    return {
        "coverage": _covers(estimate, setting.rate),
        "naive_coverage": _covers(naive, setting.rate),
        "width": _width(estimate),
        "naive_width": _width(naive),
        "t_coverage": _covers(clustered_mean(values, users, bounds=None), setting.rate),
        "score_coverage": _covers(_with_all_degrees(values, users, estimate), setting.rate),
    }


def _with_all_degrees(values: list[float], users: list[str], estimate: Estimate) -> Estimate:
    """Our interval, but for the t quantile, which has `users - 1` degrees of freedom however uneven the users are."""
    groups = grouped(values, users)
    residuals = [sum(group) - len(group) * estimate.value for group in groups.values()]
    spread = replace(Spread.of(residuals, len(values)), degrees=len(groups) - 1)
    return estimate if spread.none else estimate_of(estimate.value, spread, users=len(groups), items=len(values))


def _answers(setting: Setting, generator: Generator) -> tuple[list[float], list[str]]:
    weight = 1 / setting.correlation - 1
    own = generator.beta(setting.rate * weight, (1 - setting.rate) * weight, size=setting.users)
    sizes = generator.integers(max(1, setting.items // 2), setting.items * 3 // 2 + 1, size=setting.users)
    values = [float(answer) for rate, size in zip(own, sizes, strict=True) for answer in generator.random(size) < rate]
    return values, [str(user) for user, size in enumerate(sizes) for _ in range(size)]


def _difference(setting: Setting, generator: Generator) -> dict[str, float]:
    """Two methods of one user are alike, and one of them is better by 0.1; then once more without a difference."""
    found = {}
    for advantage in (0.1, 0.0):
        scores: list[dict[tuple[str, int], float]] = [{}, {}]
        for user in range(setting.users):
            rate, better = generator.uniform(0.4, 0.7), generator.uniform(-0.2, 0.2) + advantage
            for item in range(setting.items):
                scores[0][str(user), item] = float(generator.random() < rate + better)
                scores[1][str(user), item] = float(generator.random() < rate)
        comparison = compare(scores[0], scores[1])
        if advantage:
            alone = [{(str(item), 0): value for item, value in row.items()} for row in scores]
            naive = compare(*alone)
            found["coverage"] = _covers(comparison.difference, advantage)
            found["naive_coverage"] = _covers(naive.difference, advantage)
        else:
            found["false_alarms"] = float(comparison.significant)
    return found


def _ranking(seed: int) -> Study:
    """Four methods, each pair judged twice by every user, one judgement in seven a tie."""
    large = bradley_terry(_games(Setting(_LARGE // 10, 12), np.random.default_rng([seed, _LARGE])), draws=1)
    truth = {standing.method: standing.strength for standing in large.standings}

    def study(setting: Setting, generator: Generator) -> dict[str, float]:
        standings = bradley_terry(_games(setting, generator), draws=500).standings
        covered = [
            float((standing.low or 0.0) <= truth[standing.method] <= (standing.high or 0.0)) for standing in standings
        ]
        return {"coverage": sum(covered) / len(covered), "best_found": float(standings[0].method == _METHODS[-1])}

    return study


def _games(setting: Setting, generator: Generator) -> Iterator[Game]:
    for user in range(setting.users):
        own = _STRENGTHS + generator.normal(0, _TASTE, size=len(_METHODS))
        for one, other in ((i, j) for i in range(len(_METHODS)) for j in range(i)):
            for _ in range(2):
                won = float(generator.random() < _logistic(own[one] - own[other]))
                score = 0.5 if generator.random() < 1 / 7 else won
                yield Game(str(user), _METHODS[one], _METHODS[other], score)


def _length_control(seed: int) -> Study:
    """A method as good as the baseline, whose answers are longer, before a judge who likes that."""
    large = length_controlled(_judged(Setting(_LARGE, 2), np.random.default_rng([seed, _LARGE])), inverse_penalty=1e4)
    truth = large.win_rate.value

    def study(setting: Setting, generator: Generator) -> dict[str, float]:
        found = length_controlled(_judged(setting, generator))
        return {
            "coverage": _covers(found.win_rate, truth),
            "win_rate": found.win_rate.value,
            "win_rate_without_control": found.plain.value,
        }

    return study


def _judged(setting: Setting, generator: Generator) -> list[Judged]:
    rows = []
    for user in range(setting.users):
        taste = generator.normal(0, _TASTE)
        for longer in generator.normal(0.7, 1.0, size=setting.items):
            won = float(generator.random() < _logistic(taste + 1.5 * np.tanh(longer)))
            rows.append(Judged(str(user), won, round(1000 + 250 * longer), 1000))
    return rows


def _logistic(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _covers(estimate: Estimate, truth: float) -> float:
    return float(estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high)


def _width(estimate: Estimate) -> float:
    return (estimate.high or 0.0) - (estimate.low or 0.0)


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def _page(figures: Mapping[str, Any]) -> str:
    lines = [
        "# How often the intervals cover the truth",
        "",
        "```sh",
        f"python -m benchmarks.interval_coverage --studies {figures['studies_per_setting']} --seed {figures['seed']} "
        "--out docs/results/interval_coverage",
        "```",
        "",
        f"Shares over {figures['studies']:,} simulated studies, {figures['studies_per_setting']:,} of each kind: the "
        f"95% intervals cover the truth in {figures['coverage']:.1%}, naive ones, which treat every item as "
        f"independent, in {figures['naive_coverage']:.1%}. `benchmarks/interval_coverage.py` describes the studies.",
        "",
    ]
    for section in ("shares", "differences", "ranking", "length_controlled", "corners"):
        names = [name for name in figures[section][0] if section in ("shares", "corners") or name not in _FIXED]
        lines += [f"## {section.replace('_', ' ').capitalize()}", ""]
        lines += ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---|" * len(names)]
        lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in figures[section]] + [""]
    return "\n".join(lines).rstrip() + "\n"


_FIXED = ("rate", "correlation")


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}".rstrip("0").ljust(3, "0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulations from the command line; 1 where the intervals don't cover as often as they should."""
    parser = argparse.ArgumentParser(prog="benchmarks.interval_coverage", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for figures.json and README.md")
    options = parser.parse_args(arguments)
    figures = simulate(options.studies, options.seed, PlainProgress(sys.stderr))
    if options.out is not None:
        write_json(options.out / "figures.json", figures)
        write_text(options.out / "README.md", _page(figures))
    print(json.dumps(figures))
    return 0 if _BAND[0] <= figures["coverage"] <= _BAND[1] else 1


if __name__ == "__main__":
    raise SystemExit(main())
