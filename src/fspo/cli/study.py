"""`fspo study`: the blind human study as a web application."""

from __future__ import annotations

import os
import webbrowser
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fspo.cli.options import AccessLog, DryRun, add_verb, console, help_text
from fspo.errors import ConfigError, DataError, StorageError
from fspo.paths import expanded
from fspo.printing import counted

if TYPE_CHECKING:
    from fspo.study.config import StudyConfig
    from fspo.study.records import StudyRecords
    from fspo.study.store import StudyStore

__all__ = ["app", "demo", "export", "plan", "report", "serve"]

_HELP = """Run a blind human study: people label pairs, then choose between the answers of two arms.

Examples:
  fspo study demo

  fspo study plan configs/study/paper.yaml

  fspo study serve configs/study/paper.yaml

  fspo study report configs/study/paper.yaml
"""

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text(_HELP))

StudyFile = Annotated[Path, typer.Argument(help="YAML file that describes the study.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Override one setting, such as participants=30. Can be repeated."
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Place = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="FSPO_STORE",
        help="Folder of the store, or URL of a Postgres database; by default the study's folder.",
    ),
]


@add_verb(app, "serve")
def serve(
    file: StudyFile,
    overrides: Overrides = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    store: Place = None,
    access_log: AccessLog = True,
    dry_run: DryRun = False,
) -> None:
    """Serve the pages of a study, until Ctrl-C. Run it again to continue.

    The first call registers the design and the texts. Once somebody has taken part, a file with another design is
    refused.

    Examples:
      fspo study serve configs/study/paper.yaml --dry-run

      fspo study serve configs/study/paper.yaml --set arms.personal.policy=my-policy --set 'comparisons.shots=[8]'
    """
    config = _loaded(file, overrides)
    _serve(config, host, port, store, access_log=access_log, dry_run=dry_run)


@add_verb(app, "demo")
def demo(
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Folder of a policy, or name of a model; by default the built-in model."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    dry_run: DryRun = False,
) -> None:
    """Serve a small study on one model: answers with your labels against answers without them.

    Everything is in a temporary folder, which is removed at the end.

    Examples:
      fspo study demo

      fspo study demo --policy runs/demo/methods/fspo
    """
    from fspo.modeling.builtin_model import BUILTIN_MODEL
    from fspo.study.demo import demo_study

    with TemporaryDirectory(prefix="fspo-study-") as folder:
        _serve(demo_study(Path(folder), policy or BUILTIN_MODEL), host, port, None, access_log=False, dry_run=dry_run)


@add_verb(app, "export")
def export(
    file: StudyFile,
    folder: Annotated[Path, typer.Argument(help="New folder for the records.")],
    overrides: Overrides = None,
    store: Place = None,
    dataset: Annotated[
        bool, typer.Option("--dataset", help="Also write the labels and votes as a preference dataset, in `dataset/`.")
    ] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write each table of records as Parquet.")] = False,
) -> None:
    """Write the records of a study: participants, items with their votes, and raw events, as JSONL.

    The records hold no names and no ids of recruiting sites. The store notes that the folder holds them, and
    `fspo train` notes which policies are trained on the dataset, so that `fspo users list` names both if somebody
    withdraws later.

    Examples:
      fspo study export configs/study/paper.yaml exports/paper --dataset
    """
    from fspo.files import check_replaceable, is_empty, replace_folder
    from fspo.serving.connection import public_place
    from fspo.serving.people_data import Export, record_export
    from fspo.study.export import EXPORT, people_in, save_parquet, study_dataset

    config = _loaded(file, overrides)
    check_replaceable(folder, EXPORT)
    if not is_empty(folder):
        raise ConfigError(f"{folder} is not empty; name another folder.")
    with _opened(config, store, must_exist=True) as people:
        known = people.last_withdrawal()  # before anything is read: who withdraws meanwhile is noted as later
        records = people.records(config.name)
        held = Export(public_place(store or config.output), known, people_in(records))
        preferences = study_dataset(records, held) if dataset else None
        record_export(people, held, folder, policy=False)
    with replace_folder(folder, EXPORT) as new:  # an export that is interrupted leaves nothing, and can be repeated
        if preferences is not None:
            preferences.save(new / "dataset")
        records.save(new)
        if parquet:
            save_parquet(records, new)
    console().print(f"Wrote {_exported(records)} to {folder}.", markup=False)


def _exported(records: StudyRecords) -> str:
    """What an export holds that counts: no practice, no attention items, and nobody who withdrew."""
    voted = Counter(item.stage for item in records.items if item.choice is not None and not item.attention)
    withdrawn = sum(one.withdrawn is not None for one in records.participants)
    people = counted(len(records.participants) - withdrawn, "participants")
    others = f" ({withdrawn:,} more withdrew)" if withdrawn else ""
    return f"{counted(voted['label'], 'labels')} and {counted(voted['compare'], 'comparisons')} of {people}{others}"


@add_verb(app, "report")
def report(
    file: StudyFile,
    overrides: Overrides = None,
    store: Place = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records",
            help="Read exported records from this folder, and no store, whatever FSPO_STORE is.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the page and the JSON; by default the study's folder.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Print the results of a study, and write report.html, one self-contained page, and study.json.

    It shows win rates with intervals clustered by participant and the paper's binomial test, with and without the
    excluded participants; what the votes depend on; attention, biases, dropout and times. `exclusions` in the study's
    file says who is excluded.

    Examples:
      fspo study report configs/study/paper.yaml

      fspo study report configs/study/paper.yaml --records exports/paper --output reports/paper --open
    """
    config = _loaded(file, overrides)
    from fspo.runs.made import check_file_target, is_page, with_keys
    from fspo.study.analysis.findings import analyse, save_findings
    from fspo.study.analysis.page import write_page
    from fspo.study.analysis.tables import diagnostics_table, effects_table, win_rate_table
    from fspo.study.analysis.wording import excluded_text, headlines, registration_note
    from fspo.study.config import said

    folder = output or config.output
    page, numbers = folder / "report.html", folder / "study.json"
    check_file_target(page, is_page)
    check_file_target(numbers, with_keys("study", "rules", "results"))
    read, registration = _records(config, store, records, (page, numbers))
    questions = [question.id for question in config.about if question.options]
    findings = analyse(read, config.exclusions, pairs=config.pairs, questions=questions)
    out = console()
    out.print(win_rate_table(findings))
    out.print(effects_table(findings.results))
    out.print(diagnostics_table(findings))
    for sentence in headlines(findings.results):
        out.print(sentence, markup=False)
    out.print(excluded_text(findings), markup=False)
    registered = registration_note(config, registration)
    if registered:
        out.print(registered, markup=False)
    save_findings(findings, numbers)
    write_page(findings, page, title=said(config.title, config.language), registered=registered)
    out.print(f"JSON: {numbers}", markup=False)
    out.print(f"Report: {page}", markup=False)
    if open_page and not webbrowser.open(page.resolve().as_uri()):
        out.print(f"There is no browser on this machine; open {page.resolve()} in one.", markup=False)


@add_verb(app, "plan")
def plan(
    file: StudyFile,
    overrides: Overrides = None,
    win_rate: Annotated[
        float, typer.Option("--win-rate", help="Smallest true win rate that the study should find.")
    ] = 0.6,
    spread: Annotated[
        float, typer.Option("--spread", help="Standard deviation of participants' own win rates.")
    ] = 0.15,
    ties: Annotated[float, typer.Option("--ties", help="Share of ties.")] = 0.1,
    lost: Annotated[float, typer.Option("--lost", help="Share of people who don't finish or are excluded.")] = 0.15,
    power: Annotated[float, typer.Option("--power", help="Chance to find that win rate.")] = 0.8,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it as JSON to this file.")] = None,
) -> None:
    """Say how many people a study needs for which win rate, before it begins.

    The plan is for the test of the report: one-sided at 5%, clustered by participant. How much people differ has to be
    assumed; use --spread from a pilot study, or a large one.

    Examples:
      fspo study plan configs/study/paper.yaml

      fspo study plan configs/study/paper.yaml --win-rate 0.65 --spread 0.2 --power 0.9
    """
    config = _loaded(file, overrides)
    from fspo.files import write_json
    from fspo.runs.made import check_file_target, with_keys
    from fspo.study.analysis.tables import attention_said, people_needed, plan_tables
    from fspo.study.power import Assumptions, plan_study

    if json_file is not None:
        check_file_target(json_file, with_keys("study", "assumptions", "needed"))
    found = plan_study(config, Assumptions(win_rate, spread, ties, lost, power))
    out = console()
    for table in plan_tables(found):
        out.print(table)
    for sentence in (people_needed(found), attention_said(found)):
        out.print(sentence, markup=False)
    if json_file is not None:
        write_json(json_file, found.to_json())
        out.print(f"JSON: {json_file}", markup=False)


def _records(
    config: StudyConfig, store: str | None, folder: Path | None, reports: Iterable[Path]
) -> tuple[StudyRecords, Mapping[str, Any] | None]:
    """The records of the study and its registration, from its store or from an export, which has none.

    The store notes who is in the reports that are made of its records, as in an export.

    Raises:
        ConfigError: both are named.
        DataError: the folder has no records, or those of another study.
    """
    from fspo.study import records

    if folder is None:
        return _stored_records(config, store, reports)
    if store not in (None, os.environ.get("FSPO_STORE")):
        raise ConfigError("Name one of --store and --records.")
    found = records.StudyRecords.load(folder)
    others = sorted({one.study for one in found.participants} - {config.name})
    if others:
        raise DataError(f"{folder} has the records of the study '{others[0]}', not of '{config.name}'.")
    return found, None


def _stored_records(
    config: StudyConfig, store: str | None, reports: Iterable[Path]
) -> tuple[StudyRecords, Mapping[str, Any] | None]:
    from fspo.serving.connection import public_place
    from fspo.serving.people_data import Export, record_export
    from fspo.study.export import people_in

    with _opened(config, store, must_exist=True) as people:
        known = people.last_withdrawal()  # before anything is read, as for an export
        found = people.records(config.name)
        held = Export(public_place(store or config.output), known, people_in(found))
        for report_ in reports:
            record_export(people, held, report_, policy=False)
        return found, people.registration(config.name)


def _serve(config: StudyConfig, host: str, port: int, store: str | None, *, access_log: bool, dry_run: bool) -> None:
    from fspo.files import check_writable
    from fspo.modeling.quiet import quiet
    from fspo.serving.connection import check_place
    from fspo.serving.listening import bound, listen
    from fspo.study.app import create_study_app
    from fspo.study.arms import check_endpoints, check_shots, layout_notes, load_models, open_engines, weights_of_arms
    from fspo.study.material import load_material
    from fspo.study.registration import REGISTRATION_FILE, registration_of

    with bound(host, port) as place:
        quiet()
        check_place(store or config.output)
        if store is None or not (config.output / REGISTRATION_FILE).exists():
            check_writable(config.output, inside=True)
        material, models = load_material(config), load_models(config)
        registration = registration_of(config, material, weights_of_arms(config))
        out = console()
        for note in layout_notes(config):
            out.print(note, markup=False)
        if dry_run:
            if _check_registered(config, store, registration):
                check_shots(config, models)
            places = counted(config.participants, "participants")
            items = counted(config.labels.count, "labels"), counted(config.comparisons.count, "comparisons")
            out.print(
                f"Would serve the study '{config.name}' on http://{host}:{port}/ for {places}: {items[0]}, then "
                f"{items[1]} of {_pairs(config)}.",
                markup=False,
            )
            return
        with _opened(config, store) as people:
            if people.check_registered(config.name, registration):
                check_shots(config, models)
                check_endpoints(models)
            app = create_study_app(config, material, people, open_engines(config, models))
            _register(config, people, registration)

            def announce(address: str) -> None:
                out.print(f"Serving the study '{config.name}' on {address}; Ctrl-C ends.", markup=False)

            listen(app, place, announce, path="/", access_log=access_log)


def _register(config: StudyConfig, people: StudyStore, registration: dict[str, Any]) -> None:
    from fspo.files import read_json
    from fspo.study.registration import REGISTRATION_FILE, save_registration

    before = people.registration(config.name)
    recorded, file = people.register(config.name, registration), config.output / REGISTRATION_FILE
    registered = people.registration(config.name) or registration
    if not file.exists() or read_json(file) != registered:  # also once weights are known, or after an interruption
        path = save_registration(config.output, registered)
        again = " again, because it has changed and nobody has taken part" if recorded and before is not None else ""
        console().print(
            f"Registered the study{again} in {path}; fingerprint {registered['fingerprint']}.", markup=False
        )


def _pairs(config: StudyConfig) -> str:
    return ", ".join(f"{first} and {second}" for first, second in config.pairs)


def _check_registered(config: StudyConfig, store: str | None, registration: Mapping[str, Any]) -> bool:
    """What `StudyStore.register` checks, without making a store or changing the tables of an old one.

    Returns:
        Whether it would record the study.

    Raises:
        ConfigError: the study was registered with another design.
        StorageError: the store can't be read.
    """
    from fspo.serving.connection import STORE_FILE, look_at

    place = store or str(config.output)
    if "://" in place or not (Path(expanded(place)) / STORE_FILE).exists():
        return True
    if look_at(place).outdated:
        console().print("Would change the store's tables to those of this version of fspo.", markup=False)
        return True
    with _opened(config, store) as people:
        return people.check_registered(config.name, registration)


def _loaded(file: Path, overrides: list[str] | None) -> StudyConfig:
    from fspo.study.config import load_study

    return load_study(file, overrides or ())


@contextmanager
def _opened(config: StudyConfig, store: str | None, *, must_exist: bool = False) -> Iterator[StudyStore]:
    from fspo.serving.connection import STORE_FILE
    from fspo.study.store import StudyStore

    place = store or str(config.output)
    if must_exist and "://" not in place and not (Path(expanded(place)) / STORE_FILE).exists():
        raise StorageError(f"There is no store in {place}; name the study's with --store, or serve the study first.")
    opened = StudyStore.open(place)
    try:
        yield opened
    finally:
        opened.close()
