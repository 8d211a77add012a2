"""The program `fspo`: which verbs there are, and how an error reaches the person who typed the command."""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fspo import __version__
from fspo.cli.extras import extra_of
from fspo.cli.options import add_verb, help_text
from fspo.errors import ConfigError, FspoError
from fspo.files import is_full_disk
from fspo.keys import hidden
from fspo.printing import nearest, on_command_line, one_line
from fspo.runs import processes

__all__ = ["app", "main"]

_TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class _Verbs(TyperGroup):
    """Shows errors that a user can fix as one sentence, without a traceback."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb, of two words where there is one (`eval compare`); all but training run in one process."""
        if (both := " ".join(args[:2])) in self.list_commands(ctx):
            args = [both, *args[2:]]
        elif args[0] == "eval" and _is_table(args[1:]):
            args = ["eval answers", *args[1:]]
        if not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            close = nearest(args[0], self.list_commands(ctx))
            hint = f" Did you mean '{close}'?" if close else ""
            ctx.fail(f"No such command '{one_line(args[0])}'.{hint}")
        name, command, rest = super().resolve_command(ctx, args)
        if name != "train":
            processes.refuse_several(str(name))
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; exit 1 or 2 after a known error, 130 after Ctrl-C."""
        try:
            with on_command_line():
                return super().invoke(ctx)
        except FspoError as error:
            # All processes read the same configuration, and one complaint about it is enough.
            if processes.is_first() or not isinstance(error, ConfigError):
                _complain(str(error) if processes.is_first() else f"(process {processes.number()}) {error}")
            raise typer.Exit(error.exit_code) from None
        except (KeyboardInterrupt, typer.Abort):  # the latter during a question
            _complain("Interrupted; what was finished is kept. Run the same command again to continue.")
            raise typer.Exit(INTERRUPTED) from None
        except ModuleNotFoundError as error:
            if (extra := extra_of(error.name or "", str(ctx.invoked_subcommand))) is None:
                raise
            _complain(
                f"This needs the extra '{extra}' ({error.name} is missing): pip install -e '.[{extra}]' in the "
                "project's folder."
            )
            raise typer.Exit(ConfigError.exit_code) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            if not is_full_disk(error):
                raise
            _complain("The disk is full. Free some space and run the same command again; what was finished is kept.")
            raise typer.Exit(1) from None


def _is_table(args: list[str]) -> bool:
    """Whether the first argument of `eval` is a table of answers, not the file of a run."""
    first = args[0] if args else ""
    return not first.startswith("-") and first.removesuffix(".gz").endswith(_TABLES) and not Path(first).is_dir()


def _complain(text: str) -> None:
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    shown = one_line(hidden(text))
    print(("\x1b[31mError:\x1b[0m " if colour else "Error: ") + shown, file=sys.stderr, flush=True)


_HELP = """Few-shot preference optimization: language models that adapt to a person from a handful of preferences.

One YAML file describes a run, and every command reads it. Run an interrupted command again to resume it.

Examples:
  fspo run --config configs/demo.yaml

  fspo chat runs/demo

  fspo data import ratings.jsonl data/ratings
"""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fspo {__version__}")
        raise typer.Exit


_VERBS = {
    "run": ("fspo.cli.run:run", "Generate the data, train every method, evaluate, and write the report."),
    "synth": (
        "fspo.cli.synth:synth",
        "Generate the dataset of a run: questions, responses, users, labels and splits.",
    ),
    "train": ("fspo.cli.train:train", "Train every method of a run that has its own weights."),
    "eval": ("fspo.cli.evaluate:evaluate", "Measure reward accuracy, sensitivity to the labels, and win rates."),
    # `eval` takes the folder of a run where a group of commands would look for a command, so it can't be such a group.
    "eval compare": ("fspo.cli.compare:compare", "Compare every two methods of evaluated runs on the same items."),
    "eval answers": (
        "fspo.cli.system_answers:answers",
        "Judge answers that you have already, without a run.",
    ),
    "compare": ("fspo.cli.comparison:compare", "Train many methods, measure them on several domains, and rank them."),
    "report": (
        "fspo.cli.report:report",
        "Print the table of a run, and write its report.html, one page.",
    ),
    "chat": ("fspo.cli.chat:chat", "Answer prompts for one user of a run's dataset, beside the base model."),
    "serve": (
        "fspo.cli.serve:serve",
        "Serve a policy with OpenAI's API; answers follow the preferences of each key's owner.",
    ),
    "users": ("fspo.cli.users:app", "Add, list, limit, export and delete the users of a server."),
    "keys": ("fspo.cli.keys:app", "Add, list and revoke the keys of a server's users."),
    "study": ("fspo.cli.study:app", "Run a blind human study of two arms as a web application."),
    "model": ("fspo.cli.model:app", "List, download, show, export and push models."),
    "data": ("fspo.cli.data:app", "Import, export, validate, show and split preference datasets."),
    "env": ("fspo.cli.env:env", "Show versions, cores, memory, accelerators and folders."),
}
"""Verb -> where it is, and what it does: a verb is imported when it is used, so that help comes at once."""


@functools.cache
def _command(name: str) -> Any:
    """The command of a verb of the table; reading the signatures of its functions takes longer than most calls."""
    module, _, attribute = _VERBS[name][0].partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        verb, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
        add_verb(found, name)(verb)
    return typer.main.get_command(found)


class _LazyVerbs(_Verbs):
    """The verbs of the table."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return list(_VERBS)

    def get_command(self, ctx: Any, name: str) -> Any:
        """The command of one verb; None where there is no such verb."""
        return _command(name) if name in _VERBS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write what each verb does, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in _VERBS.items()])


app = typer.Typer(
    cls=_LazyVerbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=help_text(_HELP),
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before the verb; its help is the program's."""


def main() -> None:
    """Run the program on the arguments of this process."""
    # Progress and errors are ours to show; libraries stay quiet unless they were told otherwise.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # PyTorch reads it at its first tensor; a training on processors takes a third less memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    app(prog_name="fspo")
