from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fspo.cli.main import app, main
from fspo.errors import ConfigError, FspoError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A program like ours, whose one verb fails with whatever is in `failing.error`."""
    from fspo.cli.main import _Verbs

    program = typer.Typer(cls=_Verbs, pretty_exceptions_enable=False)

    @program.command()
    def verb() -> None:
        raise program.error  # type: ignore[attr-defined]

    @program.command()
    def other() -> None: ...

    return program


def chained() -> Exception:
    error = RuntimeError("serialising failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FspoError("The row is wrong."), 1, "Error: The row is wrong.\n"),
        (ConfigError("The key is wrong."), 2, "Error: The key is wrong.\n"),
        (
            KeyboardInterrupt(),
            130,
            "Error: Interrupted; what was finished is kept. Run the same command again to continue.\n",
        ),
        (typer.Abort(), 130, "Error: Interrupted;"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "Error: The disk is full."),
        (chained(), 1, "Error: The disk is full."),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_an_exit_code(
    failing: typer.Typer, error: BaseException, code: int, message: str
) -> None:
    failing.error = error  # type: ignore[attr-defined]
    result = CliRunner().invoke(failing, ["verb"])
    assert result.exit_code == code
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback(failing: typer.Typer) -> None:
    failing.error = ValueError("a bug")  # type: ignore[attr-defined]
    result = CliRunner().invoke(failing, ["verb"])
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    "arguments", [["no-such-verb"], ["run", "--no-such-option"], ["run"], ["env", "--set", "x"], ["run", "nope.yaml"]]
)
def test_a_wrong_command_exits_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "validate", "nope.csv"],
        ["data", "show", "nope"],
        ["run", "tiny.yaml", "--set", "data=nope"],
        ["run", "tiny.yaml", "--set", "model=./nope"],
        ["users", "list", "--store", "nope"],
    ],
)
def test_what_a_command_names_and_is_missing_exits_with_1(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("name: tiny\n")
    result = CliRunner().invoke(app, [*arguments, *(["--dry-run"] if arguments[0] == "run" else [])])
    assert result.exit_code == 1 and "nope" in result.stderr


@pytest.mark.parametrize("group", [[], ["data"], ["model"]])
def test_every_verb_has_help_with_examples(group: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    for name in group:
        command = command.get_command(typer.Context(command), name)
    verbs = command.list_commands(typer.Context(command))
    for name in ([], *([verb] for verb in verbs)):
        result = CliRunner().invoke(app, [*group, *name, "--help"])
        assert result.exit_code == 0
        assert re.search(rf"Examples:\n    {' '.join(['fspo', *group, *name])}\b", result.output)
    examples = re.findall(r"^    fspo (.*)$", CliRunner().invoke(app, [*group, "--help"]).output, re.MULTILINE)
    assert len(examples) >= 2
    assert all(example.split()[len(group)] in verbs for example in examples)


def test_help_comes_within_a_second_and_without_heavy_imports() -> None:
    heavy = ("torch", "transformers", "numpy", "pyarrow", "pydantic", "rich")
    code = f"""
import resource, sys, time
sys.argv = ["fspo", "--help"]
from fspo.cli.main import main
try:
    main()
except SystemExit:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    loops = []
    for _ in range(5):
        before = time.process_time()
        sum(range(5_000_000))
        loops.append(time.process_time() - before)
    print([name for name in {heavy} if name in sys.modules], usage.ru_utime + usage.ru_stime, min(loops))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds, loop = done.stdout.splitlines()[-1].rsplit(" ", 2)
    assert "Usage: fspo" in done.stdout
    assert loaded == "[]"
    # The processor's time, by that of a loop which takes about 1/15 of a second on a machine that does nothing else.
    assert float(seconds) < 15 * float(loop)


def test_main_is_the_installed_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "Usage: fspo" in capsys.readouterr().out


def test_the_version_is_told_without_a_verb() -> None:
    from fspo import __version__

    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"fspo {__version__}\n")


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_pytorch_may_use_huge_pages_unless_the_environment_says_otherwise(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "--version"])
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", given or "")
    if given is None:
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    with pytest.raises(SystemExit):
        main()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == expected
