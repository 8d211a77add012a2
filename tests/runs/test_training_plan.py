"""What a run says about its trainings before anyone waits for them."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.files import read_jsonl, write_json
from fspo.preferences.splits import Splits
from fspo.runs import pipeline, training_plan
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.training_plan import TimeLeft, planned_trainings, remaining, table
from tests.progress_lines import Lines
from tests.training.helpers import small_dataset

FILE = """
name: mine
methods: [base, fspo]
training:
  all: {shots: 2, queries: 2, users_per_step: 3, steps: 9, lora: {r: 4}}
  fspo: {objective: mirrored-contrast, steps: 4}
evaluation: {shots: 2, queries: 2}
"""


@pytest.fixture
def run(tiny_model_path: Path, tmp_path: Path) -> list[str]:
    """The options that name a run on data of one's own."""
    dataset = small_dataset(users=6, questions=12)
    dataset.save(tmp_path / "data")
    users, questions = sorted(dataset.users), sorted(dataset.questions())
    parts: dict[Any, Any] = {"train": set(users[:4]), "test": set(users[4:])}
    Splits(parts, {"train": set(questions[:6]), "test": set(questions[6:])}).save(tmp_path / "data" / "splits.json")
    (tmp_path / "my.yaml").write_text(FILE)
    settings = [f"data={tmp_path / 'data'}", f"model={tiny_model_path}", "threads=1"]
    where = ["--config", str(tmp_path / "my.yaml"), "--output", str(tmp_path / "run")]
    return [*where, *(option for each in settings for option in ("--set", each))]


def fspo(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_dry_run_says_what_is_trained_why_and_how_long(run: list[str], tmp_path: Path) -> None:
    said = fspo("run", *run, "--dry-run")
    file = tmp_path / "my.yaml"
    [pref_ft] = [line for line in said.splitlines() if line.startswith("pref-ft ") and "training." in line]
    [trained] = [line for line in said.splitlines() if line.startswith("fspo ") and "training." in line]
    assert re.match(rf"pref-ft +9 +about [\d,]+ +about \d+ s +training\.all\.steps \({file}, line 5\)$", pref_ft)
    assert re.match(rf"fspo +4 +about [\d,]+ +about \d+ s +training\.fspo\.steps \({file}, line 6\), over ", trained)
    assert trained.endswith(", over training.all.steps = 9")
    assert "pref-ft is not among the run's methods, but fspo starts from it" in said
    assert re.search(r"Training takes about \d+ s \(pref-ft \d+ s, fspo \d+ s\), an estimate", said)
    assert not (tmp_path / "run").exists()
    (proposed,) = re.findall("`(--set .*?)`", said)
    from_base = fspo("run", *run, "--dry-run", *shlex.split(proposed)).partition("Settings that differ")[0]
    assert "pref-ft" not in from_base
    short = fspo("run", *run, "--dry-run", "--set", "training.all.steps=1")
    assert short.count("(--set training.all.steps=1)") == 2
    assert ", over " not in short


def test_a_dry_run_begins_with_its_answer_and_counts_the_evaluation(run: list[str], tmp_path: Path) -> None:
    said = fspo("run", *run, "--dry-run")
    assert said.startswith(f"Would make in {tmp_path / 'run'}:\n")
    answer, _, settings = said.partition("Settings that differ from the defaults")
    assert re.search(r"evaluation takes about \d+ s, .* reads about [\d,]+ tokens and writes at most [\d,]+\.", answer)
    assert "methods:" in settings and "temperature" not in settings
    assert len(said.splitlines()) < 50
    none = fspo("eval", *run, "--dry-run", "--set", "methods=[base, few-shot]", "--set", "evaluation.answers=0")
    assert "writes at most 0." in none


def test_a_training_says_it_too_and_what_is_left_after_an_interruption(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fspo("synth", *run)
    said = fspo("train", *run, "--method", "pref-ft")
    assert re.search(r"^pref-ft +9 +about [\d,]+ +training\.all\.steps", said, re.MULTILINE)
    assert said.count("Training takes about") == 1
    folder = RunFolder(load_config(tmp_path / "my.yaml", run[5::2], tmp_path / "run"))
    assert [each.done for each in planned_trainings(folder, ["pref-ft", "fspo"], None, None)] == [9, 0]
    plan = fspo("train", *run, "--dry-run")
    assert "methods/pref-ft: finished, so it is kept" in plan and "methods/fspo: to do" in plan
    assert re.search(r"^pref-ft +0 of 9 left +about 0 +about 0 s", plan, re.MULTILINE)
    again = fspo("train", *run, "--dry-run", "--on-existing", "overwrite")
    assert re.search(r"^pref-ft +9 +about", again, re.MULTILINE)


def test_training_takes_over_data_of_ones_own(run: list[str], tmp_path: Path) -> None:
    from fspo.errors import DataError

    folder = RunFolder(load_config(tmp_path / "my.yaml", run[5::2], tmp_path / "run"))
    with pytest.raises(DataError, match=rf"does not hold the data of {tmp_path / 'data'} yet; run `fspo run`"):
        pipeline.dataset_of(folder)
    assert "data: to do" in fspo("train", *run, "--method", "pref-ft", "--dry-run")
    assert "Trained policy" in fspo("train", *run, "--method", "pref-ft", "--set", "training.all.steps=1")
    assert pipeline.dataset_of(folder).fingerprint == pipeline.own_data(folder)[0].fingerprint
    assert "data:" not in fspo("train", *run, "--set", "training.all.steps=1", "--dry-run").partition("\n\n")[0]


def test_the_tokens_are_those_of_the_training(run: list[str], tmp_path: Path) -> None:
    fspo("synth", *run)
    fspo("train", *run)
    folder = RunFolder(load_config(tmp_path / "my.yaml", run[5::2], tmp_path / "run"))
    train = pipeline.splits_of(folder).part(pipeline.dataset_of(folder), "train")
    for each in planned_trainings(folder, ["pref-ft", "fspo"], train, folder.config.model, again=True):
        steps = [row["tokens"] for row in read_jsonl(folder.method(each.row.name) / "metrics.jsonl")]
        assert each.step_tokens * each.config.steps == pytest.approx(sum(steps), rel=0.1)


def test_what_a_processor_would_need_minutes_for_is_not_measured(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "count_weights", lambda name: 8_000_000_000)
    said = fspo("run", *run, "--dry-run")
    assert "No estimate of the time" in said and "Training takes" not in said
    assert re.search(r"^fspo +4 +about [\d,]+ +training\.fspo\.steps", said, re.MULTILINE)


def test_without_data_the_steps_are_said_alone(run: list[str], tmp_path: Path) -> None:
    folder = RunFolder(load_config(tmp_path / "my.yaml"))
    lines = table(planned_trainings(folder, ["ipo", "fspo"], None, None))
    assert [line.split()[:3] for line in lines[1:]] == [["fspo", "4", "?"]]
    default = table(planned_trainings(RunFolder(load_config(None)), ["ipo"], None, None))
    assert default[1].endswith("the default; set training.ipo.steps")


def test_a_dry_run_refuses_a_tracker_that_there_is_not(run: list[str]) -> None:
    done = CliRunner().invoke(app, ["run", *run, "--dry-run", "--set", "training.all.report_to=mlflow2"])
    assert done.exit_code == 2
    assert "did you mean 'mlflow'?" in done.output


def test_a_training_in_rounds_counts_the_steps_of_all_rounds(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("methods: [synpo]\ntraining: {synpo: {rounds: 2, steps: 9, improver_steps: 5}}\n")
    folder = RunFolder(load_config(tmp_path / "my.yaml", (), tmp_path / "run"))
    [plan] = planned_trainings(folder, ["synpo"], None, None)
    assert (plan.config.total_steps, plan.done) == (40 + 2 * (5 + 9), 0)
    for place, steps in (("0/generator", 40), ("1/improver", 5), ("1", 9)):
        record = {"identity": {"config": {"steps": steps}}, "finished": place != "1"}
        write_json(folder.method("synpo") / "rounds" / place / "training.json", record)
    [plan] = planned_trainings(folder, ["synpo"], None, None)
    assert plan.done == 45
    assert "answers" not in remaining([replace(plan, units=())], 1.0)
    unit: Any = SimpleNamespace(tokens=10)
    assert "answers that methods write in between are not included" in remaining([replace(plan, units=(unit,))], 1.0)


def test_the_time_left_is_that_of_the_current_training_and_of_those_after_it(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(FILE)
    folder, said = RunFolder(load_config(tmp_path / "my.yaml", (), tmp_path / "run")), Lines()
    unit: Any = SimpleNamespace(tokens=10)  # 30 for a step
    planned = planned_trainings(folder, ["pref-ft", "fspo"], None, None)
    trainings = [replace(each, units=(unit,)) for each in planned]
    left = TimeLeft(trainings, said)
    left.tell(10.0, 4)
    left.tell(10.0, 7)
    left.begin(1)
    left.tell(10.0, 2)
    left.tell(10.0, 4)  # its last step
    TimeLeft([replace(trainings[0], done=4), trainings[1]], said).tell(10.0, 1)  # as in a second round
    times = [line.removeprefix("Training takes about ").partition(", an estimate")[0] for line in said.lines]
    assert times == [
        "27 s (pref-ft 15 s, fspo 12 s)",
        "18 s (pref-ft 6 s, fspo 12 s)",
        "6 s",
        "27 s (pref-ft 15 s, fspo 12 s)",
    ]
