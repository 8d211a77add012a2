"""Answers that are there already, judged from files to the report."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fspo
from fspo.cli.main import app
from fspo.errors import ConfigError, DataError
from fspo.evaluation.run_comparison.compare_runs import compare_runs
from fspo.judging.verdicts import Preferred
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User
from fspo.progress import Silent
from tests.fake_endpoint import fake_endpoint, stats

PAGE = Path(__file__).parents[2] / "docs" / "win-rates.md"
SHORT, LONG = "Yes, of course it is.", "Yes, of course it is, and let me tell you at great length why that is so."
USERS = [f"u{number}" for number in range(4)]


def rows(**changed: Any) -> list[dict[str, Any]]:
    return [
        {"user": user, "prompt": f"{number}?", "ours": SHORT, "theirs": LONG, "third": LONG[:-9] + str(number)}
        | changed
        for user in USERS
        for number in range(2)
    ]


def described(description: str = "Likes it short.") -> dict[str, str]:
    return {"user_description": description}


def judge_at(address: str, name: str = "far") -> dict[str, Any]:
    return {"name": name, "endpoint": {"base_url": address, "model": "m"}}


def evaluate(given: Any, output: Path, **options: Any) -> fspo.Results:
    return fspo.evaluate_answers(given, output, progress=Silent(), **options)


def rate(results: fspo.Results, system: str, measure: str = "win_rate") -> float:
    return float(results.metrics.query("method == @system and measure == @measure")["value"].iloc[0])


def test_the_recipe_of_the_page_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## Answers that you have already") :]
    for language, file in (("csv", "outputs.csv"), ("json", "people.jsonl")):
        found = re.search(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        assert found is not None
        Path(file).write_text(found.group(1), encoding="utf-8")
    dry, real = re.findall(r"^\.venv/bin/fspo (eval answers .*)$", section, re.MULTILINE)
    for line in (dry, real, real.replace("eval answers", "eval")):
        done = CliRunner().invoke(app, shlex.split(line))
        assert done.exit_code == 0, done.output
        assert Path("runs/outputs").exists() == (line != dry)
    assert "brief" in done.output and "75.0" in done.output
    assert "No interval" not in done.output  # not even of measures that nobody asked for
    assert json.loads(Path("runs/outputs/metrics.json").read_text())["brief"]["win_rate"]["value"] == 0.75


@pytest.mark.usefixtures("undrawn")
def test_an_endpoint_judges_for_each_user_and_a_second_call_asks_nothing(tmp_path: Path) -> None:
    with fake_endpoint() as address:
        found = evaluate(rows(**described()), tmp_path / "o", judges=[judge_at(address)])
        asked = stats(address)["answered"]
        assert rate(found, "ours") == 1.0
        written = {path.name: path.read_bytes() for path in (tmp_path / "o").glob("*.json*")}
        again = evaluate(rows(**described()), tmp_path / "o", judges=[judge_at(address)])
        assert stats(address)["answered"] == asked and rate(again, "ours") == 1.0
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").glob("*.json*")} == written
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "compared with third" in page and "the base model" not in page and "Reward accuracy" not in page
    pairs = compare_runs([tmp_path / "o"], measure="win_rate").pairs
    assert [{pair.first, pair.second} for pair in pairs] == [{"ours", "theirs"}]


@pytest.mark.usefixtures("undrawn")
def test_preferences_stand_for_a_description_and_not_those_on_judged_prompts(tmp_path: Path) -> None:
    people = {user: User(user) for user in USERS}
    kept = [Preference(user, "Else?", "A short one.", "A long one it is.") for user in USERS]
    seen = [Preference(user, "0?", "SECRET", "A long one it is.") for user in USERS]
    with fake_endpoint() as address:
        data = PreferenceDataset(people, [*kept, *seen])
        evaluate(rows(), tmp_path / "o", data=data, judges=[judge_at(address)])
    samples = (tmp_path / "o" / "samples.jsonl").read_text(encoding="utf-8")
    assert "A short one." in samples and "SECRET" not in samples


@pytest.mark.usefixtures("undrawn")
def test_answers_for_nobody_are_judged_for_anybody(tmp_path: Path) -> None:
    given = [{name: value for name, value in row.items() if name != "user"} for row in rows()]
    with fake_endpoint() as address:
        found = evaluate(given, tmp_path / "o", judges=[judge_at(address)], baseline="theirs")
    assert rate(found, "ours") == 0.0  # without a description the scripted judge likes it long
    assert found.metrics.query("measure == 'win_rate'")["users"].iloc[0] == 2
    with pytest.raises(ConfigError, match="the rows name no users"):
        evaluate(given, tmp_path / "p")


class Shorter:
    identity = "shorter"

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        return "first" if len(first) < len(second) else "tie" if len(first) == len(second) else "second"


@pytest.mark.usefixtures("undrawn")
def test_a_judge_in_python_and_missing_and_empty_answers(tmp_path: Path) -> None:
    given = rows()
    given[0]["ours"], given[1]["ours"] = None, ""
    found = evaluate(given, tmp_path / "o", judge=Shorter(), baseline="theirs")
    measured = found.metrics.query("method == 'ours' and measure == 'win_rate'").iloc[0]
    assert measured["items"] == 7 and measured["value"] == pytest.approx(6 / 7)  # the empty one loses by a floor
    details = json.loads((tmp_path / "o" / "evaluation" / "details.json").read_text())
    assert details["missing"] == {"ours": 1, "theirs": 0, "third": 0}
    assert "prompts without an answer" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_a_judge_that_is_no_yaml_is_named_by_its_option(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["eval", "answers", str(tmp_path / "o.csv"), "--judge", "{likes"])
    assert found.exit_code == 2 and "--judge {likes:" in found.stderr and "--set" not in found.stderr


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_file_in_the_place_of_the_results_is_refused_before_anything_is_read(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    for dry in ([], ["--dry-run"]):
        line = ["eval", "answers", str(tmp_path / "missing.csv"), "--output", str(tmp_path / place), *dry]
        found = CliRunner().invoke(app, line)
        assert found.exit_code == 2 and "is a file" in found.stderr


@pytest.mark.usefixtures("undrawn")
def test_names_of_systems_are_no_paths(tmp_path: Path) -> None:
    names = {"../../up": SHORT, "items.jsonl": LONG, "a/b, c": LONG}
    given = [{"user": row["user"], "prompt": row["prompt"], **names} for row in rows()]
    found = evaluate(given, tmp_path / "in" / "o", judge=Shorter())
    assert rate(found, "../../up") == 1.0
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert set(found.samples["method"]) == set(names)


def test_what_can_not_be_judged_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = PreferenceDataset({"u": User("u")}, [Preference("u", "0?", "a", "b")])
    with pytest.raises(DataError, match="answers, row 1: the data has no user 'u0'"):
        evaluate(rows(), tmp_path / "o", data=data, judge=Shorter())
    with pytest.raises(DataError, match="user 'u0' has none"):
        evaluate(rows(), tmp_path / "o", judges=[judge_at("http://127.0.0.1:9/v1")])
    with pytest.raises(DataError, match="'ourz', the baseline; choose from ours"):
        evaluate(rows(), tmp_path / "o", judge=Shorter(), baseline="ourz")
    with pytest.raises(ConfigError, match="no setting 'shots'"):
        evaluate(rows(), tmp_path / "o", judge=Shorter(), shots=3)
    assert not (tmp_path / "o").exists()
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "metrics.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"metrics\.json"):
        evaluate(rows(), tmp_path / "o", judge=Shorter())
