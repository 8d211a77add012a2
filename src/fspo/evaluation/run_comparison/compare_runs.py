"""Methods of several runs on the same items: every two of them, paired by item, all corrected together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.evaluation.report.formatting import OPPONENT
from fspo.evaluation.run_comparison.loaded_run import LoadedRun, check_same
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics.comparing import Comparison, compare_together
from fspo.evaluation.statistics.intervals import Bounds, Estimate, clustered_mean
from fspo.printing import nearest

__all__ = ["Pair", "RunComparison", "RunMethod", "compare_runs"]

MEASURES = ("reward_accuracy", "win_rate")
"""Measures that are of each method's own headline variant."""

_BOUNDS: Mapping[str, Bounds | None] = {"answer_utility": None, "regret": None, "user_swap_drop": (-1.0, 1.0)}
"""Beginning of a measure's name -> the least and greatest of an item, where it is no share."""
_CHANCE = {"user_swap_drop": 0.0, "reward_accuracy": 0.5, "win_rate": 0.5}
"""The same -> what a coin, or a method that knows no user, would have."""


@dataclass(frozen=True)
class RunMethod:
    """One method of one run, or of several where it is the same in all."""

    name: str
    variant: str
    """The measure with its variant."""
    values: Mapping[Item, float]
    estimate: Estimate


@dataclass(frozen=True)
class Pair:
    """Two methods on the same items."""

    first: str
    second: str
    comparison: Comparison
    """The first less the second; p corrected for all pairs together."""

    def to_json(self) -> dict[str, Any]:
        """All fields, those of the comparison among them."""
        row = self.comparison
        named = {"first": self.first, "second": self.second, "detectable": row.detectable}
        return named | row.difference.to_json() | {"p": row.p, "adjusted": row.adjusted}


@dataclass(frozen=True)
class RunComparison:
    """What came out."""

    measure: str
    methods: Sequence[RunMethod]
    """The best first; of `regret` the least."""
    pairs: Sequence[Pair]
    same: Sequence[str]
    """Methods that are the same item by item in several runs, and stand once."""
    left_out: Sequence[str]
    """Methods that the measure was not taken of."""

    @property
    def percent(self) -> bool:
        """Whether the measure is a share."""
        return _bounds(self.measure) is not None

    @property
    def chance(self) -> float | None:
        """What a coin, or a method that knows no user, would have; None where there is no such value."""
        return next((chance for start, chance in _CHANCE.items() if self.measure.startswith(start)), None)

    def to_json(self) -> dict[str, Any]:
        """The whole, ready for JSON."""
        return {
            "measure": self.measure,
            "methods": [{"name": e.name, "variant": e.variant} | e.estimate.to_json() for e in self.methods],
            "pairs": [pair.to_json() for pair in self.pairs],
            "same_in_several_runs": list(self.same),
            "without_measure": list(self.left_out),
        }


def compare_runs(
    runs: Sequence[Path], *, measure: str = "", methods: Sequence[str] = (), benchmark: str = ""
) -> RunComparison:
    """Compare every two methods of `runs` by `measure`; with `methods`, only those of these names.

    By default the measure is `reward_accuracy`, or else the first that the runs have. With `benchmark` it is of what
    was measured on that one.

    Raises:
        ConfigError: none of the runs has the measure.
        DataError: a run is named twice or has no evaluation; the runs' items, or what the measure depends on, differ,
            which says in what; a method is in none of them; or there are fewer than two methods.
        StorageError: a file of a run is damaged or of another version.
    """
    for run in runs:
        if sum(run.resolve() == other.resolve() for other in runs) > 1:
            raise DataError(f"{run} is named twice; name every run once.")
    evaluated = _distinct([LoadedRun.read(run, benchmark) for run in runs])
    known = list(dict.fromkeys(name for run in evaluated for name in run.items.methods))
    for name in methods:
        if name not in known:
            raise DataError(f"None of these runs has a method {name!r}; there are {', '.join(known)}.")
    wanted = [name for name in known if not methods or name in methods]
    offered = _offered(evaluated)
    measure = measure or next(iter(offered), MEASURES[0])
    _check_measure(measure, offered)
    for other in evaluated[1:]:
        check_same(evaluated[0], other, measure, wanted)
    found, left_out = _run_methods(evaluated, measure, wanted)
    compared, same = _merged(found)
    if len(compared) < 2:
        raise _too_few(measure, offered, evaluated)
    ordered = sorted(compared, key=lambda e: e.estimate.value, reverse=measure != "regret")
    return RunComparison(measure, ordered, _pairs(ordered, measure), same, left_out)


def _too_few(measure: str, offered: Sequence[str], evaluated: Sequence[LoadedRun]) -> DataError:
    others = [name for name in offered if not (name.startswith(measure) or measure.startswith(name))]
    opponents = dict.fromkeys(str(run.details.get("baseline", OPPONENT)) for run in evaluated)
    already = f": a win rate is already a comparison with {' and '.join(opponents)}"
    return DataError(
        f"There are fewer than two methods to compare by {measure!r}"
        + (already if measure.startswith("win_rate") else "")
        + "; name more runs or methods"
        + (f", or another measure: {', '.join(others)}." if others else ".")
    )


def _check_measure(measure: str, offered: Sequence[str]) -> None:
    """Check that any method of any run has the measure, or raise ConfigError with the nearest one."""
    if measure not in offered:
        close = nearest(measure, offered)
        meant = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(f"There is no measure {measure!r} in these runs; there are {', '.join(offered)}.{meant}")


def _offered(evaluated: Sequence[LoadedRun]) -> list[str]:
    kept = sorted({m for run in evaluated for name in run.items.methods for m in run.items.measures(name)})
    return [*(m for m in MEASURES if any(name.startswith(f"{m}/") for name in kept)), *kept]


def _run_methods(
    evaluated: Sequence[LoadedRun], measure: str, names: Sequence[str]
) -> tuple[list[tuple[str, str, RunMethod]], list[str]]:
    """(method, run, row) of every method that has the measure, and the others."""
    found, left_out = [], []
    for run in evaluated:
        for method in run.items.methods:
            if method not in names:
                continue
            label = method if len(evaluated) == 1 else f"{run.name}: {method}"
            variant = run.variant(method, measure)
            values = run.items.values(method, variant)
            if values:
                estimate = clustered_mean(list(values.values()), [user for user, _ in values], bounds=_bounds(measure))
                found.append((method, run.name, RunMethod(label, variant, values, estimate)))
            else:
                left_out.append(label)
    return found, left_out


def _merged(found: Sequence[tuple[str, str, RunMethod]]) -> tuple[list[RunMethod], list[str]]:
    """A method that is the same item by item in several runs once, by its own name; and the names of such methods."""
    methods: list[RunMethod] = []
    same = []
    for name in dict.fromkeys(method for method, _, _ in found):
        mine = [row for method, _, row in found if method == name]
        alike = all((e.variant, e.values) == (mine[0].variant, mine[0].values) for e in mine)
        if len(mine) > 1 and alike:
            same.append(name)
            methods.append(replace(mine[0], name=name))
        else:
            methods += mine
    return methods, same


def _pairs(methods: Sequence[RunMethod], measure: str) -> list[Pair]:
    own = _bounds(measure)
    bounds = None if own is None else (own[0] - own[1], own[1] - own[0])
    met = {(one.name, other.name): _shared(one, other) for one, other in combinations(methods, 2)}
    return [Pair(*names, comparison) for names, comparison in compare_together(met, bounds=bounds).items()]


def _shared(one: RunMethod, other: RunMethod) -> tuple[dict[Item, float], dict[Item, float]]:
    """Both on the items that both were measured on: a swap or an answer may be missing where a user had none."""
    items = [item for item in one.values if item in other.values]
    if not items:
        raise DataError(f"{one.name} and {other.name} share no item with this measure; compare them by another.")
    return {item: one.values[item] for item in items}, {item: other.values[item] for item in items}


def _distinct(evaluated: Sequence[LoadedRun]) -> list[LoadedRun]:
    """The runs under names that tell them apart: their own, else those of their folders, else with a number."""
    for names in ([run.name for run in evaluated], [run.path.resolve().name for run in evaluated]):
        if len(set(names)) == len(names):
            return [replace(run, name=name) for run, name in zip(evaluated, names, strict=True)]
    return [replace(run, name=f"{run.name} ({number})") for number, run in enumerate(evaluated, start=1)]


def _bounds(measure: str) -> Bounds | None:
    return next((bounds for start, bounds in _BOUNDS.items() if measure.startswith(start)), (0.0, 1.0))
