"""The recipes of the README, as they are printed."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from tests.e2e.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_DATA = README[README.index("**Your own data.**") : README.index("**Your own model.**")]
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", OWN_DATA, re.DOTALL)
    return str(found)


def ratings(path: Path, questions: int) -> None:
    """Rows as the README has one: of 15 users, who like the short or the long answer to every question."""
    (example,) = csv.DictReader(block("csv").splitlines())
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(example))
        writer.writeheader()
        for user in range(15):
            for question in range(questions):
                pair = [f"Number {question} is a box.", f"Number {question} is a monoid in some category or other."]
                told = {"user": f"u{user}", "prompt": f"What is number {question}?"}
                writer.writerow(told | {"chosen": pair[user % 2], "rejected": pair[1 - user % 2]})


def fspo(line: str) -> Any:
    program, *arguments = shlex.split(line, comments=True)
    assert program == ".venv/bin/fspo"
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(block("yaml"), encoding="utf-8")


def test_the_commands_for_data_of_ones_own_run_in_order(tiny_model_path: Path) -> None:
    assert "15 users who answered the same 20 questions are enough to run" in OWN_DATA
    ratings(Path("ratings.csv"), 20)
    *lines, check, last = block("sh").splitlines()
    assert len(lines) == 3
    for line in lines:
        done = fspo(line)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert check.partition("#")[0].split() == [*last.split(), "--dry-run"]
    done = fspo(f"{last} --dry-run --set model={tiny_model_path}")
    assert done.exit_code == 0, done.output
    assert "methods/fspo: to do" in done.output and "methods/pref-ft" not in done.output


def test_fewer_questions_than_the_readme_asks_for_are_told_by_part(tiny_model_path: Path) -> None:
    ratings(Path("ratings.csv"), 18)
    *lines, _, run = block("sh").splitlines()
    for line in lines:
        assert fspo(line).exit_code == 0
    done = fspo(f"{run} --dry-run --set model={tiny_model_path}")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: In the test part: User 'u")
    assert "needs 6" in done.stderr


@pytest.mark.filterwarnings("ignore:::peft", "ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft's own
def test_the_policy_trained_in_python_answers_without_fspo(
    speaking_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings(Path("ratings.csv"), 20)
    train, answer, _ = PYTHON
    for printed, quick in (("smollm2-135m", str(speaking_model_path)), ("max_steps=200", "max_steps=1")):
        assert train.count(printed) == 1
        train = train.replace(printed, quick)
    names: dict[str, Any] = {}
    exec(compile(train, "README.md", "exec"), names)
    rewards = capsys.readouterr().out.strip()
    assert len(json.loads(rewards)) == 2
    assert "fspo" not in answer
    alone: dict[str, Any] = {}
    exec(compile(answer, "README.md", "exec"), alone)
    # The chat is what the policy was trained to read.
    policy = names["trainer"].policy
    shown = policy.messages(names["person"], "What is a magma?")
    told = alone["tokenizer"].apply_chat_template(shown, add_generation_prompt=True, return_dict=False)
    assert alone["inputs"]["input_ids"][0].tolist() == told
