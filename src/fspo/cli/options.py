"""Options that several verbs share."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fspo.errors import ConfigError
from fspo.paths import expanded
from fspo.printing import command
from fspo.runs.existing import Existing

if TYPE_CHECKING:
    from rich.console import Console

    from fspo.runs.config import RunConfig

__all__ = [
    "AccessLog",
    "ConfigFile",
    "DryRun",
    "OnExisting",
    "OutputFolder",
    "Overrides",
    "Yes",
    "add_verb",
    "check_one_named",
    "configured",
    "console",
    "help_text",
]

_SHOWN_RUNS = 8
"""Runs that a sentence names, at most."""
Verb = TypeVar("Verb", bound=Callable[..., None])


ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file that describes the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override one setting, such as training.fspo.steps=50. Can be repeated.",
    ),
]
OutputFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of the run; overrides the file's setting.")
]
AccessLog = Annotated[
    bool, typer.Option(help="Log each request: time, method, route, status, milliseconds and id, and nothing of users.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would happen, and stop.")]
OnExisting = Annotated[
    Existing,
    typer.Option(
        "--on-existing", help="What to do with results of an earlier call: continue, replace them, or refuse."
    ),
]

Yes = Annotated[
    bool,
    typer.Option("--yes", help="With --on-existing overwrite: also remove what depends on it, without a question."),
]


def add_verb(app: typer.Typer, name: str) -> Callable[[Verb], Verb]:
    """Make a function a command whose help is its docstring, examples as they are written."""

    def register(verb: Verb) -> Verb:
        @wraps(verb)
        def expanding(**given: Any) -> None:
            verb(**{argument: _expanded(_finite(argument, value)) for argument, value in given.items()})

        app.command(name, help=help_text(verb.__doc__ or ""))(expanding)
        return verb

    return register


def _finite(argument: str, value: Any) -> Any:
    """The value; click's ranges let `nan` pass, and some of them `inf`.

    Raises:
        ConfigError: it is one of these.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"--{argument.replace('_', '-')} must be a finite number, but it is {value}.")
    return value


def _expanded(value: Any) -> Any:
    """The value of an argument; shells leave a `~` as it is in, for example, `--output=~/x`."""
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    return expanded(value) if isinstance(value, Path) else value


def help_text(doc: str) -> str:
    """The help of a command or of a group of them, with the examples at its end as they are written."""
    text, examples, commands = inspect.cleandoc(doc).partition("Examples:\n")
    lines = [line for line in commands.splitlines() if line.strip()]
    # \b keeps click from wrapping a paragraph.
    return text + ("\b\n" + examples + "\n".join(lines) if examples else "")


def console() -> Console:
    """Where verbs write what people read: standard output. Text is shown as `printable` has it."""
    from fspo.cli.terminal import PrintableConsole

    return PrintableConsole(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def check_one_named(named: str | Path, config: Path | None, overrides: list[str] | None) -> None:
    """Check that no configuration is named beside a dataset or model that replaces its own.

    Raises:
        ConfigError: it is, or a setting of it.
    """
    for option, given in (("--config", config), ("--set", overrides)):
        if given:
            raise ConfigError(f"{option} means nothing beside {named}; leave one of the two out.")


def configured(
    argument: Path | None,
    config: Path | None,
    overrides: list[str] | None,
    output: Path | None,
    *,
    runs_code: bool = False,
) -> RunConfig:
    """The configuration named by `--config`, by the argument in its place, or of the run in `--output`.

    `argument` is the file or the folder of a run. `runs_code`: whether the verb imports the code that a configuration
    may name.

    Raises:
        ConfigError: none is named, two are, it does not hold together, or the folder of a run names code, which may be
            somebody else's, and no file was named.
    """
    from fspo.runs.config import load_config

    if argument is not None and config is not None:
        raise ConfigError(f"Two configurations are named, {argument} and {config}; name one.")
    path = argument or config
    if path is not None:
        _check_file_or_run(path)
    found = path.is_dir() if path is not None else output is not None
    if path is not None and found:
        path, output = path / "config.yaml", output or path
    elif path is None and output is not None:
        path = output / "config.yaml"
    if path is None:
        raise ConfigError("No configuration is named; add --config, such as --config configs/demo.yaml.")
    settings = load_config(path, overrides or (), output)
    if runs_code and found:
        _refuse_found_code(settings, path, overrides or [])
    return settings


def _check_file_or_run(place: Path) -> None:
    """Check that a place is a file or the folder of a run; what ends as YAML files do is checked when it is read."""
    from fspo.files import is_special
    from fspo.printing import nearest

    if place.is_file() or is_special(place) or place.suffix in (".yaml", ".yml") or (place / "config.yaml").is_file():
        return
    what = (
        f"{place} is not the folder of a run: it has no config.yaml" if place.is_dir() else f"There is no run {place}"
    )
    files = {found.stem: str(found) for found in sorted(place.parent.glob("*.y*ml"))}
    runs = {found.parent.name: str(found.parent) for found in sorted(place.parent.glob("*/config.yaml"))}
    close = nearest(place.name, {**files, **runs})
    if close:
        hint = f"; did you mean '{({**files, **runs})[close]}'?"
    else:
        hint = f"; runs there: {', '.join(list(runs.values())[:_SHOWN_RUNS])}." if runs else "."
    raise ConfigError(f"{what}{hint} Name a run's folder, or a YAML file from which `fspo run` makes one.")


def _refuse_found_code(settings: RunConfig, path: Path, overrides: list[str]) -> None:
    """Code is run if somebody has named it, or the file that names it; a folder of a run may be anybody's."""
    models = settings.evaluation.reward_models
    code = [(str(model.scorer), f"reward model '{model.name}'") for model in models if model.scorer is not None]
    code += [(row.place, f"reader '{row.name}'") for row in settings.readers.values() if row.own_code]
    named = [override for override in overrides if override.strip().startswith(("evaluation", "readers"))]
    for place, what in code:
        if not any(place in override for override in named):
            raise ConfigError(
                f"{path} names code to run, '{place}' ({what}), and the folder of a run may be anybody's. Read it, and "
                f"name the file itself if you trust it: {command('--config', path, '--output', settings.output)}."
            )
