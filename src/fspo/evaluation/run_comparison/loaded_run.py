"""One run's evaluation as it lies on disk, and whether another one was of the same items by the same measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.evaluation.artifacts import read_details
from fspo.evaluation.metrics.items import ITEMS_FILE, Items
from fspo.evaluation.report.run_data import settings_of
from fspo.files import read_bytes
from fspo.methods.table import METHODS
from fspo.paths import in_full
from fspo.printing import command

__all__ = ["LoadedRun", "check_same"]

_SETTINGS = {
    "seed": "seed",
    "shots": "shots",
    "queries": "queries a user",
    "episodes": "episodes a user",
    "reduction": "log-probs of a response",
    "max_length": "most tokens of a context",
}
_MOST_NAMED = 3

_JUDGED = ("win_rate", "answer_utility", "regret")
"""Measures that rest on the judge, by the beginnings of their names."""

_BY = "win_rate_by/"
"""Begins the measures of another judge than the headline's."""

_RESTS: Mapping[str, tuple[str, ...]] = {
    "win_rate": ("traits", "description"),
    "answer_utility": ("traits",),
    "regret": ("traits",),
    "user_swap_drop": ("donor",),
}
"""Beginning of a measure's name -> digests of an item that the measure depends on."""

_DIGESTED = {
    "traits": "the users' traits",
    "description": "the users' descriptions",
    "donor": "the shots of other users, which were swapped in,",
}


@dataclass(frozen=True)
class LoadedRun:
    """One run's evaluation."""

    name: str
    path: Path
    items: Items
    details: Mapping[str, Any]

    @classmethod
    def read(cls, run: Path, benchmark: str = "") -> LoadedRun:
        """From the folder of a run; with `benchmark`, what was measured on that one.

        Raises:
            DataError: there is no evaluation, or it has no items.
            StorageError: a file is damaged or of another version.
        """
        folder = run / "benchmarks" / benchmark if benchmark else run / "evaluation"
        if not (folder / "details.json").is_file():
            on = f" on {benchmark}" if benchmark else ""
            again = command("fspo", "eval", run, *(["--benchmark", benchmark] if benchmark else []))
            raise DataError(f"{run} holds no finished evaluation{on}; run `{again}` first.")
        details, items = read_details(folder), Items.read(folder)
        if not items.records:
            raise DataError(f"{folder} holds no items to compare ({ITEMS_FILE}); run `fspo eval` again.")
        return cls(_name(run), run, items, details)

    def variant(self, method: str, measure: str) -> str:
        """The measure as it is kept, with the variant that the method's headline is of."""
        if measure == "reward_accuracy":
            return f"{measure}/{next(iter(self.details.get('rewards', {}).get(method, [''])), '')}"
        if measure == "win_rate":
            return f"{measure}/{self.details.get('samplings', {}).get(method, '')}"
        return measure


def check_same(first: LoadedRun, other: LoadedRun, measure: str, methods: Sequence[str]) -> None:
    """Check that `measure` of two runs is of the same items, and depends on the same besides them.

    Where one of the `methods` sees descriptions, these have to be the same too.

    Raises:
        DataError: it is not, which says in what they differ.
    """
    wanted = [name for start, names in _RESTS.items() if measure.startswith(start) for name in names]
    judged = measure.startswith(_JUDGED)
    wanted += ["description"] if _told(methods) and "description" not in wanted else []
    said = _settings_differing(first, other)
    said += _people_differing(first, other, wanted, answers=measure.startswith("win_rate"))
    if measure.startswith(_BY):
        name = measure.removeprefix(_BY).partition("/")[0]
        theirs = [run.details.get("judges", {}).get(name) for run in (first, other)]
        if theirs[0] != theirs[1]:
            said.append(f"the judge '{name}'{_kinds(*theirs)}")
    elif judged and first.details.get("judge") != other.details.get("judge"):
        said.append(f"the judge{_kinds(first.details.get('judge'), other.details.get('judge'))}")
    floors = [run.details.get("floors") for run in (first, other)]
    if measure.startswith("win_rate") and floors[0] != floors[1]:
        said.append("the floors")
    if measure.startswith("win_rate") and any(run.details.get("given") for run in (first, other)):
        # Of a run, the base model's answers show another model; of given answers, only its name does.
        one, two = (str(run.details.get("model")) for run in (first, other))
        said += [f"the model that measures fluency: {one} and {two}"] if in_full(one) != in_full(two) else []
    if said:
        more = f"; and {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
        raise DataError(
            f"{first.path} and {other.path} were evaluated on different items and can't be compared. They differ in "
            f"{'; '.join(said[:_MOST_NAMED])}{more}. Evaluate both on the same data with the same settings."
        )


def _told(methods: Sequence[str]) -> list[str]:
    """The methods that see the users' own descriptions."""
    rows = {name: METHODS[name] for name in methods if name in METHODS}
    return [name for name, row in rows.items() if row.shown in ("description", "both") and not row.writes]


def _kinds(*judges: Mapping[str, str] | None) -> str:
    """What kinds of judge they are, where these differ."""
    kinds = [judge["kind"] if judge else "none" for judge in judges]
    return f": {kinds[0]} and {kinds[1]}" if kinds[0] != kinds[1] else ""


def _settings_differing(first: LoadedRun, other: LoadedRun) -> list[str]:
    return [
        f"{label}: {first.details.get(key)} and {other.details.get(key)}"
        for key, label in _SETTINGS.items()
        if first.details.get(key) != other.details.get(key)
    ]


def _people_differing(first: LoadedRun, other: LoadedRun, wanted: Sequence[str], *, answers: bool) -> list[str]:
    """In what the items differ."""
    ours, theirs = ({row.item: row for row in run.items.records} for run in (first, other))
    said = _only("users", first, other, [{row.user for row in run.values()} for run in (ours, theirs)])
    said += _only("prompts", first, other, [{row.prompt for row in run.values()} for run in (ours, theirs)])
    shared = [item for item in ours if item in theirs]
    kinds = {"the shots": ("shots",), "the prompts or pairs": ("prompt", "chosen", "rejected")}
    kinds |= {"the base model's answers, which wins are counted over,": ("base_answer",)} if answers else {}
    kinds |= {_DIGESTED[name]: (name,) for name in wanted}
    for label, keys in kinds.items():
        count = sum(any(getattr(ours[item], key) != getattr(theirs[item], key) for key in keys) for item in shared)
        said += [f"{label} of {count} of {len(shared)} items"] if count else []
    if not said and ours.keys() != theirs.keys():
        said = [f"{len(ours.keys() ^ theirs.keys())} items that only one of them has"]
    return said


def _only(kind: str, first: LoadedRun, other: LoadedRun, sets: Sequence[set[str]]) -> list[str]:
    found = []
    for run, own, theirs in ((first, sets[0], sets[1]), (other, sets[1], sets[0])):
        if more := sorted(own - theirs):
            named = ", ".join(map(repr, more[:_MOST_NAMED])) + (" ..." if len(more) > _MOST_NAMED else "")
            found.append(f"{len(more)} {kind} only in {run.path} ({named})")
    return found


def _name(run: Path) -> str:
    config = read_bytes(run / "config.yaml") or b""
    return str(settings_of(config.decode(errors="replace")).get("name") or run.resolve().name)
