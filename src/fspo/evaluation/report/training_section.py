"""How each method was trained: what it recorded while training, and what training took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fspo.evaluation.plots import charts
from fspo.evaluation.plots.drawing import Palette
from fspo.evaluation.provenance import json_beside
from fspo.evaluation.report.plot_entry import PlotEntry
from fspo.files import read_jsonl
from fspo.methods.table import METHODS
from fspo.printing import counted
from fspo.progress import duration

__all__ = ["TrainingCost", "trained_for", "training_costs", "training_plots", "unequal_training_note"]

_UNEQUAL = 1.5
_CURVES = (
    ("loss", "training loss"),
    ("margin_accuracy", "share of training queries ranked right"),
    ("direction_accuracy", "share of training queries moved the right way by the labels"),
    ("eval_margin_accuracy", "share of validation queries ranked right (by the training's own margin)"),
    ("win_over_start", "win rate of each round's answers over those of its start"),
    ("answer_words", "words of each round's answers"),
    ("eval_direction_accuracy", "share of validation queries moved the right way by the labels"),
)


def training_plots(run_dir: Path, palette: Palette) -> list[PlotEntry]:
    """One plot for each value that methods recorded while training."""
    records = {path.parent.name: read_jsonl(path) for path in sorted(run_dir.glob("methods/*/metrics.jsonl"))}
    found = []
    for key, label in _CURVES:
        curves = {name: _series(rows, key) for name, rows in records.items()}
        curves = {name: points for name, points in curves.items() if len(points) > 1}
        if curves:
            draw = partial(charts.training_curves, curves, palette=palette)
            numbers = [{"method": name, "step": x, "value": y} for name, points in curves.items() for x, y in points]
            found.append(
                PlotEntry(f"training-{key.replace('_', '-')}", label, draw, numbers, "as recorded at each step")
            )
    return found


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    latest = {row["step"]: row[key] for row in rows if _is_number(row.get("step")) and _is_number(row.get(key))}
    return sorted(latest.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


@dataclass(frozen=True)
class TrainingCost:
    """What a method's own training took; that of the weights it started from is theirs."""

    steps: int
    tokens: int
    """Tokens run through the model, counted in `metrics.jsonl`."""
    episodes: int | None
    """None where the settings of the training are gone."""
    pairs: int | None
    """Queries of these episodes; one shown after several shot counts, or mirrored, counts once."""
    start: str
    """The method whose weights it started from; empty for the base model."""
    objective: str = ""
    """What was minimised; empty where the settings are gone."""
    seconds: float | None = None
    """Time of all steps; None where it was not recorded."""

    @property
    def said(self) -> str:
        """Steps, tokens and time in words."""
        time = "" if self.seconds is None else f", {duration(self.seconds)}"
        return f"{counted(self.steps, 'steps')} ({self.tokens:,} tokens{time})"


def training_costs(run_dir: Path) -> dict[str, TrainingCost]:
    """Method -> its training, of every method that has a `metrics.jsonl`."""
    found = {path.parent.name: _training_cost(path.parent) for path in sorted(run_dir.glob("methods/*/metrics.jsonl"))}
    order = list(METHODS)
    names = sorted(found, key=lambda name: (order.index(name) if name in METHODS else len(order), name))
    return {name: found[name] for name in names if found[name].steps}


def trained_for(found: Mapping[str, TrainingCost], method: str) -> str:
    """A sentence on how long a method was trained, with the trainings of its initial weights; empty if unknown."""
    chain: list[str] = []
    while method in found and method not in chain:
        chain.append(method)
        method = found[method].start
    if not chain:
        return ""
    first, *before = chain
    rest = "".join(f", after {found[name].said} of {name}" for name in before)
    return f"{first} was trained for {found[first].said}{rest}."


def unequal_training_note(found: Mapping[str, TrainingCost]) -> str:
    """A sentence where methods were trained on amounts that differ by more than half; empty where they were not."""
    parts = []
    for measure in ("steps", "pairs", "tokens"):
        amounts = {name: value for name, cost in found.items() if (value := getattr(cost, measure))}
        if amounts and max(amounts.values()) > _UNEQUAL * min(amounts.values()):
            least, most = min(amounts, key=amounts.__getitem__), max(amounts, key=amounts.__getitem__)
            parts.append(f"{measure} from {amounts[least]:,} ({least}) to {amounts[most]:,} ({most})")
    if not parts:
        return ""
    return (
        f"The methods were not trained equally long: {', '.join(parts)}, without the training of their initial "
        "weights. Part of a difference between them may come from this."
    )


def _training_cost(folder: Path) -> TrainingCost:
    # A resumed training may have written a step twice; the later line is the one that counted.
    steps = {row["step"]: row for row in read_jsonl(folder / "metrics.jsonl") if row.keys() >= {"step", "tokens"}}
    tokens = {step: row["tokens"] for step, row in steps.items()}
    seconds = [row["seconds"] for row in steps.values() if _is_number(row.get("seconds"))]
    config = json_beside(folder, "training.json").get("identity", {}).get("config", {})
    users, queries = config.get("users_per_step"), config.get("queries")
    episodes = len(tokens) * users if users else None
    return TrainingCost(
        steps=len(tokens),
        tokens=int(sum(tokens.values())),
        episodes=episodes,
        pairs=episodes * queries if episodes and queries else None,
        start=Path(json_beside(folder, "policy.json").get("starts_from") or "").name,
        objective=_objective(config),
        seconds=sum(seconds) if len(seconds) == len(steps) else None,
    )


def _objective(config: Mapping[str, Any]) -> str:
    objective = str(config.get("objective", ""))
    return f"{objective}, mirrored" if config.get("mirror") and objective != "mirrored-contrast" else objective
