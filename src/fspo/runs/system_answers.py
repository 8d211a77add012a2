"""Answers that systems gave elsewhere, judged without a run: from tables to metrics.json and a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from fspo.errors import ConfigError
from fspo.evaluation.config import BASE, HEADLINE, EvaluationConfig
from fspo.evaluation.judges.judges import answer_judge, jury_of
from fspo.evaluation.report.page import write_report
from fspo.evaluation.systems.answer_tables import SystemAnswers, read_answers
from fspo.evaluation.systems.evaluate_systems import Systems, evaluate_systems
from fspo.files import check_unclaimed, check_writable, write_json
from fspo.judging.judge import Judge
from fspo.llm.pool import EndpointPool
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.formats import read_preferences, read_users
from fspo.preferences.types import Preference, User
from fspo.preferences.wording import wording
from fspo.printing import counted, option, suggestion
from fspo.progress import Progress, Silent
from fspo.pydantic_errors import first_fault
from fspo.runs.data_judges import judge_of_data
from fspo.runs.versions import versions

__all__ = ["SystemsRequest", "evaluate_request", "plan_lines"]

_MARK = "versions.json"
_WRITES = ("metrics.json", "samples.jsonl", "evaluation", "report.html", "answers*.sqlite*", "endpoints.json")
_SHOTS = 8
"""Preferences that stand for a user's description, at most."""
_SETTINGS = ("judges", "floors", "match", "match_band", "dtype", "max_length")
"""The settings of an evaluation that say something of given answers."""


@dataclass(frozen=True)
class SystemsRequest:
    """What to judge, and by what.

    Attributes:
        answers: files of answers, or a table in memory; see `read_answers`.
        output: folder of the results.
        data: folder of a dataset, of a run with a dataset, or a table of preferences: who the users are, and the judge
            that labelled the data.
        users: a table of users: id, description, group, traits.
        baseline: the system whose answers the others' are judged against; by default `base`, or else the last one.
        systems: only these.
        columns: fspo's name of a column -> the table's.
        model: a language model that measures fluency; by default it is not measured.
        settings: `judges`, `floors`, `match` and `match_band` of an evaluation.
        judge: the headline judge, as an object.
    """

    answers: Any
    output: Path
    data: Path | PreferenceDataset | None = None
    users: Path | None = None
    baseline: str | None = None
    systems: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None
    model: str | None = None
    settings: Mapping[str, Any] | None = None
    judge: Judge | None = None


@dataclass(frozen=True)
class _Prepared:
    config: EvaluationConfig
    systems: Systems
    labelled_by: Judge | None
    jury: Mapping[str, Judge]
    notes: tuple[str, ...]


def evaluate_request(request: SystemsRequest, progress: Progress | None = None) -> Path:
    """Judge the answers, write `metrics.json`, `report.html` and what they are computed from; gives the page.

    Raises:
        ConfigError: a setting is wrong, the folder holds something else, or nobody can judge.
        DataError: naming file and row of what is wrong with the answers or the data.
        ModelError: a judge failed; what it judged before is saved.
        StorageError: a file can't be read or written.
    """
    shown, folder = progress or Silent(), request.output
    _check_folder(folder)
    config = _config(request)
    with closing(EndpointPool(folder, config.endpoints(), say=shown.say)) as endpoints:
        prepared = _prepared(request, config, endpoints, shown)
        write_json(folder / _MARK, versions())
        for note in prepared.notes:
            shown.say(note)
        evaluate_systems(
            config,
            prepared.systems,
            prepared.jury,
            out=folder / "evaluation",
            results=folder,
            model=request.model,
            judge=prepared.labelled_by,
            progress=shown,
        )
        for line in endpoints.spent():
            shown.say(line)
    return write_report(folder, folder / "report.html")


def plan_lines(request: SystemsRequest) -> list[str]:
    """What `evaluate_request` would do, once all is checked that can be checked without asking a server.

    Raises:
        FspoError: as `evaluate_request`.
    """
    _check_folder(request.output)
    config = _config(request)
    with TemporaryDirectory() as place, closing(EndpointPool(Path(place), config.endpoints())) as endpoints:
        prepared = _prepared(request, config, endpoints, Silent())
    systems = prepared.systems
    given = systems.given
    who = "no users" if given.anybody else f"{len(given.users):,} users"
    lines = [
        f"Answers of {', '.join(given.answers)} to {len(given.asked):,} prompts of {who}.",
        f"Each other system is compared with {systems.baseline}: {systems.comparisons:,} comparisons in both orders.",
    ]
    asked = [entry.name for entry in config.judges if entry.endpoint is not None]
    lines += [f"Judges, the one of the win rate first: {', '.join(_named(name, prepared) for name in prepared.jury)}."]
    if asked:
        lines += [f"At most {2 * systems.comparisons:,} requests to each endpoint: {', '.join(asked)}."]
    return [*lines, *prepared.notes, *systems.notes(), f"Results would go to {request.output}."]


def _named(name: str, prepared: _Prepared) -> str:
    if name != HEADLINE:
        return name
    first = next((entry.name for entry in prepared.config.judges), "")
    return "the users' own traits" if prepared.labelled_by is not None or not first else first


def _check_folder(folder: Path) -> None:
    check_writable(folder, inside=True)
    if (folder / "settings.json").exists() or (folder / "config.yaml").exists():
        raise ConfigError(f"{folder} is the folder of a run; name another folder with {option('output')}.")
    check_unclaimed(folder, [_MARK], _WRITES)


def _config(request: SystemsRequest) -> EvaluationConfig:
    settings = dict(request.settings or {})
    unknown = [name for name in settings if name not in _SETTINGS]
    if unknown:
        raise ConfigError(
            f"There is no setting '{unknown[0]}' for answers that are there already{suggestion(unknown[0], _SETTINGS)}"
        )
    judges = settings.get("judges") or []
    if not isinstance(judges, Sequence) or not all(isinstance(entry, Mapping) for entry in judges):
        raise ConfigError("judges: must be a list of judges, such as [{name: longer, likes: {length: 1}}].")
    settings["judges"] = [{"name": f"judge{number}", **entry} for number, entry in enumerate(judges, start=1)]
    try:
        return EvaluationConfig.model_validate({"answers": 1, **settings})
    except ValidationError as error:
        raise ConfigError(first_fault(error, EvaluationConfig).sentence) from error


def _prepared(
    request: SystemsRequest, config: EvaluationConfig, endpoints: EndpointPool, progress: Progress
) -> _Prepared:
    given = read_answers(request.answers, columns=request.columns, systems=request.systems)
    dataset, folder = _dataset(request.data)
    users, notes = _users(given, request, dataset, config)
    baseline = request.baseline or (BASE if BASE in given.answers else list(given.answers)[-1])
    systems = Systems(given, baseline, users)
    texts = [text for row in given.answers.values() for text in row.values()]
    judge, why = request.judge, ""
    if dataset is not None:
        texts = [text for row in dataset for text in (row.chosen, row.rejected)]
    people = [users[user] for user in given.users]
    if judge is None:
        judge, why = judge_of_data(folder and folder / "judge.json", texts, people, folder)
    jury = jury_of(config, answer_judge(judge), {}, texts, people, endpoints, progress, impersonal=given.anybody)
    if not jury:
        why = "the rows name no users" if given.anybody else why
        other = "" if dataset is not None or given.anybody else f", or the users' data with {option('data')}"
        raise ConfigError(
            f"Nobody can judge these answers ({why}); name a judge with {option('judge')}, such as the model of an "
            f"endpoint{other}."
        )
    return _Prepared(config, systems, judge, jury, tuple(notes))


def _dataset(data: Path | PreferenceDataset | None) -> tuple[PreferenceDataset | None, Path | None]:
    """The data that say who the users are, and the folder that may hold their judge."""
    if data is None or isinstance(data, PreferenceDataset):
        return data, None
    for folder in (data, data / "data"):
        if (folder / "users.parquet").is_file():
            return PreferenceDataset.load(folder), folder
    return read_preferences(data).dataset, None


def _users(
    given: SystemAnswers, request: SystemsRequest, dataset: PreferenceDataset | None, config: EvaluationConfig
) -> tuple[dict[str, User], list[str]]:
    """The users of the answers, with all that is known of them, and what is odd about that."""
    notes: list[str] = []
    users = dict(given.users)
    for where, known in _known(request, dataset):
        given.check_users(known, where)
        for id, user in users.items():
            if id in known:
                users[id] = _merged(user, known[id])
    if dataset is None or not any(entry.endpoint for entry in config.judges):
        return users, notes
    shown = 0
    for id, user in users.items():
        if not user.description and id in dataset.users:
            asked = {wording(prompt) for owner, prompt in given.asked if owner == id}
            description = _described_by(dataset.of_user(id), asked)
            users[id], shown = replace(user, description=description), shown + bool(description)
    if shown:
        notes.append(
            f"{counted(shown, 'users')} without a description: endpoints see up to {_SHOTS} preferences instead."
        )
    return users, notes


def _known(request: SystemsRequest, dataset: PreferenceDataset | None) -> Iterable[tuple[str, Mapping[str, User]]]:
    if request.users is not None:
        yield str(request.users), read_users(request.users)
    if dataset is not None:
        yield (str(request.data) if isinstance(request.data, Path) else "the data"), dataset.users


def _merged(user: User, known: User) -> User:
    """What the rows say of a user, and for the rest what the data say."""
    return User(user.id, user.description or known.description, user.traits or known.traits, user.group or known.group)


def _described_by(preferences: Iterable[Preference], asked: set[str]) -> str:
    """A user's preferences as a description; those on the prompts that are judged are left out."""
    rows = [row for row in preferences if wording(row.prompt) not in asked][:_SHOTS]
    shown = [
        f"Question: {row.prompt}\nThe user preferred: {row.chosen}\nThe user did not prefer: {row.rejected}"
        for row in rows
    ]
    return (
        "What is known of the user is how they chose between two responses before.\n\n" + "\n\n".join(shown)
        if rows
        else ""
    )
