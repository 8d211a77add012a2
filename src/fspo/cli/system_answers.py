"""`fspo eval answers`: judge answers that systems gave elsewhere, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fspo.cli.options import DryRun, console
from fspo.cli.progress import shown
from fspo.errors import ConfigError
from fspo.evaluation.artifacts import AGAIN, Estimates, read_details
from fspo.evaluation.metrics.summary import summary_table
from fspo.keys import hidden_setting
from fspo.paths import expanded
from fspo.preferences.tables import stem_of
from fspo.records import read_record
from fspo.runs.system_answers import SystemsRequest, evaluate_request, plan_lines
from fspo.runs.yaml_file import Settings, parse_value, read_settings

__all__ = ["answers"]


def answers(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Answers: CSV, TSV, JSON, JSON Lines, Parquet or Arrow.")
    ],
    judges: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="JUDGE",
            help=(
                "A judge as in evaluation.judges, such as '{likes: {length: 1}}', or a YAML file that lists judges. "
                "Can be repeated. The first one gives the win rate if the data have no judge."
            ),
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Who the users are, and their judge: a dataset, a run, or a table of preferences with the same ids.",
        ),
    ] = None,
    users: Annotated[Path | None, typer.Option(help="Table of the users: id, description, group, traits.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="SYSTEM",
            help="Judge the others' answers against this system's. [default: base, or else the last system]",
        ),
    ] = None,
    systems: Annotated[
        list[str] | None, typer.Option("--system", metavar="SYSTEM", help="Only this system. Can be repeated.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=THEIRS", help="Your name for a column: user=seat. Can be repeated."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Measure fluency with this language model, so that gibberish can't win.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="A setting of the evaluation: floors.words=1, match=[format]. Can be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results. [default: runs/NAME-OF-FILE]")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Judge answers that you have already, and write metrics.json and report.html. No run and no training is needed.

    A row holds a user, a prompt and the answers of several systems, one column each; or the answer of one system, as
    alpaca_eval's files do. Every judge compares both answers in both orders. Run the command again to resume it.
    `fspo eval FILE` with a table instead of a YAML file is the same command.

    Examples:
      fspo eval answers outputs.jsonl --data data/ratings

      fspo eval answers model_outputs.json reference_outputs.json --judge judges.yaml

      fspo eval answers outputs.csv --judge '{endpoint: {base_url: "http://127.0.0.1:8000/v1", model: some-model}}'
    """
    settings = _settings(overrides or [])
    if judges:
        settings["judges"] = [entry for text in judges for entry in _judges(text)]
    request = SystemsRequest(
        files,
        output or Path("runs") / stem_of(files[0]),
        data=data,
        users=users,
        baseline=baseline,
        systems=tuple(systems or ()),
        columns=_columns(columns or []),
        model=model,
        settings=settings,
    )
    out = console()
    if dry_run:
        out.print("\n".join(plan_lines(request)), markup=False)
        return
    with shown(out) as progress:
        page = evaluate_request(request, progress)
    metrics = read_record(request.output / "metrics.json", Estimates, AGAIN) or {}
    out.print()
    out.print(summary_table(metrics, title=request.output.name, details=read_details(request.output / "evaluation")))
    out.print(f"\nReport: {page}", markup=False)


def _settings(overrides: list[str]) -> dict[str, Any]:
    read = Settings("--set")
    read.override(overrides)
    return read.values


def _judges(text: str) -> list[Any]:
    """The judges of one option: in YAML, or in a YAML file under `judges`, or `judges` of `evaluation`."""
    if text.lstrip().startswith("{"):
        return [parse_value(text, f"--judge {hidden_setting(text):.80}")]
    values = read_settings(Path(expanded(text))).values
    section = values.get("evaluation") if "judges" not in values else values
    found = section.get("judges") if isinstance(section, dict) else None
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{text} lists no judges; it needs `judges: [{{name: ..., endpoint: ...}}]`.")
    return found


def _columns(given: list[str]) -> dict[str, str]:
    found = {}
    for each in given:
        ours, equals, theirs = each.partition("=")
        if not equals or not theirs:
            raise ConfigError(f"--column {each}: write it as OURS=THEIRS, such as --column user=seat.")
        found[ours] = theirs
    return found
